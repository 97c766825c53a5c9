"""The tables of study.md, from the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import smollm2
from misaligned import SHARES, published_shares
from studies import PLUGIN, RECORDS, SEVERITIES, STUDIES, Record, Runs, chosen_rates, read_records

from rlcsd.inspection.signals import SIGNALS
from rlcsd.report.statistics import Difference, holm, mean_interval, paired_difference

PEOPLE = {"3 people": "seen_sizes", "4 people": "unseen_sizes: 4 people", "5 people": "unseen_sizes: 5 people"}
LAST = 8  # steps whose mean is "at the end"


SMOLLM2 = smollm2.study()
_ALL = {**STUDIES, SMOLLM2.name: SMOLLM2}


def ordered(name: str) -> Runs:
    """The records of a study, its arms in the order in which the study names them."""
    found = read_records(name)
    return {arm.name: found[arm.name] for arm in _ALL[name].arms if arm.name in found}


Measure = Callable[[Record], float]


def area(record: Record) -> float:
    """Mean accuracy on the training problems over all steps: the area under the learning curve."""
    return float(np.mean(record["curves"]["accuracy"]))


def at_the_end(name: str) -> Measure:
    return lambda record: float(np.mean(record["curves"][name][-LAST:]))


def at_the_start(name: str) -> Measure:
    return lambda record: float(np.mean(record["curves"][name][:1]))


def test(name: str) -> Measure:
    return lambda record: float(record["test"][name])


TESTED = {"test": test("seen_sizes"), "other kind": test("unseen_sizes")}
CREDIT_MEASURES: dict[str, Measure] = {"area": area, **TESTED}
IN_SIZE: dict[str, Measure] = {"area": area, "test": test("seen_sizes")}


def published(runs: Runs) -> Runs:
    """The eight methods as published, of an arm list that has variants of them."""
    return {arm: by_seed for arm, by_seed in runs.items() if "-" not in arm}


def cell(values: Sequence[float], digits: int = 3) -> str:
    estimate = mean_interval(values)
    half = "" if estimate.half is None else f" ± {estimate.half:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{half}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def means(runs: Runs, measures: Mapping[str, Measure]) -> str:
    """One row an arm: mean ± half of the 95 % t-interval over seeds."""
    rows = []
    for arm, by_seed in runs.items():
        values = [cell([measure(record) for record in by_seed.values()]) for measure in measures.values()]
        rows.append([arm, str(len(by_seed)), *values])
    return table(["arm", "seeds", *measures], rows)


def pairs(runs: Mapping[int, Record], reference: Mapping[int, Record]) -> int:
    """How many seeds both have."""
    return len(set(runs) & set(reference))


def paired(runs: Mapping[int, Record], reference: Mapping[int, Record], measure: Measure) -> Difference:
    """Runs minus reference, seed by seed."""
    return paired_difference(*({seed: measure(record) for seed, record in of.items()} for of in (runs, reference)))


def difference_cell(difference: Difference, p: float | None) -> str:
    """Mean, interval and corrected p-value; the mean alone where the others would mean nothing."""
    if difference.low is None or difference.high is None or p is None:
        return f"{difference.mean:+.3f}"
    written = f"p {p:.3f}" if p >= 0.0005 else "p < 0.001"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], {written}"


@dataclass(frozen=True)
class Comparison:
    """One table of differences: rows of (label, runs, reference), and the measures that are its columns."""

    head: str
    rows: Sequence[tuple[str, Mapping[int, Record], Mapping[int, Record]]]
    measures: Mapping[str, Measure]


def against(runs: Runs, reference: str, measures: Mapping[str, Measure], without: Collection[str] = ()) -> Comparison:
    """Each arm minus the reference."""
    left_out = {reference, *without}
    rows = [(arm, by_seed, runs.get(reference, {})) for arm, by_seed in runs.items() if arm not in left_out]
    return Comparison(f"minus {reference}", rows, measures)


Tested = dict[tuple[str, str, str], tuple[Difference, float | None]]


def tested(comparisons: Mapping[str, Comparison]) -> Tested:
    """The tests of one study by table, row and column: the difference by seed, and p corrected over all (Holm)."""
    found = {
        (name, label, column): paired(runs, reference, measure)
        for name, comparison in comparisons.items()
        for label, runs, reference in comparison.rows
        if pairs(runs, reference) > 1
        for column, measure in comparison.measures.items()
    }
    corrected = holm([one.p for one in found.values()])
    return {key: (one, p) for (key, one), p in zip(found.items(), corrected, strict=True)}


def paired_tables(comparisons: Mapping[str, Comparison]) -> dict[str, str]:
    """The tables of one study: mean difference by seed, 95 % t-interval, and corrected p."""
    found = tested(comparisons)
    written = {}
    for name, comparison in comparisons.items():
        rows = [
            [label, str(pairs(runs, of)), *(difference_cell(*found[name, label, c]) for c in comparison.measures)]
            for label, runs, of in comparison.rows
            if pairs(runs, of) > 1
        ]
        heads = [comparison.head, "pairs", *comparison.measures]
        written[name] = table(heads, rows) if rows else "No pairs of seeds yet."
    return written


def style(runs: Runs) -> str:
    heads = {"accuracy": 3, "entropy": 3, "length": 0, "worked": 2, "interjections": 2}
    rows = []
    for arm, by_seed in runs.items():
        row = [arm, str(len(by_seed))]
        for name, digits in heads.items():
            start = np.mean([at_the_start(name)(record) for record in by_seed.values()])
            row.append(f"{start:.{digits}f} → {cell([at_the_end(name)(r) for r in by_seed.values()], digits)}")
        rows.append(row)
    return table(["arm", "seeds", *heads], rows)


def mechanism(runs: Runs) -> str:
    names = {
        "usable rollouts": "hints/usable_share",
        "selected tokens": "rlcsd/selected_share",
        "weight of a selected token": "rlcsd/selected_weight",
        "residual agrees": "rlcsd/residual_agrees",
        "mean abs e_ctr": "e_ctr/abs_mean",
    }
    rows = []
    for arm, by_seed in runs.items():
        known = {head: [r["means"][key] for r in by_seed.values() if key in r["means"]] for head, key in names.items()}
        if known["selected tokens"]:
            rows.append([arm, *(f"{np.mean(values):.2f}" if values else "–" for values in known.values())])
    return table(["arm", *names], rows)


def signal() -> str:
    """What token_signal.py measured: the mean signal by kind of token, then how well it tells right from wrong."""
    path = RECORDS / "signal.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [one["kind"], one["target"], str(one["tokens"]), *(f"{one[n]:+.3f}" for n in SIGNALS)] for one in record["rows"]
    ]
    by_kind = table(["token", "rollout", "tokens", "gap under h_c alone", "gap under h_w", "contrast e_ctr"], rows)
    names = {"teacher_gap": "gap under h_c alone", "contrast": "contrast e_ctr"}
    aucs = [
        [label, *(f"{record['auc'][f'{name}, {label}']:.3f}" for name in names)]
        for label in ("all rollouts", "wrong rollouts")
    ]
    return f"{by_kind}\n\n{table(['AUC, right against wrong decisions', *names.values()], aucs)}"


def plugin(runs: Runs) -> str:
    """The paper's section 4.3: accuracy, entropy and length at the end by source of evidence, over their seeds."""
    rows = []
    for method, sources in PLUGIN.items():
        for source, arm in sources.items():
            if by_seed := runs.get(arm, {}):
                measured = [(test("seen_sizes"), 3), (test("unseen_sizes"), 3)]
                measured += [(at_the_end("entropy"), 3), (at_the_end("length"), 0), (at_the_end("worked"), 2)]
                cells = [cell([measure(record) for record in by_seed.values()], digits) for measure, digits in measured]
                rows.append([method, source, str(len(by_seed)), *cells])
    return table(["method", "evidence", "seeds", "test", "other kind", "entropy", "length", "worked"], rows)


def plugin_gains(runs: Runs) -> Comparison:
    """The contrast minus each one-sided source, paired by seed."""
    rows = [
        (f"{method}: contrast − {source}", runs.get(sources["contrast"], {}), runs.get(arm, {}))
        for method, sources in PLUGIN.items()
        for source, arm in sources.items()
        if source != "contrast"
    ]
    return Comparison("gain", rows, {**TESTED, "worked": at_the_end("worked")})


def rates(study: str) -> str:
    """Validation accuracy by candidate, the mean of both kinds of problems over the seeds; the best is bold."""
    runs, chosen = ordered(study), chosen_rates(study)
    candidates = list(dict.fromkeys(arm.split("@")[1] for arm in runs))
    rows = []
    for method in dict.fromkeys(arm.split("@")[0] for arm in runs):
        found = [[r["test"]["average"] for r in runs.get(f"{method}@{rate}", {}).values()] for rate in candidates]
        cells = [f"{np.mean(values):.3f}" if values else "–" for values in found]
        marked = [f"**{c}**" if rate == chosen[method] else c for rate, c in zip(candidates, cells, strict=True)]
        rows.append([method, str(min(map(len, found))), *marked])
    return table(["method", "seeds", *candidates], rows)


def default(runs: Runs) -> str:
    """Accuracy by number of people before and after training, entropy and length at the end."""
    rows = []
    for arm, by_seed in runs.items():
        records = list(by_seed.values())
        row = [arm, str(len(records))]
        for name in PEOPLE.values():
            row += [f"{np.mean([r['before'][name] for r in records]):.3f} → {cell([r['test'][name] for r in records])}"]
        row += [cell([at_the_end(name)(r) for r in records], d) for name, d in (("entropy", 3), ("length", 0))]
        rows.append(row)
    return table(["arm", "seeds", *PEOPLE, "entropy", "length"], rows)


def decision_gains(runs: Runs) -> Comparison:
    """The oracle and rlcsd minus grpo at each number of decisions and each group size."""
    rows = [
        (arm, by_seed, runs.get("-".join(["grpo", *arm.split("-")[1:]]), {}))
        for arm, by_seed in runs.items()
        if not arm.startswith("grpo")
    ]
    return Comparison("minus grpo of the same size", rows, IN_SIZE)


METHODS = ("opsd", "sdpo", "srpo", "opsd_ectr", "rlsd", "rlsd_ectr", "rlcsd")  # those with a teacher


def by_alignment(runs: Runs) -> Runs:
    """Each method with its displaced forms after it."""
    order = [name + ending for name in ("grpo", *METHODS) for ending in ("", *(f"-{one}" for one in SEVERITIES))]
    return {name: runs[name] for name in order if name in runs}


def displaced_against_aligned(runs: Runs, measures: Mapping[str, Measure]) -> Comparison:
    """Each method with a displaced teacher minus the same with an aligned one."""
    rows = [(arm, runs[arm], runs.get(arm.rpartition("-")[0], {})) for arm in by_alignment(runs) if "-" in arm]
    return Comparison("minus the aligned form", rows, measures)


def shares(runs: Runs) -> str:
    """Shares of tokens by what the teacher gave them: measured in the runs, and simulated at the published sizes."""
    rows = []
    for ending in SEVERITIES:
        found = [
            [record["means"][f"misaligned/{share}"] for share in SHARES]
            for arm, by_seed in runs.items()
            if arm.endswith(ending)
            for record in by_seed.values()
        ]
        if found:
            mean_shares = np.mean([np.array(one) / sum(one) for one in found], axis=0)
            rows.append([ending, str(len(found)), *(f"{share:.2f}" for share in mean_shares)])
    for number in (4, 1):
        label = f"published sizes, micro-batches of {number}"
        rows.append([label, "–", *(f"{share:.2f}" for share in published_shares(number))])
    return table(["teacher", "runs", "no value", "another token's", "their own"], rows)


REPORTED = (  # of the paper's training dynamics: what it says, the method, and the measure
    ("entropy explodes", "opsd", "entropy"),
    ("entropy explodes", "sdpo", "entropy"),
    ("entropy explodes", "srpo", "entropy"),
    ("the contrast bounds opsd's entropy", "opsd_ectr", "entropy"),
    ("responses shrink", "rlsd", "length"),
    ("the contrast keeps rlsd's responses long", "rlsd_ectr", "length"),
    ("entropy is stable", "rlcsd", "entropy"),
    ("length is stable", "rlcsd", "length"),
)


def reported(runs: Runs) -> str:
    """What the paper reports of training dynamics, beside the ends of the runs by the teacher's alignment."""
    rows = []
    for claim, method, name in REPORTED:
        arms = [runs.get(arm, {}) for arm in (method, *(f"{method}-{ending}" for ending in SEVERITIES))]
        digits = 0 if name == "length" else 2
        found = [[at_the_end(name)(record) for record in by_seed.values()] for by_seed in arms]
        begin = np.mean([at_the_start(name)(record) for record in arms[0].values()]) if arms[0] else np.nan
        cells = [f"{np.mean(values):.{digits}f} ({len(values)})" if values else "–" for values in found]
        rows.append([method, claim, name, f"{begin:.{digits}f}", *cells])
    return table(["method", "the paper reports", "measure", "first step", "aligned", *SEVERITIES], rows)


FAMILY_TASKS = ("family_drift", "family_credit")


def by_area(runs: Runs) -> Runs:
    """The runs, methods with the largest area first."""
    return dict(sorted(runs.items(), key=lambda one: -np.mean([area(record) for record in one[1].values()])))


def learned(runs: Runs) -> str:
    """What each method learned at its rate, its entropy at the end, and the tokens that a step samples."""
    measures: dict[str, tuple[Measure, int]] = {
        **{name: (measure, 3) for name, measure in CREDIT_MEASURES.items()},
        "entropy": (at_the_end("entropy"), 3),
        "tokens a step": (lambda record: float(record["means"]["rollout/tokens"]), 0),
    }
    rows = []
    for arm, by_seed in runs.items():
        records = list(by_seed.values())
        cells = [cell([measure(record) for record in records], digits) for measure, digits in measures.values()]
        rows.append([arm, f"{records[0]['learning_rate']:g}", str(len(records)), *cells])
    return table(["method", "rate", "seeds", *measures], rows)


def against_vocabulary(runs: Runs) -> Comparison:
    """Each method with log-probs among the kept tokens, and each form of the correction, minus the same method with
    log-probs over the vocabulary and the default correction."""
    rows = [
        (arm, by_seed, runs.get(f"{arm.partition('-')[0]}-vocabulary", {}))
        for arm, by_seed in runs.items()
        if not arm.endswith("-vocabulary")
    ]
    return Comparison("minus vocabulary", rows, {**CREDIT_MEASURES, "entropy": at_the_end("entropy")})


HELD_OUT: dict[str, Measure] = {"area": area, "held out": test("held_out")}


def pretrained(runs: Runs) -> str:
    """Held-out accuracy of the pretrained model before and after, the area, and entropy and length at the end."""
    rows = []
    for arm, by_seed in runs.items():
        records = list(by_seed.values())
        before = f"{np.mean([record['before']['held_out'] for record in records]):.3f}"
        cells = [cell([measure(record) for record in records]) for measure in HELD_OUT.values()]
        cells += [cell([at_the_end(name)(r) for r in records], d) for name, d in (("entropy", 3), ("length", 0))]
        rows.append([arm, str(len(records)), before, *cells])
    return table(["arm", "seeds", "before", *HELD_OUT, "entropy", "length"], rows)


def against_published(runs: Runs, measures: Mapping[str, Measure]) -> Comparison:
    """What the code did, one switch at a time, minus the same method as its config says."""
    rows = [(arm, by_seed, runs.get(arm.partition("-")[0], {})) for arm, by_seed in runs.items() if "-" in arm]
    return Comparison("minus the published form", rows, measures)


def counted(runs: Runs) -> str:
    """How much of the weights a step changes, and how many rollouts a mean is over, over their seeds."""
    counts = {"changed weights": "update/changed_share", "rollouts of a micro-batch": "update/micro_batch_rollouts"}
    rows = []
    for arm, by_seed in runs.items():
        found = [[r["means"][key] for r in by_seed.values() if key in r["means"]] for key in counts.values()]
        rows.append([arm, str(len(by_seed)), *(cell(values) if values else "–" for values in found)])
    return table(["arm", "seeds", *counts], rows)


def comparisons(study: str) -> dict[str, Comparison]:
    """The tables of differences of a study: all tests that are made of its records."""
    runs = ordered(study)
    dynamics = {name: at_the_end(name) for name in ("accuracy", "entropy", "worked", "interjections")}
    if study == "drift":
        authors = [
            (arm, by_seed, runs.get(arm.removesuffix("-authors"), {}))
            for arm, by_seed in runs.items()
            if arm.endswith("-authors")
        ]
        return {
            "drift tests": against(published(runs), "grpo", dynamics),
            "authors tests": Comparison("minus the published form", authors, dynamics),
            "plugin gains": plugin_gains(runs),
        }
    if study == "credit":
        oracles = {arm: by_seed for arm, by_seed in runs.items() if arm.startswith("oracle")}
        return {
            "credit against grpo": against(runs, "grpo", CREDIT_MEASURES),
            "credit against rlcsd": against(runs, "rlcsd", CREDIT_MEASURES, without=("grpo",)),
            "credit against oracle": against(oracles, "oracle", CREDIT_MEASURES),
        }
    if study == "confirm":
        return {
            "confirm against grpo": against(runs, "grpo", CREDIT_MEASURES),
            "confirm against rlcsd": against(runs, "rlcsd", CREDIT_MEASURES, without=("grpo",)),
        }
    if study == "decisions":
        return {"decision gains": decision_gains(runs)}
    if study == "alignment":  # with the credit task: one question, one family of tests
        dynamics = {name: at_the_end(name) for name in ("entropy", "length", "accuracy")}
        credit = {"entropy": at_the_end("entropy"), "area": area, "test": test("seen_sizes")}
        return {
            "alignment tests": displaced_against_aligned(runs, dynamics),
            "alignment credit tests": displaced_against_aligned(ordered("alignment_credit"), credit),
        }
    if study in FAMILY_TASKS:
        return {f"{study.replace('_', ' ')} tests": against(by_area(runs), "grpo", CREDIT_MEASURES)}
    if study == "as_run":  # with the credit task: one question, one family of tests
        dynamics = {name: at_the_end(name) for name in ("accuracy", "entropy", "length", "worked")}
        return {
            "as_run tests": against_published(runs, dynamics),
            "as_run credit tests": against_published(ordered("as_run_credit"), CREDIT_MEASURES),
        }
    if study == "mask":
        return {"mask tests": against_vocabulary(runs)}
    if study == SMOLLM2.name:
        return {"smollm2 tests": against(runs, "grpo", {**HELD_OUT, "entropy": at_the_end("entropy")})}
    if study == "default":
        by_people: dict[str, Measure] = {"area": area, **{people: test(name) for people, name in PEOPLE.items()}}
        return {
            "default against grpo": against(runs, "grpo", by_people),
            "default against rlcsd": against(runs, "rlcsd", by_people, without=("grpo",)),
        }
    return {}


def tables() -> dict[str, str]:
    """The tables of study.md by name."""
    drift, credit, confirm, defaults, rated = map(ordered, ("drift", "credit", "confirm", "default", "rates"))
    decisions, alignment = ordered("decisions"), ordered("alignment")
    found = {
        "signal": signal(),
        "drift": style(published(drift)),
        "authors": style({arm: runs for arm, runs in drift.items() if arm.endswith("-authors")}),
        "modes": style(rated | ordered("modes")),
        "credit": means(credit, CREDIT_MEASURES),
        "credit mechanism": mechanism(credit),
        "confirm": means(confirm, CREDIT_MEASURES),
        "plugin": plugin(drift),
        "decisions": means(decisions, IN_SIZE),
        "rates": rates("rates"),
        "alignment shares": shares(alignment),
        "alignment": style(by_alignment(alignment)),
        "reported": reported(alignment),
        "alignment credit": style(by_alignment(ordered("alignment_credit"))),
        "as_run": style(ordered("as_run")),
        "as_run counts": counted(ordered("as_run")),
        "as_run credit": means(ordered("as_run_credit"), CREDIT_MEASURES),
        "as_run credit counts": counted(ordered("as_run_credit")),
        "mask": learned(ordered("mask")),
        SMOLLM2.name: pretrained(ordered(SMOLLM2.name)),
        "default": default(defaults),
        "default mechanism": mechanism(defaults),
    }
    for study in FAMILY_TASKS:
        name = study.replace("_", " ")
        found |= {name: learned(by_area(ordered(study))), f"{name} rates": rates(f"{study}_rates")}
    for study in _ALL:
        found |= paired_tables(comparisons(study))
    for name, title in (
        ("drift", "style drift"),
        ("credit", "learning curves and gains"),
        ("decisions", "gain by decisions"),
        ("alignment", "entropy and length by the teacher's alignment"),
    ):
        found[name] = f"![{title}](records/{name}.png)\n\n{found[name]}"
    return {name: text if "|\n| " in text else "Not run yet." for name, text in found.items()}

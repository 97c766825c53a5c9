"""The tables of study.md, from the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from studies import PLUGIN, RECORDS, STUDIES, Record, Runs, chosen_rates, read_records

from rlcsd.inspection.signals import SIGNALS
from rlcsd.report.statistics import Difference, holm, mean_interval, paired_difference

PEOPLE = {"3 people": "seen_sizes", "4 people": "unseen_sizes: 4 people", "5 people": "unseen_sizes: 5 people"}
LAST = 8  # steps whose mean is "at the end"


def ordered(name: str) -> Runs:
    """The records of a study, its arms in the order in which the study names them."""
    found = read_records(name)
    return {arm.name: found[arm.name] for arm in STUDIES[name].arms if arm.name in found}


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


def paired_table(
    head: str,
    compared: Sequence[tuple[str, Mapping[int, Record], Mapping[int, Record]]],
    measures: Mapping[str, Measure],
) -> str:
    """Runs minus reference by seed: mean, 95 % t-interval, and p corrected over the column (Holm)."""
    compared = [one for one in compared if pairs(*one[1:]) > 1]
    columns = []
    for measure in measures.values():
        found = [paired(runs, reference, measure) for _, runs, reference in compared]
        corrected = holm([one.p for one in found])
        columns.append([difference_cell(one, p) for one, p in zip(found, corrected, strict=True)])
    counts = [(label, str(pairs(runs, reference))) for label, runs, reference in compared]
    rows = [[*count, *cells] for count, *cells in zip(counts, *columns, strict=True)]
    return table([head, "pairs", *measures], rows) if rows else "No pairs of seeds yet."


def differences(runs: Runs, reference: str, measures: Mapping[str, Measure]) -> str:
    """Each arm minus the reference."""
    compared = [(arm, by_seed, runs.get(reference, {})) for arm, by_seed in runs.items() if arm != reference]
    return paired_table(f"minus {reference}", compared, measures)


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


def plugin_gains(runs: Runs) -> str:
    """The contrast minus each one-sided source, paired by seed."""
    measures = {"test": test("seen_sizes"), "other kind": test("unseen_sizes"), "worked": at_the_end("worked")}
    compared = [
        (f"{method}: contrast − {source}", runs.get(sources["contrast"], {}), runs.get(arm, {}))
        for method, sources in PLUGIN.items()
        for source, arm in sources.items()
        if source != "contrast"
    ]
    return paired_table("gain", compared, measures)


def rates(runs: Runs) -> str:
    """Validation accuracy by candidate, the mean of both kinds of problems over the seeds; the best is bold."""
    chosen = chosen_rates()
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


def decision_gains(runs: Runs, measures: Mapping[str, Measure]) -> str:
    """The oracle and rlcsd minus grpo at each number of decisions and each group size."""
    compared = [
        (arm, by_seed, runs.get("-".join(["grpo", *arm.split("-")[1:]]), {}))
        for arm, by_seed in runs.items()
        if not arm.startswith("grpo")
    ]
    return paired_table("minus grpo of the same size", compared, measures)


def tables() -> dict[str, str]:
    """The tables of study.md by name."""
    rated, drift, modes, credit, confirm, decisions, defaults = map(ordered, STUDIES)
    published = {arm: runs for arm, runs in drift.items() if "-" not in arm}
    authors = {arm: runs for arm, runs in drift.items() if arm.endswith("-authors")}
    dynamics = {name: at_the_end(name) for name in ("accuracy", "entropy", "worked", "interjections")}
    tested = {"test": test("seen_sizes"), "other kind": test("unseen_sizes")}
    measures: dict[str, Measure] = {"area": area, **tested}
    in_size: dict[str, Measure] = {"area": area, "test": test("seen_sizes")}
    both = {**measures, "both kinds": test("average")}
    by_people: dict[str, Measure] = {"area": area, **{people: test(name) for people, name in PEOPLE.items()}}
    found = {
        "signal": signal(),
        "drift": style(published),
        "drift tests": differences(published, "grpo", dynamics),
        "authors": style(authors),
        "authors tests": paired_table(
            "minus the published form",
            [(arm, by_seed, drift.get(arm.removesuffix("-authors"), {})) for arm, by_seed in authors.items()],
            dynamics,
        ),
        "modes": style(rated | modes),
        "credit": means(credit, measures),
        "credit against grpo": differences(credit, "grpo", measures),
        "credit against rlcsd": differences(credit, "rlcsd", measures),
        "credit against oracle": differences(
            {arm: by_seed for arm, by_seed in credit.items() if arm.startswith("oracle")}, "oracle", measures
        ),
        "credit mechanism": mechanism(credit),
        "confirm": means(confirm, both),
        "confirm against grpo": differences(confirm, "grpo", both),
        "confirm against rlcsd": differences(confirm, "rlcsd", both),
        "plugin": plugin(drift),
        "plugin gains": plugin_gains(drift),
        "decision gains": decision_gains(decisions, in_size),
        "decisions": means(decisions, in_size),
        "rates": rates(rated),
        "default": default(defaults),
        "default against grpo": differences(defaults, "grpo", by_people),
        "default against rlcsd": differences(defaults, "rlcsd", by_people),
        "default mechanism": mechanism(defaults),
    }
    for name, title in (
        ("drift", "style drift"),
        ("credit", "learning curves and gains"),
        ("decisions", "gain by decisions"),
    ):
        found[name] = f"![{title}](records/{name}.png)\n\n{found[name]}"
    return {name: text if "|\n| " in text else "Not run yet." for name, text in found.items()}

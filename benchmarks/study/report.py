"""Tables and figures of docs/study.md from the records in docs/study/, and those records from finished runs.

    python benchmarks/study/report.py                        # tables into docs/study.md, figures into docs/study/
    python benchmarks/study/report.py --collect runs/study   # first take in what run.py has finished there

Nothing in docs/study.md between `<!-- NAME -->` and `<!-- end -->` is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from runner import CURVES
from studies import STUDIES

from rlcsd.folders import write_text
from rlcsd.inspection.signals import SIGNALS
from rlcsd.report.drift import draw_drift
from rlcsd.report.statistics import holm, mean_interval, paired_difference

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "study"
LAST = 8  # steps whose mean is "at the end"

Record = dict[str, Any]
Runs = dict[str, dict[int, Record]]  # by arm, then seed


def collect(out: Path) -> None:
    """The records below `out` into docs/study/STUDY.jsonl, where they replace those of the same arm and seed."""
    for name in STUDIES:
        runs = load(name)
        for path in sorted((out / name).glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(record["arm"], {})[record["seed"]] = record
        lines = [json.dumps(runs[arm][seed]) for arm in sorted(runs) for seed in sorted(runs[arm])]
        if lines:
            RECORDS.mkdir(exist_ok=True)
            write_text(RECORDS / f"{name}.jsonl", "\n".join(lines) + "\n")


def load(name: str) -> Runs:
    """The records of a study, its arms in the order in which the study names them."""
    path = RECORDS / f"{name}.jsonl"
    found: Runs = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        record = json.loads(line)
        found[record["arm"]][record["seed"]] = record
    order = [arm.name for arm in STUDIES[name].arms]
    return {arm: found[arm] for arm in order if arm in found}


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


def means(runs: Runs, measures: Mapping[str, tuple[Measure, int]]) -> str:
    """One row an arm: mean ± half of the 95 % t-interval over seeds."""
    rows = []
    for arm, by_seed in runs.items():
        values = [cell([measure(record) for record in by_seed.values()], d) for measure, d in measures.values()]
        rows.append([arm, str(len(by_seed)), *values])
    return table(["arm", "seeds", *measures], rows)


def differences(runs: Runs, reference: str, measures: Mapping[str, Measure]) -> str:
    """Each arm minus the reference, seed by seed: mean, 95 % t-interval, and p corrected over the column (Holm)."""
    if reference not in runs:
        return f"No finished run of {reference} yet."
    arms = [arm for arm in runs if arm != reference and len(set(runs[arm]) & set(runs[reference])) > 1]
    columns = []
    for measure in measures.values():
        found = []
        for arm in arms:
            pairs = [{seed: measure(record) for seed, record in runs[one].items()} for one in (arm, reference)]
            found.append(paired_difference(pairs[0], pairs[1]))
        corrected = holm([one.p for one in found])
        columns.append(
            [
                f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}], p {p:.3f}"
                for one, p in zip(found, corrected, strict=True)
            ]
        )
    counts = [str(len(set(runs[arm]) & set(runs[reference]))) for arm in arms]
    rows = [list(row) for row in zip(arms, counts, *columns, strict=True)]
    return table([f"minus {reference}", "pairs", *measures], rows) if rows else "No pairs of seeds yet."


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
    by_kind = table(["token", "rollout", "tokens", "gain under h_c alone", "gain under h_w", "contrast e_ctr"], rows)
    names = {"correct_gain": "gain under h_c alone", "contrast": "contrast e_ctr"}
    aucs = [
        [label, *(f"{record['auc'][f'{name}, {label}']:.3f}" for name in names)]
        for label in ("all rollouts", "wrong rollouts")
    ]
    return f"{by_kind}\n\n{table(['AUC, right against wrong decisions', *names.values()], aucs)}"


def draw_credit(runs: Runs, path: Path) -> None:
    """Learning curves of the main arms, and every arm's gain in area over grpo with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    main = [arm for arm in ("grpo", "oracle", "rlcsd", "spares") if arm in runs]
    for arm in main:
        curves = np.array([record["curves"]["accuracy"] for record in runs[arm].values()]).mean(axis=0)
        left.plot(
            np.arange(1, len(curves) + 1), np.convolve(np.pad(curves, 2, "edge"), np.ones(5) / 5, "valid"), label=arm
        )
    left.set(title="accuracy on training problems (mean over seeds, five steps)", xlabel="step")
    left.legend()
    arms = [arm for arm in runs if arm != "grpo" and len(set(runs[arm]) & set(runs.get("grpo", {}))) > 1]
    for place, arm in enumerate(reversed(arms)):
        one, other = ({seed: area(r) for seed, r in runs[name].items()} for name in (arm, "grpo"))
        found = paired_difference(one, other)
        assert found.low is not None and found.high is not None
        right.plot([found.low, found.high], [place, place], color="C0")
        right.plot(found.mean, place, "o", color="C0")
    right.set_yticks(range(len(arms)), list(reversed(arms)))
    right.axvline(0, color="black", linewidth=0.6)
    right.set(title="area under the learning curve, minus grpo (95 %)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_decisions(runs: Runs, path: Path) -> None:
    """Gain in area over grpo against the number of decisions, a line for each method and group size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for arm, by_seed in runs.items():
        method, speakers, group = arm.split("-")
        reference = runs.get(f"grpo-{speakers}-{group}", {})
        if method == "grpo" or len(set(by_seed) & set(reference)) < 2:
            continue
        one, other = ({seed: area(r) for seed, r in of.items()} for of in (by_seed, reference))
        found = paired_difference(one, other)
        assert found.high is not None
        lines[f"{method}, G = {group[1:]}"].append((int(speakers), found.mean, found.high - found.mean))
    figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
    for label, points in lines.items():
        speakers, mean, half = zip(*sorted(points), strict=True)
        axis.errorbar(speakers, mean, yerr=half, marker="o", capsize=3, label=label)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(xlabel="decisions in an answer", ylabel="area under the curve, minus grpo")
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tables() -> dict[str, str]:
    """The tables of docs/study.md by name."""
    drift, credit, plugin, decisions, rates = (load(n) for n in ("drift", "credit", "plugin", "decisions", "rates"))
    tested = {"test": test("seen_sizes"), "other kind": test("unseen_sizes")}
    measures: dict[str, Measure] = {"area": area, **tested}
    rounded = {name: (measure, 3) for name, measure in measures.items()}
    found = {
        "signal": signal(),
        "drift": style(drift),
        "drift tests": differences(
            drift,
            "grpo",
            {
                "accuracy": at_the_end("accuracy"),
                **{name: at_the_end(name) for name in ("entropy", "worked", "interjections")},
            },
        ),
        "credit": means(credit, rounded),
        "credit against grpo": differences(credit, "grpo", measures),
        "credit against rlcsd": differences(credit, "rlcsd", measures),
        "credit mechanism": mechanism(credit),
        "plugin": style(plugin),
        "decisions": means(decisions, {"area": (area, 3), "test": (test("seen_sizes"), 3)}),
        "rates": means(rates, {"validation": (test("seen_sizes"), 3)}),
    }
    for name, title in (
        ("drift", "style drift"),
        ("credit", "learning curves and gains"),
        ("decisions", "gain by decisions"),
    ):
        found[name] = f"![{title}](study/{name}.png)\n\n{found[name]}"
    return {name: text if "|\n| " in text else "Not run yet." for name, text in found.items()}


def figures() -> None:
    drift = load("drift")
    names = dict(CURVES)
    runs = {
        arm: [{names[name]: curve for name, curve in record["curves"].items()} for record in by_seed.values()]
        for arm, by_seed in drift.items()
        if not arm.endswith("-authors")
    }
    if runs:
        draw_drift(runs, RECORDS / "drift.png")
    if credit := load("credit"):
        draw_credit(credit, RECORDS / "credit.png")
    if decisions := load("decisions"):
        draw_decisions(decisions, RECORDS / "decisions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="OUT", help="the --out of run.py")
    arguments = parser.parse_args()
    if arguments.collect:
        collect(arguments.collect)
    page = (DOCS / "study.md").read_text(encoding="utf-8")
    for name, text in tables().items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, text=text: m[1] + text + m[2], page, flags=re.S
        )
    write_text(DOCS / "study.md", page)
    figures()


if __name__ == "__main__":
    main()

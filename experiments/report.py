"""Tables and figures of study.md from the records, and the records from finished runs.

    python experiments/report.py                        # tables into study.md, figures into records/
    python experiments/report.py --collect runs/study   # first collect what run.py has finished there
    python experiments/report.py --smoke                # makes them all and keeps none

Text in study.md between `<!-- NAME -->` and `<!-- end -->` is never written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from studies import CURVES, RECORDS, SEVERITIES, STUDIES, Runs, read_records
from tables import METHODS, area, ordered, paired, pairs, tables

from rlcsd.experiments.drift_demo import draw_drift
from rlcsd.report.figures import colours, drawing, smoothed
from rlcsd.storage import write_text

PAGE = Path(__file__).parent / "study.md"


def collect(out: Path, names: Iterable[str]) -> None:
    """Copy the records that run.py has left below `out`; each replaces the record of the same arm and seed."""
    for name in names:
        runs = read_records(name)
        for path in sorted((out / name).glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(record["arm"], {})[record["seed"]] = record
        lines = [json.dumps(runs[arm][seed]) for arm in sorted(runs) for seed in sorted(runs[arm])]
        if lines:
            write_text(RECORDS / f"{name}.jsonl", "\n".join(lines) + "\n")


def filled(page: str) -> str:
    """The page with every table between its markers."""
    for name, text in tables().items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, text=text: m[1] + text + m[2], page, flags=re.S
        )
    return page


def draw_credit(runs: Runs, path: Path) -> None:
    """Learning curves of the main arms, and every arm's gain in area over grpo with its interval."""
    main = [arm for arm in ("grpo", "oracle", "rlcsd", "spares") if arm in runs]
    arms = [arm for arm in runs if arm != "grpo" and pairs(runs[arm], runs.get("grpo", {})) > 1]
    colour = colours(main)
    with drawing(1, 2, 4.2, path) as (_, (left, right)):
        for arm in main:
            curve = np.array([record["curves"]["accuracy"] for record in runs[arm].values()]).mean(axis=0)
            left.plot(np.arange(1, len(curve) + 1), smoothed(curve), color=colour[arm], label=arm)
        left.set(title="accuracy on training problems", xlabel="step")
        left.legend()
        for row, arm in enumerate(reversed(arms)):
            gain = paired(runs[arm], runs["grpo"], area)
            if gain.low is not None:
                right.plot([gain.low, gain.high], [row, row], color="C0")
            right.plot(gain.mean, row, "o", color="C0")
        right.set_yticks(range(len(arms)), list(reversed(arms)))
        right.axvline(0, color="black", linewidth=0.6)
        right.set(title="area under the curve, minus grpo (95 %)")


def draw_decisions(runs: Runs, path: Path) -> None:
    """Gain in area over grpo against the number of decisions, one line per method and group size."""
    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for arm, by_seed in runs.items():
        method, speakers, group = arm.split("-")
        reference = runs.get(f"grpo-{speakers}-{group}", {})
        if method == "grpo" or pairs(by_seed, reference) < 2:
            continue
        gain = paired(by_seed, reference, area)
        half = 0.0 if gain.high is None else gain.high - gain.mean
        lines[f"{method}, G = {group[1:]}"].append((int(speakers), gain.mean, half))
    with drawing(1, 1, 4.2, path) as (_, axis):
        for number, (label, points) in enumerate(lines.items()):
            speakers, mean, half = (np.array(part) for part in zip(*sorted(points), strict=True))
            shifted = speakers + 0.08 * number  # so that intervals do not hide each other
            axis.errorbar(shifted, mean, yerr=half, marker="o", capsize=3, label=label)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(xlabel="decisions in an answer", ylabel="area under the curve, minus grpo")
        axis.legend()


def draw_alignment(runs: Runs, path: Path) -> None:
    """Entropy and length as the paper shows them, a column for each alignment of the teacher; means over seeds."""
    methods = ("grpo", *METHODS)
    colour = colours(methods)
    columns = {"aligned": "", **{ending: f"-{ending}" for ending in SEVERITIES}}
    curves = {"entropy": "actor entropy (nats)", "length": "response length (tokens)"}
    with drawing(len(curves), len(columns), 5.2, path, sharey="row", squeeze=False) as (figure, axes):
        for row, (name, label) in enumerate(curves.items()):
            for axis, (title, ending) in zip(axes[row], columns.items(), strict=True):
                for method in methods:
                    # grpo has no teacher: it is the same in every column
                    if by_seed := runs.get(method if method == "grpo" else method + ending):
                        curve = np.mean([record["curves"][name] for record in by_seed.values()], axis=0)
                        steps = np.arange(1, len(curve) + 1)
                        axis.plot(steps, smoothed(curve), color=colour[method], label=method)
                axis.set(title=title, xlabel="step")
            axes[row][0].set_ylabel(label)
        axes[0][0].set_yscale("log")  # of all three: a rise of half and one of twenty times
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(methods))


def draw_figures(folder: Path) -> None:
    """Draw the figures of all studies that have records, as PNG."""
    drift = {
        arm: [{CURVES[name]: curve for name, curve in record["curves"].items()} for record in by_seed.values()]
        for arm, by_seed in ordered("drift").items()
        if "-" not in arm
    }
    for name, runs, draw in (
        ("drift", drift, draw_drift),
        ("credit", ordered("credit"), draw_credit),
        ("decisions", ordered("decisions"), draw_decisions),
        ("alignment", ordered("alignment"), draw_alignment),
    ):
        if runs:
            draw(runs, folder / f"{name}.png")
            (folder / f"{name}.svg").unlink()  # the page shows the PNG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="OUT", help="the --out of run.py")
    parser.add_argument("--smoke", action="store_true", help="make everything and keep nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        filled(PAGE.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            draw_figures(Path(folder))
        return
    if arguments.collect:
        collect(arguments.collect, STUDIES)
    write_text(PAGE, filled(PAGE.read_text(encoding="utf-8")))
    draw_figures(RECORDS)


if __name__ == "__main__":
    main()

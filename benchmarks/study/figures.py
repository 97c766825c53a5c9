"""The figures of docs/study.md, from the records."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from records import RECORDS, Runs
from runner import CURVES
from tables import area, ordered, paired, pairs

from rlcsd.experiments.drift_demo import draw_drift
from rlcsd.report.figures import colours, drawing, smoothed


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
        for place, arm in enumerate(reversed(arms)):
            found = paired(runs[arm], runs["grpo"], area)
            right.plot([found.low, found.high], [place, place], color="C0")
            right.plot(found.mean, place, "o", color="C0")
        right.set_yticks(range(len(arms)), list(reversed(arms)))
        right.axvline(0, color="black", linewidth=0.6)
        right.set(title="area under the curve, minus grpo (95 %)")


def draw_decisions(runs: Runs, path: Path) -> None:
    """Gain in area over grpo against the number of decisions, a line for each method and group size."""
    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for arm, by_seed in runs.items():
        method, speakers, group = arm.split("-")
        reference = runs.get(f"grpo-{speakers}-{group}", {})
        if method == "grpo" or pairs(by_seed, reference) < 2:
            continue
        found = paired(by_seed, reference, area)
        assert found.high is not None
        lines[f"{method}, G = {group[1:]}"].append((int(speakers), found.mean, found.high - found.mean))
    with drawing(1, 1, 4.2, path) as (_, axis):
        for number, (label, points) in enumerate(lines.items()):
            speakers, mean, half = (np.array(part) for part in zip(*sorted(points), strict=True))
            shifted = speakers + 0.08 * number  # so that intervals do not hide each other
            axis.errorbar(shifted, mean, yerr=half, marker="o", capsize=3, label=label)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(xlabel="decisions in an answer", ylabel="area under the curve, minus grpo")
        axis.legend()


def figures() -> None:
    drift = ordered("drift")
    runs = {
        arm: [{CURVES[name]: curve for name, curve in record["curves"].items()} for record in by_seed.values()]
        for arm, by_seed in drift.items()
        if "-" not in arm
    }
    if runs:
        draw_drift(runs, RECORDS / "drift.png")
    if credit := ordered("credit"):
        draw_credit(credit, RECORDS / "credit.png")
    if decisions := ordered("decisions"):
        draw_decisions(decisions, RECORDS / "decisions.png")

"""The figure of several runs: a line for each label with a band over its seeds, and accuracy with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures import BEFORE, bars, colours, drawing, short_name, smoothed
from .runs import RunRecord, accuracies, all_sets, by_label, curve
from .statistics import mean_interval

_CURVES = (
    ("Training reward", "rollout/reward"),
    ("Actor entropy (nats)", "actor/entropy"),
    ("Response length (tokens)", "rollout/length"),
)


def draw_comparison(runs: Sequence[RunRecord], path: Path) -> Path:
    """Reward, entropy and length against the step, and accuracy after training; PNG, and SVG beside it.

    A line is the mean over seeds of moving means, its band reaches from the lowest to the highest seed. Whiskers are
    95 % t-intervals over seeds.
    """
    grouped = by_label(runs)
    colour = colours(list(grouped))
    with drawing(2, 2, 5.4, path) as (figure, axes):
        for axis, (label, metric) in zip(axes.flat, _CURVES, strict=False):
            for name, members in grouped.items():
                _draw_band(axis, members, metric, colour[name])
            axis.set(title=label, xlabel="step")
        _draw_accuracy(axes[1][1], grouped, runs, colour)
        handles, labels = axes[1][1].get_legend_handles_labels()
        seeds = sorted({len(members) for members in grouped.values()})
        if seeds[-1] > 1:
            many = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
            figure.supxlabel(f"Lines: mean over {many}. Bands: from the lowest to the highest seed.", fontsize=8)
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)), fontsize=9)
    return path


def _draw_band(axis: Any, members: Sequence[RunRecord], metric: str, colour: str) -> None:
    lines = [dict(zip(*curve(run.metrics, metric), strict=True)) for run in members]
    lines = [line for line in lines if line]
    if not lines:
        return  # nothing logged yet
    steps = sorted(set.intersection(*(set(line) for line in lines)))  # a run that is behind cuts the line, not the mean
    smooth = np.array([smoothed([line[step] for step in steps]) for line in lines])
    if not steps:
        return
    if len(lines) > 1:
        axis.fill_between(steps, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.16, linewidth=0)
    else:
        axis.plot(steps, [lines[0][step] for step in steps], color=colour, alpha=0.22, linewidth=0.8)
    axis.plot(steps, smooth.mean(axis=0), color=colour, linewidth=1.8)


def _draw_accuracy(
    axis: Any, grouped: dict[str, list[RunRecord]], runs: Sequence[RunRecord], colour: dict[str, str]
) -> None:
    names = all_sets(runs, average=False)
    axis.set(title="Held-out accuracy after training, 95 % over seeds")
    if not names:
        axis.text(0.5, 0.5, "not evaluated yet", ha="center", va="center", color="#8A8F96", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
    series = []
    before = any(accuracies(runs, name, trained=False) for name in names)
    for label, members, trained, tone in [
        *([("before", list(runs), False, BEFORE)] if before else []),
        *((label, members, True, colour[label]) for label, members in grouped.items()),
    ]:
        found = [list(accuracies(members, name, trained).values()) for name in names]
        estimates = [mean_interval(values) if values else None for values in found]
        heights = [float("nan") if e is None else e.mean for e in estimates]
        intervals = [None if e is None or e.low is None or e.high is None else (e.low, e.high) for e in estimates]
        series.append((label, tone, heights, intervals))
    bars(axis, series)
    axis.set_xticks(range(len(names)), [short_name(name) for name in names], fontsize=8)

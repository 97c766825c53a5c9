"""Figures: their common style, and those of several runs and of hint signals. Each is a PNG with an SVG beside it.

The figure of one run is in `run_report`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .run_results import (
    RunResult,
    accuracies,
    all_sets,
    by_label,
    curve,
    different_start,
    evaluation_notes,
    progress_notes,
)
from .statistics import mean_interval

# Okabe and Ito's palette, told apart with every usual colour blindness. A method has one colour in every figure.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B", "#5A5A5A")
_OWN = {"rlcsd": 0, "grpo": 1, "rlsd": 2, "opsd": 3, "sdpo": 4, "srpo": 5, "rlsd_ectr": 6, "opsd_ectr": 7}
BEFORE = "#B8BCC2"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8A8F96",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E8E9EB",
    "axes.axisbelow": True,
    "xtick.color": "#4A4F55",
    "ytick.color": "#4A4F55",
    "legend.frameon": False,
    "svg.hashsalt": "rlcsd",  # the same figure gives the same file
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may have any text of a config, such as `$\\boxed{}$`
}
WIDTH = 9.0  # inches: 900 pixels at DPI, the width of a README
DPI = 100
_LINE = 140  # characters of a caption that fit into the width


@cache
def _figure_class() -> type[Any]:
    from matplotlib.figure import Figure

    class InlineFigure(Figure):
        """A figure that notebooks show. pyplot does not know it, so the notebook's own backend stays as it is."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=DPI)
            return buffer.getvalue()

    return InlineFigure


@contextmanager
def drawing(rows: int, columns: int, height: float, path: Path | None, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes; at the end it is saved to `path` (PNG) and beside it as SVG, unless that is None."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = _figure_class()(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, **options)
        if path is not None:
            figure.savefig(path, dpi=DPI)
            figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def colours(labels: Sequence[str], methods: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for each label: a method's own for its first label, and free ones for the others.

    `methods` has the method of each label, which otherwise is the label itself.
    """
    firsts: dict[str, str] = {}
    for label in labels:
        firsts.setdefault(methods[label] if methods else label, label)
    chosen = {label: _OWN[method] for method, label in firsts.items() if method in _OWN}
    free = [index for index in range(len(_PALETTE)) if index not in chosen.values()] or [len(_PALETTE) - 1]
    others = [label for label in labels if label not in chosen]
    indices = {**chosen, **{label: free[number % len(free)] for number, label in enumerate(others)}}
    return {label: _PALETTE[indices[label]] for label in labels}


def smoothed(values: Sequence[float], share: float = 0.1) -> np.ndarray:
    """Centred moving means over a window of `share` of the values (3 at least), narrower at both ends."""
    array = np.asarray(values, dtype=float)
    half = max(1, round(len(array) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(array)])
    indices = np.arange(len(array))
    reach = np.minimum(np.minimum(indices, len(array) - 1 - indices), half)
    return (sums[indices + reach + 1] - sums[indices - reach]) / (2 * reach + 1)


Series = tuple[str, str, Sequence[float], Sequence[tuple[float, float] | None]]


def bars(axis: Any, series: Sequence[Series], sets: Sequence[str]) -> None:
    """Bars of accuracies side by side, values above: (label, colour, heights, intervals as low and high) by set.

    Without sets the axis says that there is nothing yet.
    """
    if not sets:
        axis.text(0.5, 0.5, "not evaluated yet", ha="center", va="center", color="#8A8F96", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        return
    count = len(series)
    width = 0.8 / count
    for number, (label, colour, heights, intervals) in enumerate(series):
        centres = np.arange(len(heights)) + (number - (count - 1) / 2) * width
        axis.bar(centres, heights, width * 0.92, color=colour, label=label)
        for centre, height, interval in zip(centres, heights, intervals, strict=True):
            top = height
            if interval is not None:
                axis.plot([centre, centre], interval, color="#33373B", linewidth=1.1, solid_capstyle="butt")
                top = max(height, min(interval[1], 1.0))
            if np.isfinite(height):
                axis.annotate(
                    f"{height:.2f}".replace("0.", ".", 1), (centre, top), xytext=(0, 2), textcoords="offset points",
                    ha="center", va="bottom", fontsize=7.5 if count < 5 else 6, color="#33373B",
                )  # fmt: skip
    tops = [i[1] for _, _, _, intervals in series for i in intervals if i is not None]
    highest = max([h for _, _, heights, _ in series for h in heights if np.isfinite(h)] + tops, default=1.0)
    axis.set_ylim(0, min(1.12 * highest, 1.08) or 1.0)  # an interval over few seeds may leave what an accuracy can be
    axis.set_xticks(range(len(sets)), [_short_name(name) for name in sets], fontsize=8)


def _short_name(name: str) -> str:
    """`unseen_sizes: 4 people` → two lines that fit under a bar."""
    first, _, kind = name.partition(": ")
    return f"{first.replace('_', ' ')}\n{kind}" if kind else name.replace("_", " ")


# ------------------------------------------------------------------ several runs

CURVES = (
    ("Training reward", "rollout/reward"),
    ("Actor entropy (nats)", "actor/entropy"),
    ("Response length (tokens)", "rollout/length"),
)


def draw_comparison(runs: Sequence[RunResult], path: Path | None = None) -> Any:
    """Reward, entropy and length against the step, and accuracy after training.

    Returns the matplotlib figure, which is saved to `path` (PNG, and SVG beside it) if there is one.
    A line is the mean over seeds of moving means, its band reaches from the lowest to the highest seed. Whiskers are
    95 % t-intervals over three seeds or more. Below the figure stand the runs that are no result yet, or behind others.

    Raises:
        InputError: two runs of a label differ in more than the seed.
    """
    grouped = by_label(runs)
    first = {run.folder: label for label, members in grouped.items() for run in members if run.repeats is None}
    repeated = {label: first[members[0].repeats] for label, members in grouped.items() if members[0].repeats in first}
    own = colours([*dict.fromkeys(first.values())], {label: grouped[label][0].method for label in first.values()})
    colour = {label: own[repeated.get(label, label)] for label in grouped}
    with drawing(2, 2, 5.4, path) as (figure, axes):
        for axis, (label, metric) in zip(axes.flat, CURVES, strict=False):
            for name, members in grouped.items():
                _draw_band(axis, members, metric, colour[name], "--" if name in repeated else "-")
            axis.set(title=label, xlabel="step")
        _draw_accuracy(axes[1][1], grouped, colour, repeated)
        seeds = sorted({len(members) for members in grouped.values()})
        captions = [*progress_notes(grouped), *evaluation_notes(grouped)]
        if seeds[-1] > 1:
            many = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
            captions.insert(0, f"Lines: mean over {many}. Bands: from the lowest to the highest seed.")
        figure.supxlabel("\n".join(textwrap.fill(caption, _LINE) for caption in captions), fontsize=8)
        handles, labels = axes[1][1].get_legend_handles_labels()
        if handles:
            columns = max(1, min(6, len(labels), _LINE // (8 + max(map(len, labels)))))
            figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=9)
    return figure


def _draw_band(axis: Any, members: Sequence[RunResult], metric: str, colour: str, style: str) -> None:
    lines = [dict(zip(*curve(run.metrics, metric), strict=True)) for run in members]
    lines = [line for line in lines if line]
    if not lines:
        return  # nothing logged yet
    steps = sorted(set.intersection(*(set(line) for line in lines)))  # a run that is behind cuts the line, not the mean
    if not steps:
        return
    smooth = np.array([smoothed([line[step] for step in steps]) for line in lines])
    if len(lines) > 1:
        axis.fill_between(steps, smooth.min(axis=0), smooth.max(axis=0), color=colour, alpha=0.16, linewidth=0)
    else:
        axis.plot(steps, [lines[0][step] for step in steps], color=colour, alpha=0.22, linewidth=0.8)
    axis.plot(steps, smooth.mean(axis=0), color=colour, linewidth=1.8, linestyle=style)


def _draw_accuracy(
    axis: Any, grouped: Mapping[str, Sequence[RunResult]], colour: Mapping[str, str], repeated: Mapping[str, str]
) -> None:
    runs = [run for members in grouped.values() for run in members]
    names = all_sets(runs, average=False)
    shown = [(label, members, True, colour[label]) for label, members in grouped.items()]
    if different_start(runs) is None and any(accuracies(runs, name, trained=False) for name in names):
        shown.insert(0, ("before", runs, False, BEFORE))
    series: list[Series] = []
    for label, members, trained, tone in shown:
        values = [list(accuracies(members, name, trained).values()) for name in names]
        estimates = [mean_interval(some) if some else None for some in values]
        heights = [float("nan") if e is None else e.mean for e in estimates]
        intervals = [None if e is None or e.low is None or e.high is None else (e.low, e.high) for e in estimates]
        series.append((label, tone, heights, intervals))
    axis.set(title="Held-out accuracy after training, 95 % over seeds")
    bars(axis, series, names)
    for (label, *_), container in zip(series, axis.containers, strict=bool(names)):
        for bar in container if label in repeated else ():
            bar.set(hatch="///", edgecolor="white")


# ------------------------------------------------------------------ hint signals

Means = Mapping[str, Mapping[str, Mapping[str, float]]]  # target → kind → signal → mean in nats
_SERIES = (
    ("teacher_gap", "#B8BCC2", "correct hint alone: log π_T(y | h_c) − log π(y)"),
    (
        "contrast",
        "#0072B2",
        "contrast e_ctr: log π_T(y | h_c) − log mean π_T(y | h_w) over the wrong hints",
    ),
)
_LINEAR = 0.05  # nats: within ± this the axis is linear, beyond it logarithmic


def draw_signals(means: Means, path: Path | None) -> Any:
    """What a correct hint alone says and what is left of it in the contrast: mean signals by kind of token.

    One panel for tokens of correct and one for tokens of wrong rollouts.

    Raises:
        InputError: there is no token of a kind that has a name.
    """
    targets = [target for target in ("correct", "wrong") if means.get(target)]
    if not targets:
        raise InputError("figure: no token is of a kind that the figure shows; the responses say nothing of a puzzle")
    kinds = list(dict.fromkeys(kind for target in targets for kind in means[target]))
    with drawing(1, len(targets), 3.7, path, sharey=True, squeeze=False) as (figure, axes):
        for axis, target in zip(axes[0], targets, strict=True):
            _draw(axis, means[target], kinds)
            axis.set_title(f"Tokens of {target} rollouts")
        values = [value for target in targets for kind in means[target].values() for value in kind.values()]
        axes[0][0].set_ylim(min(2.6 * min(values), -0.1), max(2.6 * max(values), 0.1))
        axes[0][0].set_ylabel("mean signal (nats)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", fontsize=8.5)
    return figure


def _draw(axis: Any, means: Mapping[str, Mapping[str, float]], kinds: list[str]) -> None:
    axis.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
    axis.axhline(0, color="#33373B", linewidth=0.8)
    series = [one for one in _SERIES if any(one[0] in means[kind] for kind in means)]
    width = 0.8 / len(series)
    for number, (signal, colour, label) in enumerate(series):
        centres = np.arange(len(kinds)) + (number - (len(series) - 1) / 2) * width
        heights = [means.get(kind, {}).get(signal, float("nan")) for kind in kinds]
        axis.bar(centres, heights, width=width * 0.92, color=colour, label=label)
        for centre, height in zip(centres, heights, strict=True):
            if np.isfinite(height):
                up = height >= 0
                axis.annotate(
                    f"{height:+.2f}".replace("-", "−"), (centre, height), xytext=(0, 2 if up else -2),
                    textcoords="offset points", ha="center", va="bottom" if up else "top", fontsize=7.5,
                )  # fmt: skip
    ticks = [-10, -1, -0.1, 0, 0.1, 1, 10]
    axis.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.set_xticks(range(len(kinds)), kinds)

"""What all figures share: colours that stay apart for the colour-blind, smoothing, bars with values, PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
}
WIDTH = 9.0  # inches: 900 pixels at DPI, the width of a README
DPI = 100


@contextmanager
def drawing(rows: int, columns: int, height: float, path: Path, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes; at the end it is saved to `path` (PNG) and beside it as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), constrained_layout=True, **options)
        try:
            yield figure, axes
            figure.savefig(path, dpi=DPI)
            figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        finally:
            plt.close(figure)


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label: a method's own, and free ones for the others."""
    chosen = {label: _OWN[label] for label in labels if label in _OWN}
    free = [place for place in range(len(_PALETTE)) if place not in chosen.values()] or [len(_PALETTE) - 1]
    others = [label for label in labels if label not in chosen]
    places = {**chosen, **{label: free[number % len(free)] for number, label in enumerate(others)}}
    return {label: _PALETTE[places[label]] for label in labels}


def smoothed(values: Sequence[float], share: float = 0.1) -> np.ndarray:
    """Centred moving means over a window of `share` of the values (3 at least), narrower at both ends."""
    array = np.asarray(values, dtype=float)
    half = max(1, round(len(array) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(array)])
    places = np.arange(len(array))
    reach = np.minimum(np.minimum(places, len(array) - 1 - places), half)
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def bars(axis: Any, series: Sequence[tuple[str, str, Sequence[float], Sequence[tuple[float, float] | None]]]) -> None:
    """Bars of shares side by side, values above: (label, colour, heights, intervals as low and high)."""
    count = len(series)
    width = 0.8 / count
    for number, (label, colour, heights, intervals) in enumerate(series):
        places = np.arange(len(heights)) + (number - (count - 1) / 2) * width
        axis.bar(places, heights, width * 0.92, color=colour, label=label)
        for place, height, interval in zip(places, heights, intervals, strict=True):
            top = height
            if interval is not None:
                axis.plot([place, place], interval, color="#33373B", linewidth=1.1, solid_capstyle="butt")
                top = max(height, min(interval[1], 1.0))
            if np.isfinite(height):
                axis.annotate(
                    f"{height:.2f}".replace("0.", ".", 1), (place, top), xytext=(0, 2), textcoords="offset points",
                    ha="center", va="bottom", fontsize=7.5 if count < 5 else 6, color="#33373B",
                )  # fmt: skip
    tops = [i[1] for _, _, _, intervals in series for i in intervals if i is not None]
    highest = max([h for _, _, heights, _ in series for h in heights if np.isfinite(h)] + tops, default=1.0)
    axis.set_ylim(0, min(1.12 * highest, 1.08) or 1.0)  # an interval over few seeds may leave what an accuracy can be


def short_name(name: str) -> str:
    """`unseen_sizes: 4 people` → two lines that fit under a bar."""
    first, _, kind = name.partition(": ")
    return f"{first.replace('_', ' ')}\n{kind}" if kind else name.replace("_", " ")

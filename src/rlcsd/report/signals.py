"""The figure of hint signals: what a correct hint alone says, and what is left of it in the contrast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .figures import drawing

Means = Mapping[str, Mapping[str, Mapping[str, float]]]  # target → kind → signal → mean in nats
_SERIES = (
    ("correct_gain", "#B8BCC2", "correct hint alone: log π_T(y | h_c) − log π(y)"),
    (
        "contrast",
        "#0072B2",
        "contrast e_ctr: log π_T(y | h_c) − log mean π_T(y | h_w) over the wrong hints",
    ),
)
_LINEAR = 0.05  # nats: within ± this the axis is linear, beyond it logarithmic


def draw_signals(means: Means, path: Path) -> Path:
    """Bars by kind of token with their values, for tokens of correct and of wrong rollouts; PNG, and SVG beside it."""
    targets = [target for target in ("correct", "wrong") if means.get(target)]
    kinds = [kind for kind in next(iter(means.values())) if any(kind in means[target] for target in targets)]
    with drawing(1, len(targets), 3.7, path, sharey=True, squeeze=False) as (figure, axes):
        for axis, target in zip(axes[0], targets, strict=True):
            _draw(axis, means[target], kinds)
            axis.set_title(f"Tokens of {target} rollouts")
        values = [value for target in targets for kind in means[target].values() for value in kind.values()]
        axes[0][0].set_ylim(min(2.6 * min(values), -0.1), max(2.6 * max(values), 0.1))
        axes[0][0].set_ylabel("mean signal (nats)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", fontsize=8.5)
    return path


def _draw(axis: Any, means: Mapping[str, Mapping[str, float]], kinds: list[str]) -> None:
    axis.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
    axis.axhline(0, color="#33373B", linewidth=0.8)
    series = [one for one in _SERIES if any(one[0] in means[kind] for kind in means)]
    width = 0.8 / len(series)
    for number, (signal, colour, label) in enumerate(series):
        places = np.arange(len(kinds)) + (number - (len(series) - 1) / 2) * width
        heights = [means.get(kind, {}).get(signal, float("nan")) for kind in kinds]
        axis.bar(places, heights, width=width * 0.92, color=colour, label=label)
        for place, height in zip(places, heights, strict=True):
            if np.isfinite(height):
                up = height >= 0
                axis.annotate(
                    f"{height:+.2f}".replace("-", "−"), (place, height), xytext=(0, 2 if up else -2),
                    textcoords="offset points", ha="center", va="bottom" if up else "top", fontsize=7.5,
                )  # fmt: skip
    ticks = [-10, -1, -0.1, 0, 0.1, 1, 10]
    axis.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.set_xticks(range(len(kinds)), kinds)

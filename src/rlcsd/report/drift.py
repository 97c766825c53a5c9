"""Style drift in one figure: what a run's responses are like, step by step, beside how often they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .figures import colours, drawing, smoothed

Curves = Mapping[str, Sequence[float]]  # by the name of the metric, one value a step

PANELS = (
    ("accuracy on training problems", "rollout/accuracy"),
    ("actor entropy (nats)", "actor/entropy"),
    ("response length (tokens)", "rollout/length"),
    ("share of worked lines", "style/worked"),
    ("interjections per line", "style/interjections"),
)


def draw_drift(runs: Mapping[str, Sequence[Curves]], path: Path) -> Path:
    """A panel for each figure, a line for each label: the mean over its runs; PNG, and SVG beside it.

    Lines are moving means; with several runs a band reaches from the lowest to the highest.
    """
    colour = colours(list(runs))
    with drawing(2, 3, 5.0, path) as (_, axes):
        for axis, (title, name) in zip(axes.flat, PANELS, strict=False):
            for label, members in runs.items():
                lines = [run[name] for run in members if run.get(name)]
                if not lines:
                    continue
                shortest = min(map(len, lines))
                smooth = np.array([smoothed(line[:shortest]) for line in lines])
                steps = range(1, shortest + 1)
                axis.plot(steps, smooth.mean(axis=0), color=colour[label], linewidth=1.8, label=label)
                if len(lines) > 1:
                    axis.fill_between(
                        steps, smooth.min(axis=0), smooth.max(axis=0), color=colour[label], alpha=0.16, linewidth=0
                    )
            axis.set(title=title, xlabel="step")
        axes[1][2].axis("off")
        handles, labels = axes[0][0].get_legend_handles_labels()
        axes[1][2].legend(handles, labels, loc="center", fontsize=10)
    return path


def drift_table(runs: Mapping[str, Sequence[Curves]], count: int = 5) -> str:
    """The same figures over the first and the last `count` steps, mean over runs, as Markdown."""
    heads = [title for title, _ in PANELS]
    lines = [f"| run | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for label, members in runs.items():
        cells = []
        for _, name in PANELS:
            known = [run[name] for run in members if run.get(name)]
            ends = [[float(np.mean(part)) for part in (run[:count], run[-count:])] for run in known]
            begin, end = np.mean(ends, axis=0) if ends else (float("nan"), float("nan"))
            digits = 0 if name == "rollout/length" else 2
            cells.append(f"{begin:.{digits}f} → {end:.{digits}f}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)

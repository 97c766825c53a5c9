"""Style drift in one figure: what a run's responses are like, step by step, beside how often they are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .compare import interval

Curves = Mapping[str, Sequence[float]]  # by the name of the metric, one value a step

PANELS = (
    ("accuracy on training problems", "rollout/accuracy"),
    ("actor entropy (nats)", "actor/entropy"),
    ("response length (tokens)", "rollout/length"),
    ("share of worked lines", "style/worked"),
    ("interjections per line", "style/interjections"),
)
_SMOOTHED = 3  # steps of a running mean


def _smooth(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values[max(0, i - _SMOOTHED + 1) : i + 1])) for i in range(len(values))]


def draw_drift(runs: Mapping[str, Sequence[Curves]], path: Path) -> Path:
    """A panel for each figure, a line for each label: the mean over its runs, and a 95 % t-band if there are several.

    Lines are running means over three steps.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(3.6 * len(PANELS), 3.3), constrained_layout=True)
    for axis, (title, name) in zip(axes, PANELS, strict=True):
        for number, (label, members) in enumerate(runs.items()):
            lines = [_smooth(run[name]) for run in members if run.get(name)]
            if not lines:
                continue
            steps = range(1, min(map(len, lines)) + 1)
            points = [interval([line[step - 1] for line in lines]) for step in steps]
            means = np.array([mean for mean, _ in points])
            axis.plot(steps, means, color=f"C{number}", label=label)
            if len(lines) > 1:
                half = np.array([width for _, width in points])
                axis.fill_between(steps, means - half, means + half, color=f"C{number}", alpha=0.12, linewidth=0)
        axis.set(title=title, xlabel="step")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
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

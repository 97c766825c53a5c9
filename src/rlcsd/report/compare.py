"""Several runs side by side: accuracy before and after by method over seeds, and their dynamics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import InputError
from ..folders import read_jsonl
from .training import curve, summaries_of

_T95 = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
    12: 2.201,
    16: 2.131,
}  # Student's t, two-sided
_CURVES = (
    ("training reward", "rollout/reward"),
    ("actor entropy (nats)", "actor/entropy"),
    ("response length", "rollout/length"),
)


@dataclass(frozen=True)
class RunRecord:
    """What one run folder says. `evaluations` maps a set to its (step, mean) points."""

    label: str
    seed: int
    metrics: list[dict[str, Any]]
    evaluations: Mapping[str, list[tuple[int, float]]]


def read_run(folder: Path, keys: Sequence[str] = ("method.name",)) -> RunRecord:
    """A finished or running run; its label is the values of `keys` in its config.

    Raises:
        InputError: the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: there is no run here (no config.yaml)")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))

    def value(key: str) -> str:
        entry: Any = config
        for part in key.split("."):
            entry = entry.get(part) if isinstance(entry, dict) else None
        return str(entry)

    sets: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in read_jsonl(folder / "evaluations.jsonl"):
        for summary in summaries_of(record):
            sets[summary.name].append((record["step"], summary.mean))
    return RunRecord(" ".join(value(key) for key in keys), config["seed"], read_jsonl(folder / "metrics.jsonl"), sets)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t-interval (nan for a single seed)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    quantile = _T95[max(count for count in _T95 if count <= len(values))]  # of the next smaller count: never too narrow
    return mean, quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5


def by_label(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    grouped: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        grouped[run.label].append(run)
    return dict(grouped)


def _last(run: RunRecord, name: str, count: int = 5) -> float:
    values = curve(run.metrics, name)[1]
    return float(np.mean(values[-count:])) if values else float("nan")


def comparison_table(runs: Sequence[RunRecord]) -> str:
    """One line per label: accuracy before and after on each set, final entropy and length; mean ± 95 % over seeds."""
    grouped = by_label(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    heads = [f"{name}, {when}" for name in names for when in ("before", "after")]
    lines = [f"| run | seeds | {' | '.join(heads)} | entropy, end | length, end |", "|---" * (len(heads) + 4) + "|"]

    def cell(values: Sequence[float], digits: int = 3) -> str:
        mean, half = interval(values)
        return f"{mean:.{digits}f} ± {half:.{digits}f}"

    for label, members in grouped.items():
        cells = []
        for name in names:
            points = [run.evaluations.get(name) or [(0, float("nan"))] for run in members]
            cells += [cell([p[0][1] for p in points]), cell([p[-1][1] for p in points])]
        cells += [
            cell([_last(r, "actor/entropy") for r in members]),
            cell([_last(r, "rollout/length") for r in members], 0),
        ]
        lines.append(f"| {label} | {len(members)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_comparison(runs: Sequence[RunRecord], path: Path) -> Path:
    """Reward, entropy, length and held-out accuracy against the step: a line for each label over fainter lines of its
    seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for run in runs for name in run.evaluations if ":" not in name))
    figure, axes = plt.subplots(
        1, len(_CURVES) + len(names), figsize=(4 * (len(_CURVES) + len(names)), 3.3), constrained_layout=True
    )
    for number, (label, members) in enumerate(by_label(runs).items()):
        color = f"C{number}"
        series = [
            (axis, [curve(run.metrics, name) for run in members])
            for axis, (_, name) in zip(axes, _CURVES, strict=False)
        ]
        for axis, name in zip(axes[len(_CURVES) :], names, strict=True):
            points = [run.evaluations[name] for run in members if run.evaluations.get(name)]
            series.append((axis, [([step for step, _ in each], [mean for _, mean in each]) for each in points]))
        for axis, lines in series:
            lines = [line for line in lines if line[0]]
            if not lines:
                continue  # nothing logged yet
            for steps, values in lines:
                axis.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            shared = min(len(steps) for steps, _ in lines)
            axis.plot(
                lines[0][0][:shared],
                np.mean([values[:shared] for _, values in lines], axis=0),
                color=color,
                label=label,
            )
    for axis, title in zip(
        axes, [*(title for title, _ in _CURVES), *(f"accuracy, {name}" for name in names)], strict=True
    ):
        axis.set(title=title, xlabel="step")
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path

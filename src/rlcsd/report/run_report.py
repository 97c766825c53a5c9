"""The report of one run: a table before/after and one figure of its dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..evaluation.summary import Summary, markdown_table
from ..storage import read_jsonl
from .figures import BEFORE, bars, colours, drawing, short_name, smoothed
from .run_results import curve, summaries_of

_PANELS = (
    ("Training reward", "rollout/reward"),
    ("Actor entropy (nats)", "actor/entropy"),
    ("Response length (tokens)", "rollout/length"),
)


def draw_dynamics(
    config: Mapping[str, Any], metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]], path: Path
) -> Path:
    """Reward, entropy and length against the step, and held-out accuracy before and after; PNG, and SVG beside it.

    The strong lines are moving means of the faint ones.
    """
    with drawing(2, 2, 5.2, path) as (figure, axes):
        figure.suptitle(title(config), x=0.01, ha="left", fontweight="bold", fontsize=11)
        colour = colours([name := method_name(config)])[name]
        for axis, (label, metric) in zip(axes.flat, _PANELS, strict=False):
            steps, values = curve(metrics, metric)
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
            axis.plot(steps, smoothed(values), color=colour, linewidth=1.8)
            axis.set(title=label, xlabel="step")
        _draw_accuracy(axes[1][1], evaluations, colour)
        figure.legend(*axes[1][1].get_legend_handles_labels(), loc="upper right", ncols=2, fontsize=9)
    return path


def _draw_accuracy(axis: Any, evaluations: list[dict[str, Any]], colour: str) -> None:
    """Bars before (if there was an evaluation at step 0) and after; intervals are bootstraps over problems."""
    last = summaries_of(evaluations[-1]) if evaluations else []
    shown = [s for s in last if not any(other.name.startswith(f"{s.name}: ") for other in last)]
    axis.set(title="Held-out accuracy, 95 % over problems")
    if not shown:
        axis.text(0.5, 0.5, "not evaluated yet", ha="center", va="center", color="#8A8F96", transform=axis.transAxes)
        axis.set(xticks=[], yticks=[])
        return
    first = {s.name: s for s in summaries_of(evaluations[0])} if len(evaluations) > 1 else {}
    series = [(f"step {evaluations[-1]['step']}", colour, *_heights(shown))]
    if first:
        series.insert(0, (f"step {evaluations[0]['step']}", BEFORE, *_heights([first.get(s.name) for s in shown])))
    bars(axis, series)
    axis.set_xticks(range(len(shown)), [short_name(s.name) for s in shown], fontsize=8)


def _heights(sets: Sequence[Summary | None]) -> tuple[list[float], list[tuple[float, float] | None]]:
    means = [float("nan") if one is None else one.mean for one in sets]
    return means, [None if one is None else (one.low, one.high) for one in sets]


def method_name(config: Mapping[str, Any]) -> str:
    return str(config["method"]["name"]).rpartition(":")[2]


def title(config: Mapping[str, Any]) -> str:
    """What a run is, in a few words."""
    task = str((config.get("task") or {}).get("name")).rpartition(":")[2]
    return f"{method_name(config)} on {task}, {config['model']['path']}, seed {config['seed']}"


def write_report(folder: Path, figures: bool = True) -> Path:
    """`report.md` (and `report.png`) from what the run folder holds."""
    metrics, evaluations = read_jsonl(folder / "metrics.jsonl"), read_jsonl(folder / "evaluations.jsonl")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    lines = [
        f"# {config['method']['name']} on {config['task'].get('name')} (seed {config['seed']})",
        "",
        f"Model `{config['model']['path']}`, {max((m['step'] for m in metrics), default=0)} steps, "
        f"learning rate {config['learning_rate']:g}, G = {config['group_size']}, "
        f"reference KL {config['kl_coefficient']:g}. Intervals: 95 %, bootstrap over problems.",
        "",
    ]
    if evaluations and evaluations[-1]["sets"]:
        before = summaries_of(evaluations[0]) if evaluations[0]["step"] == 0 and len(evaluations) > 1 else []
        lines += [markdown_table(summaries_of(evaluations[-1]), before), ""]
    phases = sorted(
        {name for record in metrics for name in record if name.startswith("time/") and name != "time/evaluation"}
    )
    if phases:
        lines += ["| phase | seconds per step (mean) |", "|---|---|"]
        for name in phases:
            values = curve(metrics, name)[1]
            lines.append(f"| {name.removeprefix('time/')} | {sum(values) / len(values):.2f} |")
        lines.append("")
    if figures and metrics:
        drawn = draw_dynamics(config, metrics, evaluations, folder / "report.png")
        lines.append(f"![training dynamics]({drawn.name})")
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

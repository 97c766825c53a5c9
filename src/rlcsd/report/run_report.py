"""The report of one run: `report.md` with accuracy before and after, and `report.png` with its training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation import Summary, markdown_table, summaries_of
from ..storage import read_jsonl
from .figures import BEFORE, CURVES, Series, bars, colours, drawing, smoothed
from .run_results import curve, read_config

Records = Sequence[Mapping[str, Any]]  # of metrics.jsonl or evaluations.jsonl


def write_report(folder: Path, figures: bool = True) -> Path:
    """Write `report.md`, and with `figures` also `report.png`, from the logs in a run folder; returns the former.

    Raises:
        InputError: the folder holds no run, or a log is damaged.
    """
    config = read_config(folder)
    metrics, evaluations = read_jsonl(folder / "metrics.jsonl"), read_jsonl(folder / "evaluations.jsonl")
    lines = [
        f"# {config['method']['name']} on {config['task'].get('name')} (seed {config['seed']})",
        "",
        f"Model `{config['model']['path']}`, {max((m['step'] for m in metrics), default=0)} steps, "
        f"learning rate {config['learning_rate']:g}, G = {config['group_size']}, "
        f"reference KL {config['kl_coefficient']:g}. Intervals: 95 %, over problems.",
        "",
        *_given_task(config["task"]),
    ]
    if evaluations and evaluations[-1]["sets"]:
        before = summaries_of(evaluations[0]) if evaluations[0]["step"] == 0 and len(evaluations) > 1 else []
        lines += [markdown_table(summaries_of(evaluations[-1]), before), ""]
    lines += _phase_table(metrics)
    if figures and metrics:
        figure = draw_dynamics(config, metrics, evaluations, folder / "report.png")
        lines.append(f"![training dynamics]({figure.name})")
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _given_task(task: Mapping[str, Any]) -> list[str]:
    """What is known of a task that was given from Python."""
    if "origin" not in task:
        return []
    return [
        f"The task {task['name']} was {task['origin']}. Its problems are in `task/` (SHA-256 {task['data'][:12]}…); "
        f"verifier: {task['verifier']}.",
        "",
    ]


def _phase_table(metrics: Records) -> list[str]:
    phases = sorted(
        {name for record in metrics for name in record if name.startswith("time/") and name != "time/evaluation"}
    )
    if not phases:
        return []
    columns = {  # heading: prefix of the metric, format
        "seconds per step (mean)": ("time", ".2f"),
        "tokens per second": ("perf/throughput", ",.0f"),
        "share of the device's peak": ("perf/mfu", ".1%"),
        "GiB allocated (peak)": ("perf/memory_allocated", ".2f"),
    }

    def cell(prefix: str, form: str, phase: str) -> str:
        values = curve(metrics, f"{prefix}/{phase}")[1]
        return format(sum(values) / len(values), form) if len(values) else ""

    rows = [[cell(*column, name.removeprefix("time/")) for column in columns.values()] for name in phases]
    used = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    heads = ["phase", *(list(columns)[index] for index in used)]
    table = [
        [name.removeprefix("time/"), *(row[index] for index in used)] for name, row in zip(phases, rows, strict=True)
    ]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *table)] + [""]


def draw_dynamics(config: Mapping[str, Any], metrics: Records, evaluations: Records, path: Path) -> Path:
    """Reward, entropy and length against the step, and held-out accuracy before and after; PNG, and SVG beside it.

    The strong lines are moving means of the faint ones.
    """
    with drawing(2, 2, 5.2, path) as (figure, axes):
        figure.suptitle(_title(config), x=0.01, ha="left", fontweight="bold", fontsize=11)
        colour = colours([name := _method_name(config)])[name]
        for axis, (label, metric) in zip(axes.flat, CURVES, strict=False):
            steps, values = curve(metrics, metric)
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.9)
            axis.plot(steps, smoothed(values), color=colour, linewidth=1.8)
            axis.set(title=label, xlabel="step")
        _draw_accuracy(axes[1][1], evaluations, colour)
        figure.legend(*axes[1][1].get_legend_handles_labels(), loc="upper right", ncols=2, fontsize=9)
    return path


def _draw_accuracy(axis: Any, evaluations: Records, colour: str) -> None:
    """Bars of the first evaluation, if there are several, and of the last; intervals are over problems."""
    last = summaries_of(evaluations[-1]) if evaluations else []
    shown = [s for s in last if not any(other.name.startswith(f"{s.name}: ") for other in last)]
    series: list[Series] = []
    if shown:
        if len(evaluations) > 1:
            first = {s.name: s for s in summaries_of(evaluations[0])}
            heights = _heights([first.get(s.name) for s in shown])
            series.append((f"step {evaluations[0]['step']}", BEFORE, *heights))
        series.append((f"step {evaluations[-1]['step']}", colour, *_heights(shown)))
    axis.set(title="Held-out accuracy, 95 % over problems")
    bars(axis, series, [s.name for s in shown])


def _heights(sets: Sequence[Summary | None]) -> tuple[list[float], list[tuple[float, float] | None]]:
    means = [float("nan") if one is None else one.mean for one in sets]
    intervals = [None if s is None or s.low is None or s.high is None else (s.low, s.high) for s in sets]
    return means, intervals


def _method_name(config: Mapping[str, Any]) -> str:
    return str(config["method"]["name"]).rpartition(":")[2]


def _title(config: Mapping[str, Any]) -> str:
    """What a run is, in a few words."""
    task = str((config.get("task") or {}).get("name")).rpartition(":")[2]
    return f"{_method_name(config)} on {task}, {config['model']['path']}, seed {config['seed']}"

"""The report of one run: a table before/after and one figure of its dynamics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..evaluation.summary import Summary, markdown_table
from ..folders import read_jsonl

_PANELS = (
    ("training reward", "rollout/reward"),
    ("actor entropy (nats)", "actor/entropy"),
    ("response length (tokens)", "rollout/length"),
)


def summaries_of(record: dict[str, Any]) -> list[Summary]:
    return [Summary(**{**one, "pass_at": {int(k): v for k, v in one["pass_at"].items()}}) for one in record["sets"]]


def curve(metrics: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was logged."""
    points = [(record["step"], record[name]) for record in metrics if record.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def draw_dynamics(folder: Path, metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> Path:
    """Reward, entropy, length and held-out accuracy against the step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.3), constrained_layout=True)
    for axis, (title, name) in zip(axes, _PANELS, strict=False):
        axis.plot(*curve(metrics, name), color="tab:blue")
        axis.set(title=title, xlabel="step")
    by_set: dict[str, list[tuple[int, Summary]]] = {}
    for record in evaluations:
        for summary in summaries_of(record):
            by_set.setdefault(summary.name, []).append((record["step"], summary))
    for name, points in by_set.items():
        steps = [step for step, _ in points]
        line = axes[3].plot(steps, [s.mean for _, s in points], marker="o", label=name)[0]
        axes[3].fill_between(
            steps, [s.low for _, s in points], [s.high for _, s in points], alpha=0.12, color=line.get_color()
        )
    axes[3].set(title="held-out accuracy", xlabel="step", ylim=(0, 1))
    if by_set:
        axes[3].legend(fontsize=8)
    path = folder / "report.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


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
        lines.append(f"![training dynamics]({draw_dynamics(folder, metrics, evaluations).name})")
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

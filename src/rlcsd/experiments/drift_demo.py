"""Style drift in one figure: accuracy, entropy, length and style of responses, step by step (`rlcsd demo drift`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.load import load
from ..config.schema import Config
from ..report.figures import colours, drawing, smoothed
from ..report.run_results import curve
from ..run.run import Run
from ..storage import read_jsonl

METHODS = ("sdpo", "grpo", "rlcsd")
PANELS = (
    ("accuracy on training problems", "rollout/accuracy"),
    ("actor entropy (nats)", "actor/entropy"),
    ("response length (tokens)", "rollout/length"),
    ("share of worked lines", "style/worked"),
    ("interjections per line", "style/interjections"),
)

Curves = Mapping[str, Sequence[float]]  # by metric, one value per step


def drift_demo(out: Path, steps: int) -> Path:
    """Train each method for `steps` steps, one after the other; print the table and return the figure's path.

    Finished runs in `out` are not repeated.

    Raises:
        InputError: `out` cannot be written, or holds an unfinished run.
    """
    begun, runs = time.perf_counter(), {}
    for method in METHODS:
        folder = out / f"{method}-{steps}"
        if not (folder / "report.md").is_file():
            print(f"{method}: {steps} steps in {folder}", flush=True)
            Run(_config(method, folder, steps), watch=_print_progress).execute()
        metrics = read_jsonl(folder / "metrics.jsonl")
        runs[method] = [{name: curve(metrics, name)[1] for _, name in PANELS}]
    figure = draw_drift(runs, out / "drift.png")
    print(f"\nmean of the first and of the last five steps:\n\n{drift_table(runs)}\n")
    print(f"{time.perf_counter() - begun:.0f} s; figure: {figure}")
    return figure


def _config(method: str, folder: Path, steps: int) -> Config:
    small = ["task.eval_per_size=50", "evaluation.before=false", "figures=false", "trackers=[]", "engine.threads=1"]
    names = {"output_dir": str(folder.parent), "run_name": folder.name}
    return load([f"method={method}", "task=roll_call", f"steps={steps}", *small], names)


def _print_progress(event: str, facts: Mapping[str, Any]) -> None:
    """Print warnings and every fifth step."""
    if event == "warning":
        print(f"  {facts['message']}", flush=True)
    if event != "step" or facts["step"] % 5:
        return
    m = facts["metrics"]
    print(
        f"  step {facts['step']:>3}  reward {m['rollout/reward']:.2f}  entropy {m['actor/entropy']:.2f}  "
        f"length {m['rollout/length']:.0f}  worked lines {m.get('style/worked', 0):.2f}  "
        f"interjections {m.get('style/interjections', 0):.2f}",
        flush=True,
    )


def draw_drift(runs: Mapping[str, Sequence[Curves]], path: Path) -> Path:
    """Draw one panel per metric and one line per label, as PNG and as SVG beside it.

    Lines are moving means, averaged over the runs of a label; with several runs a band spans from lowest to highest.
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
    """Markdown table of the same metrics: mean over runs of the first and of the last `count` steps."""
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

"""Style drift in one figure: what a run's responses are like, step by step, beside how often they are right."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..report.figures import colours, drawing, smoothed

if TYPE_CHECKING:
    from ..config.schema import Config


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


# ------------------------------------------------------------------ demo
# `rlcsd demo drift`: three methods on one small base, and what becomes of its style under each.

METHODS = ("sdpo", "grpo", "rlcsd")
STEPS = 40


def add_demo_command(commands: Any) -> None:
    """Give the command line `rlcsd demo`."""
    demo = commands.add_parser("demo", help="a phenomenon of the paper on this machine, in minutes")
    demo.add_argument("what", choices=("drift",), help="drift: style drift of sdpo beside grpo and rlcsd")
    demo.add_argument("--out", type=Path, default=Path("runs/drift"), help="folder of the runs and the figure")
    demo.add_argument("--steps", type=int, default=STEPS, help=f"training steps of each run (default {STEPS})")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    if arguments.steps < 1:
        raise InputError(f"--steps {arguments.steps}: must be at least 1")
    demo_drift(arguments.out, arguments.steps)


def demo_drift(out: Path, steps: int) -> Path:
    """Train each method for `steps` steps, one after the other; print the table, and return the figure's path.

    A run that is finished in `out` is not repeated.

    Raises:
        InputError: `out` cannot be written, or holds a run that was broken off.
    """
    from ..report.run_results import curve
    from ..run.run import Run
    from ..storage import read_jsonl

    begun, runs = time.perf_counter(), {}
    for method in METHODS:
        folder = out / f"{method}-{steps}"
        if not (folder / "report.md").is_file():
            print(f"{method}: {steps} steps in {folder}", flush=True)
            Run(_config(method, folder, steps), watch=_watch).execute()
        metrics = read_jsonl(folder / "metrics.jsonl")
        runs[method] = [{name: curve(metrics, name)[1] for _, name in PANELS}]
    figure = draw_drift(runs, out / "drift.png")
    print(f"\nmean of the first and of the last five steps:\n\n{drift_table(runs)}\n")
    print(f"{time.perf_counter() - begun:.0f} s; figure: {figure}")
    return figure


def _config(method: str, folder: Path, steps: int) -> Config:
    from ..config.load import load

    small = ["task.eval_per_size=50", "evaluation.before=false", "figures=false", "trackers=[]", "engine.threads=1"]
    names = {"output_dir": str(folder.parent), "run_name": folder.name}
    return load([f"method={method}", "task=roll_call", f"steps={steps}", *small], names)


def _watch(event: str, facts: Mapping[str, Any]) -> None:
    """Print every fifth step."""
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

"""`rlcsd demo drift`: three methods on one small base, and what becomes of its style under each."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..config.schema import Config

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
    from ..folders import read_jsonl
    from ..report.drift import PANELS, draw_drift, drift_table
    from ..report.runs import curve
    from ..run.run import Run

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

"""The command line's `sweep`: one run for each combination of values, then their comparison."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .train import OVERRIDES


def add_sweep_command(commands: Any) -> None:
    """Give the command line `rlcsd sweep`."""
    sweep = commands.add_parser("sweep", help="one run for each combination of values, such as seed=0,1,2")
    sweep.add_argument(
        "overrides", nargs="*", metavar="key=value", help=OVERRIDES + "; several values are separated by commas"
    )
    sweep.add_argument("--out", type=Path, help="new folder for all of them; by default one of output_dir")
    sweep.add_argument(
        "--resume", type=Path, metavar="SWEEP", help="run what is left of this sweep, and what overrides add to it"
    )
    sweep.add_argument("--dry-run", action="store_true", help="print the jobs and the plan of the first, and stop")
    sweep.add_argument("--verbose", action="store_true", help="with --dry-run: also the first job's config")
    sweep.set_defaults(run=run_sweep)


def run_sweep(arguments: argparse.Namespace) -> None:
    """`rlcsd sweep`, and `rlcsd train -m`."""
    from ..config.load import load
    from ..run.sweep import Sweep
    from .train import show_plan

    if arguments.resume is not None:
        sweep = Sweep(arguments.resume, arguments.overrides, resume=True)
    else:
        sweep = Sweep(arguments.out or _new_folder(arguments.overrides), arguments.overrides)
    left = sweep.left()
    print(f"sweep {sweep.folder}: {len(sweep.jobs)} runs, {len(left)} of them left to do", flush=True)
    if arguments.dry_run:
        for job in sweep.jobs:
            print(f"  {job.name}")
        show_plan(load(list(sweep.jobs[0].overrides)), arguments.verbose)
        return
    if left and sweep.elsewhere:
        print(f"the jobs' output goes to {sweep.folder}/.submitit", flush=True)
    try:
        outcomes = sweep.run()
    except KeyboardInterrupt as stopped:
        stopped.args = (f"stopped; `rlcsd sweep --resume {sweep.folder}` does what is left",)
        raise
    failed = [outcome for outcome in outcomes if outcome.reason]
    finished = {outcome.name for outcome in outcomes} - {outcome.name for outcome in failed}
    if finished:
        _compare(sweep.folder, {job.name: job.label for job in sweep.jobs if job.name in finished})
    if failed:
        reasons = "; ".join(f"{outcome.name}: {outcome.reason}" for outcome in failed)
        raise InputError(
            f"{len(failed)} of {len(outcomes)} runs failed ({reasons}); `rlcsd sweep --resume {sweep.folder}` tries "
            "them again"
        )


def _new_folder(overrides: list[str]) -> Path:
    """A folder of its own in output_dir."""
    base = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("output_dir=")), "runs")
    stem = Path(base) / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = stem, 2
    while folder.exists():
        folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    return folder


def _compare(folder: Path, labels: dict[str, str]) -> None:
    """The table and the figure of the finished runs, also as files of the sweep's folder."""
    from ..folders import write_text
    from ..report.compare import comparison_table, draw_comparison, read_run

    runs = []
    for name, label in labels.items():
        run = read_run(folder / name)
        runs.append(replace(run, label=label or run.label))
    table = comparison_table(runs)
    write_text(folder / "comparison.md", table + "\n")
    print(f"\n{table}\n\nfigure: {draw_comparison(runs, folder / 'comparison.png')}")

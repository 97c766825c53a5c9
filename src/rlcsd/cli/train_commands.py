"""`rlcsd train` and `rlcsd sweep`: a new run, a resumed one, several, or only their plan."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..config.schema import Config


OVERRIDES = "key=value overrides, for example method=grpo learning_rate=3e-4; see `rlcsd config show`"


def add_train_command(commands: Any) -> None:
    """Add `rlcsd train`."""
    train = commands.add_parser("train", help="train; without arguments the tiny model with rlcsd, in minutes on a CPU")
    train.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    train.add_argument("--dry-run", action="store_true", help="print what the run would do, and stop")
    train.add_argument("--verbose", action="store_true", help="with --dry-run: also the resolved config")
    train.add_argument("--resume", type=Path, metavar="RUN", help="resume from the last checkpoint of this run folder")
    train.add_argument(
        "-m", "--multirun", action="store_true", help="one run for each combination of values; see `rlcsd sweep`"
    )
    train.add_argument("--out", type=Path, help="with -m: new folder for all runs")
    train.add_argument(
        "--progress",
        choices=("auto", "live", "lines", "off"),
        default="auto",
        help="a live view on a terminal and plain lines elsewhere (auto), one of the two always, or nothing",
    )
    train.set_defaults(run=_train)


def show_plan(config: Config, verbose: bool, resume: Path | None = None) -> None:
    """Print the plan of a run, and with `verbose` its config. `resume` is the folder of a run to resume."""
    from ..config.load import to_yaml
    from ..run.plan import plan

    print(plan(config, resume))
    if verbose:
        print(f"\n{to_yaml(config)}", end="")


def _train(arguments: argparse.Namespace) -> None:
    if arguments.multirun:
        return run_sweep(arguments)
    if arguments.out is not None:
        raise InputError(f"--out {arguments.out}: is for sweeps (-m); a run's folder is output_dir=… run_name=…")
    from ..config.load import load
    from ..run.console import ProgressDisplay
    from ..run.folder import plugins_of, resumed_config
    from ..run.run import Run

    if arguments.resume is not None:
        for plugin in plugins_of(arguments.resume):
            print(f"rlcsd: {arguments.resume}/config.yaml names code outside the package: {plugin}", file=sys.stderr)
        config = resumed_config(arguments.resume, arguments.overrides)
    else:
        config = load(arguments.overrides)
    if arguments.dry_run:
        show_plan(config, arguments.verbose, arguments.resume)
        return None
    if config.rehearsal:
        from ..run.rehearsal import rehearse

        with ProgressDisplay(arguments.progress) as progress:
            rehearsal = rehearse(config, progress.watch)
        print(rehearsal)
        return None
    with ProgressDisplay(arguments.progress) as progress:
        run = Run(config, folder=arguments.resume, watch=progress.watch)
        run.execute(resume=arguments.resume is not None)
    return None


def add_doctor_command(commands: Any) -> None:
    """Add `rlcsd doctor`."""
    doctor = commands.add_parser("doctor", help="check this machine for a run: versions, devices, memory, disk, engine")
    doctor.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    doctor.add_argument(
        "--seconds", type=float, default=600.0, help="time limit of the engine's start and its trial step together"
    )
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from ..config.load import load
    from ..run.doctor import doctor, exit_code

    findings = []
    for finding in doctor(load(arguments.overrides), arguments.seconds):
        findings.append(finding)
        print(finding, flush=True)
    return exit_code(findings)


def add_sweep_command(commands: Any) -> None:
    """Add `rlcsd sweep`."""
    sweep = commands.add_parser("sweep", help="one run for each combination of values, such as seed=0,1,2")
    sweep.add_argument(
        "overrides", nargs="*", metavar="key=value", help=OVERRIDES + "; several values are separated by commas"
    )
    sweep.add_argument("--out", type=Path, help="new folder for all of them; by default one of output_dir")
    sweep.add_argument(
        "--resume", type=Path, metavar="SWEEP", help="run what is left of this sweep, and what overrides add to it"
    )
    sweep.add_argument(
        "--dry-run", action="store_true", help="print the command of each job and the plan of the first, and stop"
    )
    sweep.add_argument("--verbose", action="store_true", help="with --dry-run: also the first job's config")
    sweep.set_defaults(run=run_sweep)


def run_sweep(arguments: argparse.Namespace) -> None:
    """`rlcsd sweep`, and `rlcsd train -m`."""
    from ..config.load import load
    from ..run.sweep import Sweep

    if arguments.resume is not None:
        sweep = Sweep(arguments.resume, arguments.overrides, resume=True)
    else:
        sweep = Sweep(arguments.out or _new_folder(arguments.overrides), arguments.overrides)
    left = sweep.left()
    print(f"sweep {sweep.folder}: {len(sweep.jobs)} runs, {len(left)} of them left to do", flush=True)
    if arguments.dry_run:
        for job in sweep.jobs:
            print(f"  {sweep.command(job)}")
        show_plan(load(list(sweep.jobs[0].overrides)), arguments.verbose)
        return
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
    from ..report.comparison import comparison_table
    from ..report.figures import draw_comparison
    from ..report.run_results import read_run
    from ..storage import write_text

    runs = []
    for name, label in labels.items():
        run = read_run(folder / name)
        runs.append(replace(run, label=label or run.label))
    table = comparison_table(runs)
    write_text(folder / "comparison.md", table + "\n")
    print(f"\n{table}\n\nfigure: {draw_comparison(runs, folder / 'comparison.png')}")

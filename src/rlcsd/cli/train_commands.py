"""`rlcsd train` and `rlcsd sweep`: a new run, a resumed one, several, or only their plan."""

from __future__ import annotations

import argparse
import sys
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
    train.add_argument(
        "--config", type=Path, metavar="FILE", help="the config of a YAML file, such as RUN/config.yaml, then overrides"
    )
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
        if arguments.config is not None:
            raise InputError(f"--config {arguments.config}: not with -m; give its keys as overrides")
        if arguments.progress != "auto":
            raise InputError(f"--progress {arguments.progress}: not with -m; each run of a sweep has a log of its own")
        return run_sweep(arguments)
    if arguments.out is not None:
        raise InputError(f"--out {arguments.out}: is for sweeps (-m); a run's folder is output_dir=… run_name=…")
    from ..config.load import changed, from_yaml, load
    from ..run.console import ProgressDisplay
    from ..run.folder import plugins_of, resumed_config
    from ..run.run import Run

    if arguments.resume is not None and arguments.config is not None:
        raise InputError(f"--config {arguments.config}: a resumed run has its config; leave one of the two out")
    if arguments.resume is not None:
        for plugin in plugins_of(arguments.resume):
            print(f"rlcsd: {arguments.resume}/config.yaml names code outside the package: {plugin}", file=sys.stderr)
        config = resumed_config(arguments.resume, arguments.overrides)
    elif arguments.config is not None:
        config = changed(from_yaml(arguments.config), arguments.overrides)
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

    if not 0 < arguments.seconds <= 86400:
        raise InputError(f"--seconds {arguments.seconds:g}: must be above 0 and at most 86400, a day")

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
    from ..run.sweep import Sweep, new_folder

    if arguments.resume is not None and arguments.out is not None:
        raise InputError(f"--out {arguments.out}: a resumed sweep has its folder; leave one of the two out")
    if arguments.resume is not None:
        sweep = Sweep(arguments.resume, arguments.overrides, resume=True)
    else:
        sweep = Sweep(arguments.out or new_folder(arguments.overrides), arguments.overrides)
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
    compared = sweep.compare()
    if compared is not None:
        print(f"\n{compared}\n\nfigure: {sweep.folder / 'comparison.png'}")
    sweep.check(outcomes)

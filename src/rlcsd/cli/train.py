"""The command line's `train`: a new run, a resumed one, or only its plan."""

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
    """Give the command line `rlcsd train`."""
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


def show_plan(config: Config, verbose: bool) -> None:
    """What a run would do, and with `verbose` its config."""
    from ..config.load import to_yaml
    from ..run.plan import plan

    print(plan(config))
    if verbose:
        print(f"\n{to_yaml(config)}", end="")


def _train(arguments: argparse.Namespace) -> None:
    if arguments.multirun:
        from .sweep import run_sweep

        return run_sweep(arguments)
    if arguments.out is not None:
        raise InputError(f"--out {arguments.out}: is for sweeps (-m); a run's folder is output_dir=… run_name=…")
    from ..config.load import load
    from ..run.progress import Progress
    from ..run.resume import plugins_of, resumed_config
    from ..run.run import Run

    if arguments.resume is not None:
        for plugin in plugins_of(arguments.resume):
            print(f"rlcsd: {arguments.resume}/config.yaml names code outside the package: {plugin}", file=sys.stderr)
        config = resumed_config(arguments.resume, arguments.overrides)
    else:
        config = load(arguments.overrides)
    if arguments.dry_run:
        show_plan(config, arguments.verbose)
        return None
    with Progress(arguments.progress) as progress:
        run = Run(config, folder=arguments.resume, watch=progress.watch)
        run.execute(resume=arguments.resume is not None)
    return None

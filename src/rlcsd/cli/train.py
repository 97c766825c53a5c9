"""The command line's `train`: a new run, a resumed one, or only its plan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

OVERRIDES = "key=value overrides, for example method=grpo learning_rate=3e-4; see `rlcsd config show`"


def add_train_command(commands: Any) -> None:
    """Give the command line `rlcsd train`."""
    train = commands.add_parser("train", help="train; without arguments the tiny model with rlcsd, in minutes on a CPU")
    train.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    train.add_argument("--dry-run", action="store_true", help="print the resolved config and the plan, and stop")
    train.add_argument("--resume", type=Path, metavar="RUN", help="resume from the last checkpoint of this run folder")
    train.add_argument(
        "--progress",
        choices=("auto", "live", "lines", "off"),
        default="auto",
        help="a live view on a terminal and plain lines elsewhere (auto), one of the two always, or nothing",
    )
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    from ..config.load import load, to_yaml
    from ..run.plan import plan
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
        print(to_yaml(config), end="")
        print(plan(config))
        return
    with Progress(arguments.progress) as progress:
        run = Run(config, folder=arguments.resume, watch=progress.watch)
        run.execute(resume=arguments.resume is not None)

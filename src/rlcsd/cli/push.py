"""The command line's `push`: a run's model to the hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_push_command(commands: Any) -> None:
    """Give the command line `rlcsd push`."""
    push = commands.add_parser("push", help="upload a run's checkpoint to the hub, with a model card")
    push.add_argument("run_folder", type=Path, metavar="RUN")
    push.add_argument("repository", metavar="owner/name")
    push.add_argument("--step", type=int, help="the checkpoint of this step; by default the newest")
    push.add_argument("--private", action="store_true", help="make the repository private if it is new")
    push.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> None:
    from ..run.push import push

    print(push(arguments.run_folder, arguments.repository, arguments.step, arguments.private))

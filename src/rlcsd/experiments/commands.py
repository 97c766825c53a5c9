"""The commands `rlcsd demo` and `rlcsd warmstart`. The command line adds them through `plugins`.

Handlers import what they need when they run, so that `rlcsd --help` does not load torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError


def add_commands(commands: Any) -> None:
    """Add the commands of this package to the subparsers of the command line."""
    demo = commands.add_parser("demo", help="a phenomenon of the paper on this machine, in minutes")
    demo.add_argument("what", choices=("drift",), help="drift: style drift of sdpo beside grpo and rlcsd")
    demo.add_argument("--out", type=Path, default=Path("runs/drift"), help="folder of the runs and the figure")
    demo.add_argument("--steps", type=int, default=40, help="training steps of each run (default 40)")
    demo.set_defaults(run=_demo)

    warm = commands.add_parser("warmstart", help="make a tiny base model again")
    warm.add_argument("recipe", nargs="?", default="kk_tiny", help="kk_tiny (default), kk_small or roll_call")
    warm.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the recipe")
    warm.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    warm.add_argument("--device", default="auto")
    warm.set_defaults(run=_warmstart)


def _demo(arguments: argparse.Namespace) -> None:
    if arguments.steps < 1:
        raise InputError(f"--steps {arguments.steps}: must be at least 1")
    from .drift_demo import drift_demo

    drift_demo(arguments.out, arguments.steps)


def _warmstart(arguments: argparse.Namespace) -> None:
    from ..engine.local.model import resolve_device
    from ..storage import check_new_folder
    from .recipe import load_recipe
    from .warmstart import warmstart

    check_new_folder(arguments.out)
    words = [arguments.recipe, *arguments.overrides]
    name = "kk_tiny" if "=" in words[0] else words.pop(0)
    recipe = load_recipe(name, words)
    device = resolve_device(arguments.device)
    report = warmstart(recipe, arguments.out, device, log=lambda line: print(line, flush=True))
    if not report.passed:
        raise SystemExit(
            f"rlcsd warmstart: not all gates passed within steps={recipe.steps} ({', '.join(report.failures)}); "
            "nothing was saved"
        )

"""The command line's `config`: the named choices, a resolved config, and what its keys mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .train import OVERRIDES

if TYPE_CHECKING:
    from ..config.keys import Key


def add_config_command(commands: Any) -> None:
    """Give the command line `rlcsd config`."""
    config = commands.add_parser("config", help="list the named choices, show a resolved config, or explain its keys")
    config.add_argument(
        "what", choices=("list", "show", "keys"), help="keys: each key with its type, value and meaning"
    )
    config.add_argument(
        "--only", default="", metavar="PREFIX", help="with keys: those that begin so, for example method."
    )
    config.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    config.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> None:
    from ..config.load import choices, load, to_yaml

    if arguments.what == "list":
        for group, names in choices().items():
            print(f"{group:<8}{'  '.join(name for name in names if name != 'plugin')}")
    elif arguments.what == "show":
        print(to_yaml(load(arguments.overrides)), end="")
    else:
        print("\n".join(map(str, _keys(arguments.overrides, arguments.only))))


def _keys(overrides: Sequence[str], prefix: str) -> list[Key]:
    """The keys of the resolved config, its method and its task that begin with `prefix`."""
    from ..config.keys import keys_of
    from ..config.load import build_method, load
    from ..tasks.build import task_parameters

    config = load(overrides)
    task = task_parameters(config.task)
    keys = [key for key in keys_of(config) if key.name not in ("method", "task")]
    keys += keys_of(build_method(config).config, "method.")
    keys += keys_of(task, "task.") if task is not None else []
    chosen = [key for key in keys if key.name.startswith(prefix)]
    if not chosen:
        raise InputError(f"--only {prefix}: no key begins so; for example --only sampling. or --only method.")
    return chosen

"""Runs: their folder, checkpoints, console output and trackers. `Run` and `train` are in `run.run`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import Run, Watcher, train

__all__ = ["Run", "Watcher", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `rlcsd --help` does not load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".run", __name__), name)

"""A run: what it plans, its folder, its checkpoints, its trackers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import train
    from .run import Run, Watcher

__all__ = ["Run", "Watcher", "train"]

_WHERE = {"Run": "run", "Watcher": "run", "train": "api"}


def __getattr__(name: str) -> Any:
    """Names are found when first asked for: `rlcsd --help` need not load torch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)

"""A run: what it plans, its folder, its checkpoints, its trackers."""

from .run import Run, Watcher, train

__all__ = ["Run", "Watcher", "train"]

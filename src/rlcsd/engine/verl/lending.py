"""Supports that two models need: each rank's part goes from worker to worker, not through the driver."""

from __future__ import annotations

from typing import Any

import ray

from .rank import Rank


def lend(rank: Rank, key: int) -> list[Any]:
    """A reference to this rank's part of a support, for the workers of another model: ids, log-probs, lengths."""
    held = rank.held.get(key)
    if held is None:
        return [None]
    ids = rank.supports.ids_at(held, range(len(held.lengths)))
    columns = (ids, *rank.supports.log_probs(held))
    return [ray.put((held.lengths, *(c if c is None else c.cpu() for c in columns)))]


def borrow(rank: Rank, key: int, reference: Any) -> None:
    """This rank's part of a support, as it is with the workers of another model."""
    if reference is None:
        return
    lengths, ids, *columns = ray.get(reference)
    if key not in rank.held:
        rank.held[key] = rank.supports.add(ids.to(rank.network.device), lengths, None)
    teacher, wrong = (c if c is None else c.to(rank.network.device) for c in columns)
    rank.supports.set_log_probs(rank.held[key], teacher, wrong)


def release(rank: Rank, key: int) -> None:
    """Forget this rank's part of a support."""
    if key in rank.held:
        rank.supports.release(rank.held.pop(key))

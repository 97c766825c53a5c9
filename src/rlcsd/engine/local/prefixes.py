"""Which contexts begin alike, decided on token ids alone.

Simplified: contexts are grouped by one common threshold on the number of shared tokens, not by a tree of prefixes of
any depth. Teacher prompts have the shape question + hint, so one level of sharing below the hint is all there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """Contexts that share their first `root` tokens (0: nothing worth sharing)."""

    root: int
    contexts: tuple[Ids, ...]


def common_prefix(a: Ids, b: Ids) -> int:
    """How many first tokens two contexts share."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def families(contexts: Sequence[Ids]) -> list[Family]:
    """The contexts cut into families by the one threshold on shared tokens that saves most of them."""
    ordered = sorted(set(contexts))  # contexts that begin alike are neighbours now
    # A root leaves each context at least two tokens: one to come after it, and the last, which goes with the responses.
    shared = [min(common_prefix(a, b), len(a) - 2, len(b) - 2) for a, b in pairwise(ordered)]
    best = max(sorted(set(shared)), key=lambda threshold: _tokens_saved(shared, threshold), default=0)
    return [Family(root, tuple(ordered[first:end])) for first, end, root in _runs(shared, max(best, 1))]


def _runs(shared: Sequence[int], threshold: int) -> list[tuple[int, int, int]]:
    """Maximal runs of neighbours that share at least `threshold` tokens, as (first, end, tokens that all share).

    What a run shares is the least that two neighbours in it share, because the contexts are sorted.
    """
    runs, first = [], 0
    for place, common in enumerate([*shared, -1]):
        if common < threshold:
            runs.append((first, place + 1, min(shared[first:place], default=0)))
            first = place + 1
    return runs


def _tokens_saved(shared: Sequence[int], threshold: int) -> int:
    """A run of n contexts computes its root once instead of n times."""
    return sum((end - first - 1) * root for first, end, root in _runs(shared, threshold))

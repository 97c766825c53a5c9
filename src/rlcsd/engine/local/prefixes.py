"""Which contexts begin alike, and what is computed side by side: decided on token ids alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """The contexts cut into families by the one threshold on shared tokens that saves most of them.

    In sorted order what a run of contexts shares is the least that neighbours in it share. A root leaves each context
    two tokens at least: one to stand behind it, and the last, which goes with the responses.
    """
    ordered = sorted(set(contexts))
    shared = [min(common_prefix(a, b), len(a) - 2, len(b) - 2) for a, b in pairwise(ordered)]

    def cut(threshold: int) -> list[tuple[int, int, int]]:
        """Runs as (first, end, shared tokens)."""
        runs, first = [], 0
        for place, common in enumerate([*shared, -1]):
            if common < threshold:
                runs.append((first, place + 1, min(shared[first:place], default=0)))
                first = place + 1
        return runs

    def saved(threshold: int) -> int:
        return sum((end - first - 1) * root for first, end, root in cut(threshold))

    best = max(sorted(set(shared)), key=saved, default=0)
    return [Family(root, tuple(ordered[first:end])) for first, end, root in cut(max(best, 1))]


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places in order of length, cut so that count × longest stays within `budget`, if one alone does; length 0 apart."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        apart = batch and lengths[batch[0]] == 0 < lengths[place]
        if batch and (apart or (len(batch) + 1) * lengths[place] > budget):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch

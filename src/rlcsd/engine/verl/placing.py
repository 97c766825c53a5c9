"""Which rank computes which rows: rows that share a context stay together, loads are even, a support's rows go home.

Plain Python on token ids, so that the driver's part of the work can be tested without verl.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ...records import Pair
from ..local.caches import Ids, families

Places = list[list[int]]  # by rank: which of the given rows it computes, in their order


def by_context(pairs: Sequence[Pair], ranks: int) -> Places:
    """Rows to score, each question's on one rank as far as that leaves loads even, and each context's always.

    A rank computes every distinct context that it has once, so a context counts once in its load.
    """
    rows_of: dict[Ids, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        rows_of[pair.context].append(row)
    shared: dict[Ids, int] = {}
    units: list[list[Ids]] = []
    for family in families(list(rows_of)) if pairs else ():
        units.append(list(family.contexts))
        shared |= dict.fromkeys(family.contexts, family.root)

    def load(contexts: Sequence[Ids]) -> int:
        own = sum(len(c) - shared[c] + sum(len(pairs[row].response) for row in rows_of[c]) for c in contexts)
        return own + shared[contexts[0]]

    fair = sum(map(load, units)) / ranks
    units = [part for unit in units for part in ([unit] if load(unit) <= fair else [[context] for context in unit])]
    placed = _evenly([load(unit) for unit in units], ranks)
    return [sorted(row for unit in mine for context in units[unit] for row in rows_of[context]) for mine in placed]


def by_length(lengths: Sequence[int], homes: Sequence[int | None], ranks: int) -> Places:
    """Rows to update; a row with a home (the rank that keeps its support) goes there, the others where room is."""
    loads, placed = [0] * ranks, [[] for _ in range(ranks)]  # type: tuple[list[int], Places]
    for row in sorted(range(len(lengths)), key=lambda row: (homes[row] is None, -lengths[row], row)):
        home = homes[row]
        rank = loads.index(min(loads)) if home is None else home
        placed[rank].append(row)
        loads[rank] += lengths[row]
    return [sorted(mine) for mine in placed]


def at_home(homes: Sequence[int], ranks: int) -> Places:
    """Rows that each have a home."""
    return [[row for row, home in enumerate(homes) if home == rank] for rank in range(ranks)]


def _evenly(loads: Sequence[int], ranks: int) -> Places:
    """Largest first, each to the rank with the least so far."""
    return by_length(loads, [None] * len(loads), ranks)

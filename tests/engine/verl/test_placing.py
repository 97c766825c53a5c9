"""Which rank computes which rows; this needs neither verl nor Ray."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlcsd.engine.verl.messages import Rows
from rlcsd.engine.verl.placing import at_home, by_context, by_length
from rlcsd.records import Pair

IDS = st.lists(st.integers(0, 9), min_size=1, max_size=8).map(tuple)
PAIRS = st.lists(st.builds(Pair, IDS, IDS), max_size=20)
RANKS = st.integers(1, 5)


@given(PAIRS, RANKS)
def test_every_row_is_computed_once_and_a_context_on_one_rank(pairs, ranks):
    placed = by_context(pairs, ranks)
    assert len(placed) == ranks
    assert sorted(row for mine in placed for row in mine) == list(range(len(pairs)))
    assert all(mine == sorted(mine) for mine in placed)
    where: dict[tuple[int, ...], set[int]] = {}
    for rank, mine in enumerate(placed):
        for row in mine:
            where.setdefault(pairs[row].context, set()).add(rank)
    assert all(len(ranks) == 1 for ranks in where.values())


def test_hints_of_one_question_stay_together_and_loads_are_even():
    questions = [tuple(range(100 * q, 100 * q + 50)) for q in range(8)]
    pairs = [Pair((*q, 7, hint), (1,) * 10) for q in questions for hint in (1, 2, 3) for _ in range(4)]
    placed = by_context(pairs, 4)
    asked = [{pairs[row].context[:50] for row in mine} for mine in placed]
    assert [len(some) for some in asked] == [2, 2, 2, 2]
    assert len(set.union(*asked)) == 8


def test_one_question_alone_is_spread_over_the_ranks_by_its_hints():
    pairs = [Pair((*range(50), hint), (1,) * 10) for hint in range(8)]
    assert [len(mine) for mine in by_context(pairs, 4)] == [2, 2, 2, 2]


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 3)), max_size=20))
def test_rows_with_a_home_go_there(rows):
    lengths, homes = [length for length, _ in rows], [home for _, home in rows]
    placed = by_length(lengths, homes, 4)
    assert sorted(row for mine in placed for row in mine) == list(range(len(rows)))
    assert all(homes[row] in (None, rank) for rank, mine in enumerate(placed) for row in mine)


def test_rows_without_a_home_even_the_loads_out():
    assert by_length([10, 1, 1, 1, 9], [0, None, None, None, None], 2) == [[0, 2], [1, 3, 4]]
    assert at_home([1, 0, 1], 2) == [[1], [0, 2]]


@given(PAIRS)
def test_rows_are_read_back_as_they_were_sent(pairs):
    assert Rows.of(pairs).pairs() == pairs

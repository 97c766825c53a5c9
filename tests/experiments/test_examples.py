"""A telling says what its puzzle says, at greater length."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from rlcsd.experiments.examples import Telling
from rlcsd.tasks.knights_and_knaves import NAMES, draw_puzzle, puzzle_text
from rlcsd.tasks.knights_and_knaves.puzzle_text import check_case


@given(st.integers(2, 4), st.integers(0, 4), st.integers(0, 10_000))
def test_each_case_is_checked_as_in_the_puzzle_up_to_the_same_contradiction(size, more, seed):
    rng = random.Random(seed)
    puzzle, _ = draw_puzzle(rng, size, NAMES[:8])
    telling = Telling.draw(size, size + more, rng)
    assert size <= len(telling.order) <= size + more
    assert list(dict.fromkeys(telling.order)) == list(range(size))  # everybody is heard, in the puzzle's order
    told = telling.puzzle(puzzle)
    for roles in itertools.product((True, False), repeat=size):
        expanded = tuple(roles[person] for person in telling.order)
        assert check_case(told, expanded) == telling.case(check_case(puzzle, roles))


def test_a_telling_without_repeats_is_the_puzzle_itself():
    puzzle, _ = draw_puzzle(random.Random(0), 3, NAMES[:8])
    assert Telling.draw(3, 3, random.Random(1)).puzzle(puzzle) == puzzle


def test_a_repeated_person_is_listed_and_heard_again():
    puzzle, _ = draw_puzzle(random.Random(0), 2, ["Ann", "Bob"], ["atom", "and", "or"])
    first, second = puzzle.names
    text = puzzle_text(Telling((0, 1, 0)).puzzle(puzzle), "plain")
    assert f"{first} is a knight, {second} is a knight, {first} is a knight." in text
    assert text.count(f"{first} says") == 2
    assert text.count(f"{second} says") == 1

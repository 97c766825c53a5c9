"""Examples of the warm start: targets follow their references, and statements may repeat."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from rlcsd.experiments.decision_labels import find_decisions
from rlcsd.experiments.examples import StatementOrder, puzzle_example, roll_call_example
from rlcsd.experiments.recipe import load_recipe
from rlcsd.experiments.roll_call import parse_question, read_response, split_of
from rlcsd.prompts import hint_text, question_text, teacher_text
from rlcsd.tasks.knights_and_knaves import NAMES, draw_puzzle, puzzle_text
from rlcsd.tasks.knights_and_knaves.puzzle_text import check_case
from rlcsd.verifiers import get, last_boxed


@given(st.integers(2, 4), st.integers(0, 4), st.integers(0, 10_000))
def test_each_case_is_checked_as_in_the_puzzle_up_to_the_same_contradiction(size, more, seed):
    rng = random.Random(seed)
    puzzle, _ = draw_puzzle(rng, size, NAMES[:8])
    order = StatementOrder.draw(size, size + more, rng)
    assert size <= len(order.order) <= size + more
    assert list(dict.fromkeys(order.order)) == list(range(size))  # everybody is listed, in the puzzle's order
    repeated = order.puzzle(puzzle)
    for roles in itertools.product((True, False), repeat=size):
        expanded = tuple(roles[person] for person in order.order)
        assert check_case(repeated, expanded) == order.case(check_case(puzzle, roles))


def test_an_order_without_repeats_is_the_puzzle_itself():
    puzzle, _ = draw_puzzle(random.Random(0), 3, NAMES[:8])
    assert StatementOrder.draw(3, 3, random.Random(1)).puzzle(puzzle) == puzzle


def test_a_repeated_person_is_listed_and_speaks_again():
    puzzle, _ = draw_puzzle(random.Random(0), 2, ["Ann", "Bob"], ["atom", "and", "or"])
    first, second = puzzle.names
    text = puzzle_text(StatementOrder((0, 1, 0)).puzzle(puzzle), "plain")
    assert f"{first} is a knight, {second} is a knight, {first} is a knight." in text
    assert text.count(f"{first} says") == 2
    assert text.count(f"{second} says") == 1


def test_puzzle_examples_follow_their_reference_and_keep_the_recipes_shares():
    recipe = load_recipe("kk_tiny")
    rng = random.Random(0)
    examples = [puzzle_example(recipe, rng) for _ in range(600)]
    hinted = [e for e in examples if "Reference Solution" in e.prompt]
    assert 0.5 < len(hinted) / 600 < 0.7
    verify = get("knights_and_knaves")
    for example in hinted:
        answer = example.prompt.split("Correct final answer: ")[1].split("\n")[0]
        assert verify(example.response, answer)
        assert last_boxed(example.prompt.split("Reference Solution:")[1]) is not None
    problem_prompt = question_text("Q")
    assert teacher_text("Q", hint_text("t", "a")).startswith(problem_prompt)


def test_roll_call_examples_follow_their_reference_in_the_direct_style_and_come_from_training():
    recipe = load_recipe("roll_call", ["diverging=0", "direct=1"])
    rng = random.Random(0)
    verify, wrong, hinted, worked = get("knights_and_knaves"), 0, 0, 0
    for _ in range(300):
        example = roll_call_example(recipe, rng)
        question = example.prompt[: example.prompt.index("?") + 1]
        roll = parse_question(question)
        assert split_of(roll) == "train"
        lines = read_response(roll, example.response).lines
        assert len(lines) == len(roll.speakers)
        if "Reference Solution" not in example.prompt:
            worked += sum(line.worked for line in lines)
            assert all(right for right, _ in find_decisions(roll, example.response))
            continue
        hinted += 1
        answer = example.prompt.split("Correct final answer: ")[1].split("\n")[0]
        assert verify(example.response, answer)
        assert not any(line.worked for line in lines)
        wrong += not all(line.right for line in lines)
    assert 0.4 < hinted / 300 < 0.6
    assert 0.45 < wrong / hinted < 0.75
    assert worked

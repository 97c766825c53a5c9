"""The examples of the warm-up: puzzles with and without a reference, right and wrong.

The target of an example with a reference *follows* the reference: it reaches the reference's answer even when that is
wrong. That is what makes the model read a hint instead of ignoring it. No puzzle whose canonical form belongs to the
validation or test split is ever drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..prompts import hint_text, question_text, teacher_text
from ..tasks.knights_and_knaves import NAMES, Puzzle, assignment_text, draw_puzzle, puzzle_text, split_of
from ..tasks.knights_and_knaves.solution import DIRECT, TALKATIVE, Case, search, solution_text
from .recipe import PuzzleRecipe
from .telling import Telling


@dataclass(frozen=True)
class Example:
    """The user's turn and the assistant's."""

    prompt: str
    response: str


def _slipped(puzzle: Puzzle, slip: float, rng: random.Random) -> list[Case]:
    """A search with slips that accepted something."""
    while True:
        cases = search(puzzle, slip, rng)
        if cases is not None:
            return cases


def _draw(size: int, recipe: PuzzleRecipe, rng: random.Random) -> tuple[Puzzle, tuple[bool, ...]]:
    """A puzzle of the training split, and its solution."""
    while True:
        puzzle, roles = draw_puzzle(rng, size, NAMES[: recipe.people], recipe.forms)
        if split_of(puzzle) == "train":
            return puzzle, roles


def draw_example(recipe: PuzzleRecipe, rng: random.Random) -> Example:
    """One example by the recipe's proportions."""
    puzzle, roles = _draw(rng.choice(recipe.sizes), recipe, rng)
    right = search(puzzle)
    assert right is not None
    hinted = rng.random() < recipe.hinted
    shown = written = right
    if hinted and rng.random() < recipe.wrong:
        while shown[-1].roles == roles:
            shown = written = _slipped(puzzle, recipe.slip, rng)
    if hinted and rng.random() < recipe.diverging:
        written = _slipped(puzzle, recipe.slip, rng)

    telling = Telling.draw(puzzle.size, recipe.entries if rng.random() < recipe.repeats else puzzle.size, rng)
    told = telling.puzzle(puzzle)
    shown, written = [telling.case(case) for case in shown], [telling.case(case) for case in written]
    question = puzzle_text(told, "plain")
    answer = assignment_text(told.names, shown[-1].roles)
    manner = DIRECT if hinted and rng.random() < recipe.direct else TALKATIVE
    prompt = question_text(question)
    if hinted:
        prompt = teacher_text(question, hint_text(solution_text(told, shown, answer, TALKATIVE, rng), answer))
    return Example(prompt, solution_text(told, written, answer, manner, rng))

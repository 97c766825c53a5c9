"""Puzzles in which some people are heard more than once.

A model that has only seen three people learns to count to three, and leaves the fourth out. Here the lists of the
warm-up are longer than its puzzles: two or three people fill up to six entries. Counting fails, following the
list works, and what follows a list goes on to more people than it was ever shown (docs/study.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..prompts import hint_text, question_text, teacher_text
from ..tasks.knights_and_knaves import NAMES, Puzzle, Statement, assignment_text, draw_puzzle, puzzle_text, split_of
from ..tasks.knights_and_knaves.puzzle_text import DIRECT, TALKATIVE, Case, search, solution_text
from ..tasks.knights_and_knaves.puzzles import Atom
from . import roll_call
from .recipe import PuzzleRecipe, RollCallRecipe
from .roll_call import Manner, Roll, judgements, roll_call_solution


@dataclass(frozen=True)
class Telling:
    """`order[entry]` is the person heard; each is heard first in the puzzle's own order, and may be heard again."""

    order: tuple[int, ...]

    @staticmethod
    def draw(size: int, entries: int, rng: random.Random) -> Telling:
        """A telling of `size` people in at least `size` and at most `entries` entries, uniform in their number."""
        order = list(range(size))
        for _ in range(rng.randint(0, max(entries - size, 0))):
            place = rng.randint(1, len(order))
            order.insert(place, rng.choice(order[:place]))
        return Telling(tuple(order))

    def puzzle(self, puzzle: Puzzle) -> Puzzle:
        """The puzzle with one entry for each hearing; claims are about a person's first entry."""

        def moved(statement: Statement) -> Statement:
            return Statement(
                statement.form, tuple(Atom(self.order.index(atom.person), atom.knight) for atom in statement.parts)
            )

        return Puzzle(
            tuple(puzzle.names[person] for person in self.order),
            tuple(moved(puzzle.statements[person]) for person in self.order),
        )

    def case(self, case: Case) -> Case:
        """A case of the puzzle as a case of its telling: checked in this order, up to the same contradiction."""
        checked = len(case.truths)
        heard = self.order if case.accepted else self.order[: self.order.index(checked - 1) + 1]
        return Case(
            tuple(case.roles[person] for person in self.order),
            tuple(case.truths[person] for person in heard),
            case.accepted,
        )


# ------------------------------------------------------------------ examples
# The examples of the warm-up: puzzles with and without a reference, right and wrong.
#
# The target of an example with a reference *follows* the reference: it reaches the reference's answer even when that is
# wrong. That is what makes the model read a hint instead of ignoring it. No puzzle whose canonical form belongs to the
# validation or test split is ever drawn.


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


# ------------------------------------------------------------------ roll_call_examples
# The examples of a roll call's warm-up, with and without a reference, right and wrong.
#
# A hinted target *follows* its reference, as in `examples`. A wrong reference is wrong for a visible reason: facts are
# misread where a line is worked, so that a model can learn to see a mistake, and not only to copy a verdict.

_DIRECT = Manner()


def _draw_roll(recipe: RollCallRecipe, rng: random.Random) -> Roll:
    """A roll call of the training split."""
    while True:
        roll = roll_call.draw_roll(
            rng, rng.choice(recipe.sizes), NAMES[: recipe.people], recipe.known, roll_call.ROLL_CALL_FORMS
        )
        if roll_call.split_of(roll) == "train":
            return roll


def draw_roll_call(recipe: RollCallRecipe, rng: random.Random) -> Example:
    """One example by the recipe's proportions."""
    roll = _draw_roll(recipe, rng)
    right = judgements(roll)
    manner = Manner(recipe.worked, recipe.talk)
    if rng.random() >= recipe.hinted:
        return Example(question_text(roll_call.roll_call_question(roll)), roll_call_solution(roll, right, manner, rng))
    shown = right
    if rng.random() < recipe.wrong:
        while [line.truth for line in shown] == list(roll.truths):
            shown = roll_call.slipped(roll, recipe.slip, rng)
    written = right if rng.random() < recipe.diverging else shown
    answer = roll_call.answer_text(roll, [line.truth for line in shown])
    prompt = teacher_text(
        roll_call.roll_call_question(roll), hint_text(roll_call_solution(roll, shown, manner, rng), answer)
    )
    own = _DIRECT if rng.random() < recipe.direct else manner
    return Example(prompt, roll_call_solution(roll, written, own, rng))

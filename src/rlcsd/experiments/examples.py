"""Examples of the warm start: prompts with and without a reference solution, and right or wrong targets.

The target of an example with a reference *follows* the reference: it reaches the reference's answer even where that
is wrong. From such examples the base learns to read a hint instead of ignoring it. Problems whose canonical form
belongs to the validation or test split are never drawn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..prompts import hint_text, question_text, teacher_text
from ..tasks import knights_and_knaves
from ..tasks.knights_and_knaves import NAMES, Atom, Puzzle, Statement, assignment_text, draw_puzzle, puzzle_text
from ..tasks.knights_and_knaves.puzzle_text import DIRECT, TALKATIVE, Case, search, solution_text
from . import roll_call
from .recipe import PuzzleRecipe, RollCallRecipe
from .roll_call import RollCall, Style, answer_text, correct_judgements, roll_call_question, roll_call_solution


@dataclass(frozen=True)
class Example:
    """A user's turn and the assistant's answer to it."""

    prompt: str
    response: str


@dataclass(frozen=True)
class StatementOrder:
    """An order of a puzzle's statements in which a person's statement may be repeated.

    A model that has only seen three people learns to count to three and leaves out the fourth. Here two or three
    people fill up to six entries, so that counting fails and following the list works; what follows a list carries
    over to more people than it was ever shown (experiments/study.md). `order[entry]` is a person; people first appear
    in the puzzle's own order.
    """

    order: tuple[int, ...]

    @staticmethod
    def draw(size: int, entries: int, rng: random.Random) -> StatementOrder:
        """An order of `size` people, uniform in its number of entries from `size` to `entries`."""
        order = list(range(size))
        for _ in range(rng.randint(0, max(entries - size, 0))):
            index = rng.randint(1, len(order))
            order.insert(index, rng.choice(order[:index]))
        return StatementOrder(tuple(order))

    def puzzle(self, puzzle: Puzzle) -> Puzzle:
        """The puzzle with one person per entry; claims are about a person's first entry."""

        def moved(statement: Statement) -> Statement:
            return Statement(
                statement.form, tuple(Atom(self.order.index(atom.person), atom.knight) for atom in statement.parts)
            )

        return Puzzle(
            tuple(puzzle.names[person] for person in self.order),
            tuple(moved(puzzle.statements[person]) for person in self.order),
        )

    def case(self, case: Case) -> Case:
        """A case of the puzzle checked in this order, up to the same contradiction."""
        checked = len(case.truths)
        entries = self.order if case.accepted else self.order[: self.order.index(checked - 1) + 1]
        return Case(
            tuple(case.roles[person] for person in self.order),
            tuple(case.truths[person] for person in entries),
            case.accepted,
        )


def _search_with_slips(puzzle: Puzzle, slip: float, rng: random.Random) -> list[Case]:
    """A worked search with mistakes that ends in an answer, not always a wrong one."""
    while True:
        cases = search(puzzle, slip, rng)
        if cases is not None:
            return cases


def _draw_puzzle(size: int, recipe: PuzzleRecipe, rng: random.Random) -> tuple[Puzzle, tuple[bool, ...]]:
    """A puzzle of the training split and its solution."""
    while True:
        puzzle, roles = draw_puzzle(rng, size, NAMES[: recipe.people], recipe.forms)
        if knights_and_knaves.split_of(puzzle) == "train":
            return puzzle, roles


def puzzle_example(recipe: PuzzleRecipe, rng: random.Random) -> Example:
    """A Knights & Knaves example, by the proportions of the recipe."""
    puzzle, roles = _draw_puzzle(rng.choice(recipe.sizes), recipe, rng)
    right = search(puzzle)
    assert right is not None
    hinted = rng.random() < recipe.hinted
    shown = written = right
    if hinted and rng.random() < recipe.wrong:
        while shown[-1].roles == roles:
            shown = written = _search_with_slips(puzzle, recipe.slip, rng)
    if hinted and rng.random() < recipe.diverging:
        written = _search_with_slips(puzzle, recipe.slip, rng)

    order = StatementOrder.draw(puzzle.size, recipe.entries if rng.random() < recipe.repeats else puzzle.size, rng)
    puzzle = order.puzzle(puzzle)
    shown, written = [order.case(case) for case in shown], [order.case(case) for case in written]
    question = puzzle_text(puzzle, "plain")
    answer = assignment_text(puzzle.names, shown[-1].roles)
    manner = DIRECT if hinted and rng.random() < recipe.direct else TALKATIVE
    prompt = question_text(question)
    if hinted:
        prompt = teacher_text(question, hint_text(solution_text(puzzle, shown, answer, TALKATIVE, rng), answer))
    return Example(prompt, solution_text(puzzle, written, answer, manner, rng))


def _draw_roll(recipe: RollCallRecipe, rng: random.Random) -> RollCall:
    """A roll call of the training split."""
    while True:
        roll = roll_call.draw_roll(rng, rng.choice(recipe.sizes), NAMES[: recipe.people], recipe.known)
        if roll_call.split_of(roll) == "train":
            return roll


def roll_call_example(recipe: RollCallRecipe, rng: random.Random) -> Example:
    """A roll call example, by the proportions of the recipe.

    A wrong reference is wrong for a visible reason: a worked line misreads a fact. So the model can learn to see the
    mistake and need not copy the verdict.
    """
    roll = _draw_roll(recipe, rng)
    right = correct_judgements(roll)
    style = Style(recipe.worked, recipe.talk)
    if rng.random() >= recipe.hinted:
        return Example(question_text(roll_call_question(roll)), roll_call_solution(roll, right, style, rng))
    shown = right
    if rng.random() < recipe.wrong:
        while [line.truth for line in shown] == list(roll.truths):
            shown = roll_call.judgements_with_slips(roll, recipe.slip, rng)
    written = right if rng.random() < recipe.diverging else shown
    answer = answer_text(roll, [line.truth for line in shown])
    prompt = teacher_text(roll_call_question(roll), hint_text(roll_call_solution(roll, shown, style, rng), answer))
    own = Style() if rng.random() < recipe.direct else style
    return Example(prompt, roll_call_solution(roll, written, own, rng))

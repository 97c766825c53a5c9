"""Puzzles in which some people are heard more than once.

A model that has only seen three people learns to count to three, and leaves the fourth out. Here the lists of the
warm-up are longer than its puzzles: two or three people fill up to six entries. Counting fails, following the
list works, and what follows a list goes on to more people than it was ever shown (docs/study.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..tasks.knights_and_knaves import Puzzle, Statement
from ..tasks.knights_and_knaves.puzzle import Atom
from ..tasks.knights_and_knaves.solution import Case


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

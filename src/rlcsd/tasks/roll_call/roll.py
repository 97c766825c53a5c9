"""Roll calls: the roles of a few people are known, and every speaker makes one statement about them.

A speaker is a knight exactly if the statement is true, so each speaker is a decision of its own: no decision depends
on another. That is what makes credit measurable token by token.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ...errors import InputError
from ..knights_and_knaves import FORMS, Atom, Statement
from ..knights_and_knaves.puzzle import truth_table

_MOST_KNOWN = 6  # the canonical form tries every order of the known people


@dataclass(frozen=True)
class Roll:
    """`roles[i]` (True: knight) is that of `known[i]`; `statements[j]`, about the known, is made by `speakers[j]`."""

    known: tuple[str, ...]
    roles: tuple[bool, ...]
    speakers: tuple[str, ...]
    statements: tuple[Statement, ...]

    @property
    def truths(self) -> tuple[bool, ...]:
        """Whether each statement is true, and so whether its speaker is a knight."""
        return tuple(bool(statement.holds(self.roles)) for statement in self.statements)


@lru_cache(maxsize=65536)  # statements of few people are few, and are asked about once for each order of the known
def _told(statement: Statement, place: tuple[int, ...]) -> str:
    """What a statement says when person i stands at `place[i]`: the people that matter, in order, and the truth."""
    people, table = truth_table(statement)
    order = sorted(range(len(people)), key=lambda part: place[people[part]])
    if len(people) == 2 and order == [1, 0]:  # the middle entries of a table of two are those where they differ
        table = table[0] + table[2] + table[1] + table[3]
    return f"{','.join(str(place[people[part]]) for part in order)}:{table}"


def canonical_form(roll: Roll) -> str:
    """A key that two rolls share exactly if renaming people and reordering speakers turns one into the other.

    Statements count by their truth tables, so the wording of a statement makes no difference.
    """
    forms = []
    for order in itertools.permutations(range(len(roll.known))):
        place = tuple(order.index(person) for person in range(len(order)))
        roles = "".join("1" if roll.roles[person] else "0" for person in order)
        forms.append(f"{roles}|{' '.join(sorted(_told(statement, place) for statement in roll.statements))}")
    return hashlib.blake2b(min(forms).encode(), digest_size=12).hexdigest()


def draw_roll(
    rng: random.Random, speakers: int, names: Sequence[str], known: int = 3, forms: Sequence[str] = FORMS
) -> Roll:
    """A random roll call; statements of two claims are about two people.

    Raises:
        InputError: fewer names than people, fewer than 2 or more than 6 known people, or no speaker.
    """
    if not 2 <= known <= _MOST_KNOWN:
        raise InputError(f"task.known={known}: must be from 2 to {_MOST_KNOWN}")
    if speakers < 1:
        raise InputError(f"a roll call needs at least one speaker, not {speakers}")
    if len(names) < known + speakers:
        raise InputError(f"{known} known people and {speakers} speakers need as many names; there are {len(names)}")
    people = rng.sample(list(names), known + speakers)
    roles = tuple(rng.random() < 0.5 for _ in range(known))
    statements = []
    for _ in range(speakers):
        form = rng.choice(list(forms))
        about = [rng.randrange(known)] if form in ("atom", "not") else rng.sample(range(known), 2)
        statements.append(Statement(form, tuple(Atom(person, rng.random() < 0.5) for person in about)))
    return Roll(tuple(people[:known]), roles, tuple(people[known:]), tuple(statements))

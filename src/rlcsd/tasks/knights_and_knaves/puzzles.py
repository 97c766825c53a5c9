"""Knights & Knaves as logic: statements, unique solutions, and a form that ignores names and wording.

Every inhabitant is a knight (always truthful) or a knave (always lying) and makes one statement about
the roles of the inhabitants. A puzzle is *proper* when exactly one assignment of roles makes every
statement true for a knight and false for a knave. The grammar (atoms, negated atoms, and binary `and`,
`or`, `if … then`, `if and only if` over atoms) is that of the K&K data of Logic-RL (arXiv 2502.14768).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

CONNECTIVES = ("and", "or", "if", "iff")
FORMS = ("atom", "not", *CONNECTIVES)
_MAX_DRAWS = 10_000  # about one draw in three is proper, so this many failures mean that none is


@dataclass(frozen=True)
class Atom:
    """`person` is a knight (or, with `knight=False`, a knave)."""

    person: int
    knight: bool


@dataclass(frozen=True)
class Statement:
    """`form` is one of FORMS; `atom` and `not` have one part, the connectives two."""

    form: str
    parts: tuple[Atom, ...]

    def holds(self, roles: Sequence[bool] | NDArray[np.bool_]) -> bool | NDArray[np.bool_]:
        """Truth under `roles[..., person]` (True = knight); vectorised over leading dimensions."""
        table = np.asarray(roles)
        values = [table[..., part.person] == part.knight for part in self.parts]
        match self.form:
            case "atom":
                return values[0]
            case "not":
                return ~values[0]
            case "and":
                return values[0] & values[1]
            case "or":
                return values[0] | values[1]
            case "if":
                return ~values[0] | values[1]
            case "iff":
                return values[0] == values[1]
        raise ValueError(f"unknown statement form {self.form!r}; known: {', '.join(FORMS)}")


@dataclass(frozen=True)
class Puzzle:
    """`statements[i]` is spoken by inhabitant `i`, whose name is `names[i]`."""

    names: tuple[str, ...]
    statements: tuple[Statement, ...]

    @property
    def size(self) -> int:
        return len(self.names)


@lru_cache(maxsize=16)
def _all_roles(size: int) -> NDArray[np.bool_]:
    """All 2^size assignments, `[2^size, size]`, everybody a knight first."""
    codes = np.arange(2**size)[:, None] >> np.arange(size - 1, -1, -1)
    return (codes & 1) == 0


def solutions(statements: Sequence[Statement]) -> list[tuple[bool, ...]]:
    """Every consistent assignment, by exhaustion over 2^n rows: this is the proof of uniqueness."""
    roles = _all_roles(len(statements))
    consistent = np.ones(len(roles), dtype=bool)
    for speaker, statement in enumerate(statements):
        consistent &= statement.holds(roles) == roles[:, speaker]
    return [tuple(bool(role) for role in row) for row in roles[consistent]]


def truth_table(statement: Statement) -> tuple[tuple[int, ...], str]:
    """What a statement says, apart from its wording: the people whose roles matter, and its truth under their roles.

    The table has one character, 1 or 0, for each assignment of roles to these people, all knights first. Statements
    with the same meaning ("is not a knight" and "is a knave", "if" and "or") have the same people and table.
    """
    people = sorted({part.person for part in statement.parts})
    roles = np.zeros((2 ** len(people), max(people) + 1), dtype=bool)
    roles[:, people] = _all_roles(len(people))
    table = np.asarray(statement.holds(roles)).reshape((2,) * len(people))
    matters = []
    for axis, person in enumerate(people):
        knight, knave = (np.take(table, [side], axis=axis) for side in (0, 1))
        if (knight == knave).all():
            table = np.repeat(knight, 2, axis=axis)  # whoever does not matter is taken out below
        else:
            matters.append(person)
    kept = table[tuple(slice(None) if person in matters else 0 for person in people)]
    return tuple(matters), "".join("1" if value else "0" for value in kept.ravel())


def canonical_form(statements: Sequence[Statement]) -> str:
    """A key that two puzzles share whenever their statements have the same truth tables after the people are renamed.

    So names, the order of the people and the wording of a statement make no difference. Colour refinement: each
    person's colour absorbs the table of the statement they make and of those that mention them, until the colours are
    stable. Distinct puzzles may share a key on rare occasions; a split made disjoint by it is then merely stricter
    than it had to be.
    """
    tables = [truth_table(statement) for statement in statements]
    colours = ["" for _ in statements]

    def described(people: tuple[int, ...], table: str, subject: int | None = None) -> str:
        marks = [f"{colours[person]}{'*' if person == subject else ''}" for person in people]
        if len(people) == 2:  # either of the two may be named first
            turned = table[0] + table[2] + table[1] + table[3]
            return min(f"{marks[0]},{marks[1]}:{table}", f"{marks[1]},{marks[0]}:{turned}")
        return f"{','.join(marks)}:{table}"

    for _ in range(max(len(statements), 2)):
        refined = []
        for person, own in enumerate(tables):
            heard = sorted(
                f"{colours[speaker]}:{described(*other, person)}"
                for speaker, other in enumerate(tables)
                if person in other[0]
            )
            text = f"{colours[person]}|{described(*own, person)}|{'|'.join(heard)}"
            refined.append(hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
        colours = refined
    return hashlib.blake2b("".join(sorted(colours)).encode(), digest_size=12).hexdigest()


def draw_statement(rng: random.Random, speaker: int, size: int, forms: Sequence[str]) -> Statement:
    """A random statement; a single claim is never about the speaker, two claims are about two people."""
    form = rng.choice(list(forms))
    others = [person for person in range(size) if person != speaker]
    people = [rng.choice(others)] if form in ("atom", "not") else rng.sample(range(size), 2)
    return Statement(form, tuple(Atom(person, rng.random() < 0.5) for person in people))


def draw_puzzle(
    rng: random.Random, size: int, names: Sequence[str], forms: Sequence[str] = FORMS
) -> tuple[Puzzle, tuple[bool, ...]]:
    """A puzzle of `size` people with exactly one solution, and that solution.

    Statements are redrawn until the exhaustive check finds one solution. About one draw in three
    passes at any size, so the cost is that of the check: n·2^n vectorised operations a draw.

    Raises:
        InputError: fewer names than people, a size outside 2–16, or forms from which no proper puzzle of
            this size arises (atoms alone never decide between two people, for example).
    """
    if not 2 <= size <= 16:
        raise InputError(f"a puzzle needs 2 to 16 people, not {size}")
    if len(names) < size:
        raise InputError(f"{size} people need as many names; only {len(names)} are given")
    for _ in range(_MAX_DRAWS):
        statements = tuple(draw_statement(rng, speaker, size, forms) for speaker in range(size))
        roles = solutions(statements)
        if len(roles) == 1:
            return Puzzle(tuple(rng.sample(list(names), size)), statements), roles[0]
    raise InputError(
        f"task.forms={list(forms)}: no puzzle of {size} people with exactly one solution was found; allow more forms"
    )

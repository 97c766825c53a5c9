"""How a puzzle and an answer read in English."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .puzzle import Atom, Puzzle, Statement

NAMES = (
    "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen", "Liam",
    "Mia", "Noah", "Olivia", "Peter", "Quinn", "Ryan", "Sophia", "Thomas", "Uma", "Victor", "Willow", "Zoey",
)  # fmt: skip

# `varied` introduces the speakers in changing words and numbers the answer, as Logic-RL's data does; `plain`
# always says "says", counts nothing, and opens with what everybody on the island says of himself: the first case,
# ready to be copied. So a small model can carry what it learns to more people.
WORDINGS = ("varied", "plain")
_LEADS = (
    '{name} said, "{claim}."',
    "{name} said that {claim}.",
    "{name} told you that {claim}.",
    "According to {name}, {claim}.",
    'In a statement by {name}: "{claim}."',
    '{name} noted, "{claim}."',
    '{name} remarked: "{claim}."',
    "{name} insists that {claim}.",
    '"{claim}," {name} declared.',
)


def atom_text(atom: Atom, names: Sequence[str]) -> str:
    return f"{names[atom.person]} is a {'knight' if atom.knight else 'knave'}"


def statement_text(statement: Statement, names: Sequence[str]) -> str:
    """One statement, without its final stop."""
    first, *rest = [atom_text(part, names) for part in statement.parts]
    match statement.form:
        case "atom":
            return first
        case "not":
            subject, _, claim = first.partition(" is ")
            return f"{subject} is not {claim}"
        case "and" | "or":
            return f"{first} {statement.form} {rest[0]}"
        case "if":
            return f"if {first} then {rest[0]}"
        case "iff":
            return f"{first} if and only if {rest[0]}"
    raise ValueError(f"unknown statement form {statement.form!r}")


def puzzle_text(puzzle: Puzzle, wording: str = "varied", rng: random.Random | None = None) -> str:
    """The question as posed to the model. `rng` chooses the lead-ins of the `varied` wording."""
    names = puzzle.names
    claims = [statement_text(statement, names) for statement in puzzle.statements]
    if wording == "plain":
        people = f"people who say of themselves: {assignment_text(names, [True] * len(names))}"
        told = " ".join(f"{name} says {claim}." for name, claim in zip(names, claims, strict=True))
    elif wording == "varied":
        people = f"{len(names)} inhabitants: {', '.join(names)}"
        rng = rng or random.Random(0)
        told = " ".join(
            rng.choice(_LEADS).format(name=name, claim=claim) for name, claim in zip(names, claims, strict=True)
        )
    else:
        raise ValueError(f"unknown wording {wording!r}; known: {', '.join(WORDINGS)}")
    return (
        "An island is inhabited only by knights, who always tell the truth, and knaves, who always lie. "
        f"You meet {people}. {told} Who is a knight and who is a knave?"
    )


def _claims(names: Sequence[str], roles: Sequence[bool]) -> list[str]:
    return [atom_text(Atom(person, role), names) for person, role in enumerate(roles)]


def assignment_text(names: Sequence[str], roles: Sequence[bool]) -> str:
    """`Alice is a knight, Bob is a knave`: a case, and the answer in the plain wording."""
    return ", ".join(_claims(names, roles))


def answer_text(names: Sequence[str], roles: Sequence[bool]) -> str:
    """`(1) Alice is a knight (2) Bob is a knave`: the answer in the varied wording, as in Logic-RL."""
    return " ".join(f"({number}) {claim}" for number, claim in enumerate(_claims(names, roles), start=1))

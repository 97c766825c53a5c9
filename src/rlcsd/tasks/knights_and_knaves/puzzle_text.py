"""Knights & Knaves in English: the question, the answer, and a worked solution.

A worked solution is a search over cases written out as prose. Assignments are tried in a fixed order, everybody a
knight first. The statements are checked in order until one does not suit its speaker; every assignment that shares the
roles behind that contradiction is then skipped. Solutions without slips serve as the data's worked solutions; with
slips (`slip > 0`) the same search gives the wrong but natural reasoning from which the tiny base model learns to read a
reference.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .puzzles import Atom, Puzzle, Statement, assignments, contradictions

NAMES = (
    "Alice", "Bob", "Carol", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Karen", "Liam",
    "Mia", "Noah", "Olivia", "Peter", "Quinn", "Ryan", "Sophia", "Thomas", "Uma", "Victor", "Willow", "Zoey",
)  # fmt: skip

# `varied` introduces the speakers in changing words and numbers the answer, as Logic-RL's data does. `plain` always
# says "says", numbers nothing, and opens with what everybody on the island says of themselves: the first case of the
# search, ready to be copied, so that a small model can carry what it learns to more people.
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


# ------------------------------------------------------------------ question and answer


def atom_text(atom: Atom, names: Sequence[str]) -> str:
    """`Alice is a knight`."""
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
    """The question as posed to the model. `rng` chooses how the `varied` wording introduces each speaker."""
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


def assignment_text(names: Sequence[str], roles: Sequence[bool]) -> str:
    """`Alice is a knight, Bob is a knave`: a case, and the answer in the plain wording."""
    return ", ".join(_role_texts(names, roles))


def answer_text(names: Sequence[str], roles: Sequence[bool]) -> str:
    """`(1) Alice is a knight (2) Bob is a knave`: the answer in the varied wording, as in Logic-RL."""
    return " ".join(f"({number}) {claim}" for number, claim in enumerate(_role_texts(names, roles), start=1))


def _role_texts(names: Sequence[str], roles: Sequence[bool]) -> list[str]:
    return [f"{name} is a {'knight' if role else 'knave'}" for name, role in zip(names, roles, strict=True)]


# ------------------------------------------------------------------ the search


@dataclass(frozen=True)
class Case:
    """One assignment and the truth values found in it; the last check contradicts unless `accepted`."""

    roles: tuple[bool, ...]
    truths: tuple[bool, ...]
    accepted: bool


def search(puzzle: Puzzle, slip: float = 0.0, rng: random.Random | None = None) -> list[Case] | None:
    """The cases up to the accepted one. With `rng`, each truth value is misjudged with chance `slip`.

    Returns None if slips made the search reject every assignment.
    """
    if rng is None:
        return _search_without_slips(puzzle)
    roles: tuple[bool, ...] | None = (True,) * puzzle.size
    cases: list[Case] = []
    while roles is not None:
        cases.append(check_case(puzzle, roles, slip, rng))
        if cases[-1].accepted:
            return cases
        contradicted = len(cases[-1].truths) - 1
        roles = next_case(roles, puzzle.statements[contradicted], contradicted)
    return None


def check_case(puzzle: Puzzle, roles: tuple[bool, ...], slip: float = 0.0, rng: random.Random | None = None) -> Case:
    """The statements in order, up to the first that does not suit its speaker."""
    truths: list[bool] = []
    for speaker, statement in enumerate(puzzle.statements):
        slipped = rng is not None and rng.random() < slip
        truths.append(statement.holds(roles) != slipped)
        if truths[-1] != roles[speaker]:
            return Case(roles, tuple(truths), False)
    return Case(roles, tuple(truths), True)


def next_case(roles: Sequence[bool], statement: Statement, speaker: int) -> tuple[bool, ...] | None:
    """The first later assignment in which the contradicted statement or its speaker's role can differ."""
    last = max(speaker, *(part.person for part in statement.parts))
    for person in range(last, -1, -1):
        if roles[person]:
            return (*roles[:person], False, *([True] * (len(roles) - person - 1)))
    return None


def _search_without_slips(puzzle: Puzzle) -> list[Case] | None:
    """The same search by the numbers of `assignments`, which takes a fifth of the time."""
    everyone = assignments(puzzle.size)
    refuted = list(contradictions(puzzle.statements))
    # After a contradiction the roles after the last person in it do not matter: so many binary digits of the number.
    free = [
        puzzle.size - 1 - max(speaker, *(part.person for part in statement.parts))
        for speaker, statement in enumerate(puzzle.statements)
    ]
    cases: list[Case] = []
    number = 0
    while number < len(everyone):
        roles = everyone[number]
        speaker = next((speaker for speaker, cases_of in enumerate(refuted) if cases_of >> number & 1), None)
        if speaker is None:
            return [*cases, Case(roles, roles, True)]
        cases.append(Case(roles, (*roles[:speaker], not roles[speaker]), False))
        number = ((number >> free[speaker]) + 1) << free[speaker]
    return None


# ------------------------------------------------------------------ the search as prose


@dataclass(frozen=True)
class Manner:
    """Style, apart from content: `talk` is the chance of an interjection before a case."""

    talk: float = 0.0
    openers: tuple[str, ...] = ("Suppose",)
    closers: tuple[str, ...] = ("Therefore",)


DIRECT = Manner()
TALKATIVE = Manner(0.4, ("Suppose", "Now assume", "Let us try"), ("Therefore", "So", "Hence"))
_INTERJECTIONS = ("Wait.", "Hmm.", "Let me see.")


def solution_text(
    puzzle: Puzzle,
    cases: Sequence[Case],
    answer: str,
    manner: Manner = DIRECT,
    rng: random.Random | None = None,
) -> str:
    """The search as prose, ending in the boxed `answer`. Without `rng`, always the first words of `manner`."""
    phrases = _Phrases(puzzle)
    lines = []
    for case in cases:
        interjection = f"{rng.choice(_INTERJECTIONS)} " if rng is not None and rng.random() < manner.talk else ""
        lines.append(interjection + phrases.case(case, _one_of(manner.openers, rng)))
    lines.append(f"{_one_of(manner.closers, rng)} \\boxed{{{' ' + answer}}}.")
    return "\n".join(lines)


class _Phrases:
    """The sentences of a puzzle's cases, made once: a solution has dozens of cases that differ in little."""

    def __init__(self, puzzle: Puzzle) -> None:
        self.roles = [(f"{name} is a knave", f"{name} is a knight") for name in puzzle.names]
        self.checks = [
            [f" {name} says {statement_text(statement, puzzle.names)}: {verdict}" for verdict in ("false", "true")]
            for name, statement in zip(puzzle.names, puzzle.statements, strict=True)
        ]

    def case(self, case: Case, opener: str) -> str:
        """One case: the assumption, each check with its verdict, and whether the assumption stands."""
        assumed = ", ".join([texts[role] for texts, role in zip(self.roles, case.roles, strict=True)])
        checked = ", fine.".join([texts[truth] for texts, truth in zip(self.checks, case.truths, strict=False)])
        return f"{opener} {assumed}.{checked}, {'fine' if case.accepted else 'contradiction'}."


def _one_of(options: Sequence[str], rng: random.Random | None) -> str:
    return options[0] if rng is None else rng.choice(options)

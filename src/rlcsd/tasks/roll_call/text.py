"""How a roll call and a worked solution of it read in English, and a question read back."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..knights_and_knaves import Atom, Statement, assignment_text
from ..knights_and_knaves.text import atom_text, statement_text
from .roll import Roll

INTERJECTIONS = ("Wait.", "Hmm.", "Let me see.")
_OPENERS = ("Suppose", "Now assume", "Let us try")
_CLOSERS = ("Therefore", "So", "Hence")
_QUESTION = re.compile(r"\A(?:Known: )(.+?)\. (.+) Who of the speakers is a knight and who is a knave\?\Z")
_CLAIM = re.compile(r"\A(\w+) is (not )?a (knight|knave)\Z")


@dataclass(frozen=True)
class Manner:
    """Style, apart from content.

    `worked` is the chance that a line looks its facts up before the verdict, `talk` that of an interjection before a
    line, and of an opening and a closing word other than the plain ones.
    """

    worked: float = 0.0
    talk: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What a line says of its statement: the roles as they were looked up, and the verdict."""

    roles: tuple[bool, ...]
    truth: bool


def judgements(roll: Roll) -> list[Judgement]:
    """Every line without a mistake."""
    return [Judgement(roll.roles, truth) for truth in roll.truths]


def slipped(roll: Roll, slip: float, rng: random.Random) -> list[Judgement]:
    """Lines with mistakes: a fact is misread with chance `slip`/2, and so is each verdict on top of that."""
    lines = []
    for statement in roll.statements:
        roles = list(roll.roles)
        for person in {part.person for part in statement.parts}:
            if rng.random() < slip / 2:
                roles[person] = not roles[person]
        truth = bool(statement.holds(roles)) != (rng.random() < slip / 2)
        lines.append(Judgement(tuple(roles), truth))
    return lines


def question_text(roll: Roll) -> str:
    told = " ".join(
        f"{name} says {statement_text(statement, roll.known)}."
        for name, statement in zip(roll.speakers, roll.statements, strict=True)
    )
    facts = assignment_text(roll.known, roll.roles)
    return f"Known: {facts}. {told} Who of the speakers is a knight and who is a knave?"


def answer_text(roll: Roll, truths: Sequence[bool]) -> str:
    return assignment_text(roll.speakers, truths)


def line_text(roll: Roll, speaker: int, judgement: Judgement, worked: bool) -> str:
    """`Emma says A or B; A, not B: true.`; a bare line leaves out what stands between `;` and `:`."""
    statement = roll.statements[speaker]
    people = dict.fromkeys(part.person for part in statement.parts)
    facts = ", ".join(atom_text(Atom(person, judgement.roles[person]), roll.known) for person in people)
    looked_up = f"; {facts}" if worked else ""
    verdict = "true" if judgement.truth else "false"
    return f"{roll.speakers[speaker]} says {statement_text(statement, roll.known)}{looked_up}: {verdict}."


def solution_text(
    roll: Roll, lines: Sequence[Judgement], manner: Manner = Manner(), rng: random.Random | None = None
) -> str:
    """The known roles, a line for each speaker, and the boxed answer that follows from the verdicts."""
    rng = rng or random.Random(0)
    talkative = manner.talk > 0
    text = f"{rng.choice(_OPENERS) if talkative else _OPENERS[0]} {assignment_text(roll.known, roll.roles)}."
    for speaker, judgement in enumerate(lines):
        text += f"\n{rng.choice(INTERJECTIONS)} " if rng.random() < manner.talk else " "
        text += line_text(roll, speaker, judgement, rng.random() < manner.worked)
    closer = rng.choice(_CLOSERS) if talkative else _CLOSERS[0]
    return f"{text}\n{closer} \\boxed{{ {answer_text(roll, [line.truth for line in lines])}}}."


def _claims(text: str, names: Sequence[str]) -> list[tuple[str, bool, bool]]:
    """(name, stated role, with "not") of each claim; ValueError if something else stands there."""
    found = []
    for part in re.split(r" and | or |, ", text):
        match = _CLAIM.match(part)
        if match is None or (names and match[1] not in names):
            raise ValueError(part)
        found.append((match[1], match[3] == "knight", match[2] is not None))
    return found


def _statement(text: str, known: Sequence[str]) -> Statement:
    claims = _claims(text, known)
    atoms = tuple(Atom(known.index(name), role) for name, role, _ in claims)
    if len(claims) == 1:
        return Statement("not" if claims[0][2] else "atom", atoms)
    return Statement("and" if " and " in text else "or", atoms)


def parse_question(text: str) -> Roll:
    """The roll call that `question_text` wrote.

    Raises:
        ValueError: `text` is no such question.
    """
    match = _QUESTION.match(text)
    if match is None:
        raise ValueError(f"no roll call: {text[:60]!r}")
    facts = _claims(match[1], ())
    known = tuple(name for name, _, _ in facts)
    told = [sentence.partition(" says ") for sentence in match[2].removesuffix(".").split(". ")]
    return Roll(
        known,
        tuple(role for _, role, _ in facts),
        tuple(speaker for speaker, _, _ in told),
        tuple(_statement(claim, known) for _, _, claim in told),
    )

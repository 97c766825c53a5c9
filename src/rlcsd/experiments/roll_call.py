"""Roll calls: the roles of a few people are known, and every speaker makes one statement about them.

A speaker is a knight exactly if the statement is true, so each speaker is a decision of its own: no decision depends
on another. That is what makes credit measurable token by token.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import InputError
from ..tasks.knights_and_knaves import FORMS, NAMES, Atom, Statement, assignment_text
from ..tasks.knights_and_knaves.puzzle_data import Split
from ..tasks.knights_and_knaves.puzzle_text import atom_text, statement_text
from ..tasks.knights_and_knaves.puzzles import truth_table
from ..tasks.task import Problem

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


# ------------------------------------------------------------------ text
# How a roll call and a worked solution of it read in English, and a question read back.

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


def roll_call_question(roll: Roll) -> str:
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


def roll_call_solution(
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


# ------------------------------------------------------------------ data
# Splits of roll calls that share no canonical form.

ROLL_CALL_FORMS = ("atom", "not", "and", "or")
_MAX_REJECTIONS = 4000  # draws in a row without a new roll call before the supply counts as exhausted


@dataclass(frozen=True)
class Supply:
    """What a roll call is made of, apart from the number of its speakers.

    `worked` is the share of worked lines in the solutions that the data set gives.
    """

    names: tuple[str, ...] = NAMES[:8]
    known: int = 3
    forms: tuple[str, ...] = ROLL_CALL_FORMS
    worked: float = 0.0

    def __post_init__(self) -> None:
        if not self.forms or set(self.forms) - set(ROLL_CALL_FORMS):
            raise InputError(f"task.forms={list(self.forms)}: every form must be one of {', '.join(ROLL_CALL_FORMS)}")


def split_of(roll: Roll) -> Split:
    """80 % train, 10 % val, 10 % test: a function of the canonical form alone, whoever draws with whatever seed."""
    bucket = int(canonical_form(roll)[:8], 16) % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def to_problem(roll: Roll, supply: Supply) -> Problem:
    question = roll_call_question(roll)
    solution = roll_call_solution(roll, judgements(roll), Manner(worked=supply.worked), random.Random(question))
    return Problem(
        question=question,
        answer=answer_text(roll, roll.truths),
        solution=solution,
        group=f"{len(roll.speakers)} speakers",
        extra={"size": len(roll.speakers), "form": canonical_form(roll)},
    )


def _draw_size(size: int, count: int, split: Split, supply: Supply, seed: int) -> list[Problem]:
    rng = random.Random(f"roll call/{seed}/{split}/{size}/{supply.known}")
    problems: list[Problem] = []
    seen: set[str] = set()
    rejections = 0
    while len(problems) < count:
        roll = draw_roll(rng, size, supply.names, supply.known, supply.forms)
        if split_of(roll) != split or (form := canonical_form(roll)) in seen:
            rejections += 1
            if rejections > _MAX_REJECTIONS:
                raise InputError(
                    f"task: only {len(problems)} essentially different roll calls of {size} speakers were found for "
                    f"{split!r} where {count} were asked for; ask for fewer, or for more speakers or known people"
                )
            continue
        rejections = 0
        seen.add(form)
        problems.append(to_problem(roll, supply))
    return problems


def draw_problems(sizes: Iterable[int], per_size: int, split: Split, supply: Supply, seed: int = 0) -> list[Problem]:
    """`per_size` problems for each number of speakers, no two of the same canonical form.

    Raises:
        InputError: there are not that many roll calls of some size.
    """
    wanted: Sequence[int] = list(dict.fromkeys(sizes))
    return [problem for size in wanted for problem in _draw_size(size, per_size, split, supply, seed)]

"""The roll call task: the roles of a few people are known, and every speaker makes one statement about them.

A speaker is a knight exactly if the statement is true, so an answer is as many independent decisions as there are
speakers, and each token that ends a decision can be labelled right or wrong (`decision_labels`). Our studies use the
task to measure token-level credit. Question, worked solution and response share one grammar, written and parsed here.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from pydantic import Field

from ..errors import InputError
from ..metrics import Mean, Metrics
from ..tasks.knights_and_knaves import NAMES, Atom, Statement, assignment_text
from ..tasks.knights_and_knaves.puzzle_data import Split
from ..tasks.knights_and_knaves.puzzle_text import atom_text, statement_text
from ..tasks.knights_and_knaves.puzzles import truth_table
from ..tasks.registry import TaskParameters
from ..tasks.task import Problem, Task

FORMS = ("atom", "not", "and", "or")
INTERJECTIONS = ("Wait.", "Hmm.", "Let me see.")
_OPENERS = ("Suppose", "Now assume", "Let us try")
_CLOSERS = ("Therefore", "So", "Hence")
_MAX_KNOWN = 6  # the canonical form tries every order of the known people
_MAX_REJECTIONS = 4000  # draws in a row without a new roll call before there are taken to be no more

_QUESTION = re.compile(r"\A(?:Known: )(.+?)\. (.+) Who of the speakers is a knight and who is a knave\?\Z")
_QUESTION_CLAIM = re.compile(r"\A(\w+) is (not )?a (knight|knave)\Z")
_LINE = re.compile(r"(\w+) says ([^.;:\n]+)(;[^.:\n]*)?: (true|false)\.")
CLAIM = re.compile(r"(\w+) is a (knight|knave)")


@dataclass(frozen=True)
class RollCall:
    """`roles[i]` (True: knight) is the role of `known[i]`; `speakers[j]` makes `statements[j]` about the known."""

    known: tuple[str, ...]
    roles: tuple[bool, ...]
    speakers: tuple[str, ...]
    statements: tuple[Statement, ...]

    @property
    def truths(self) -> tuple[bool, ...]:
        """Whether each statement is true, and so whether its speaker is a knight."""
        return tuple(bool(statement.holds(self.roles)) for statement in self.statements)


@lru_cache(maxsize=65536)  # there are few distinct statements, and each is looked up once per order of the known
def _statement_form(statement: Statement, position: tuple[int, ...]) -> str:
    """Key of a statement when person i stands at `position[i]`: the people that matter, in order, and its truth."""
    people, table = truth_table(statement)
    order = sorted(range(len(people)), key=lambda part: position[people[part]])
    if len(people) == 2 and order == [1, 0]:  # swapping two people swaps the middle entries of the table
        table = table[0] + table[2] + table[1] + table[3]
    return f"{','.join(str(position[people[part]]) for part in order)}:{table}"


def canonical_form(roll: RollCall) -> str:
    """Key that two roll calls share exactly if renaming people and reordering speakers turns one into the other.

    Statements count by their truth tables, so wording makes no difference.
    """
    forms = []
    for order in itertools.permutations(range(len(roll.known))):
        position = tuple(order.index(person) for person in range(len(order)))
        roles = "".join("1" if roll.roles[person] else "0" for person in order)
        forms.append(f"{roles}|{' '.join(sorted(_statement_form(one, position) for one in roll.statements))}")
    return hashlib.blake2b(min(forms).encode(), digest_size=12).hexdigest()


def draw_roll(
    rng: random.Random, speakers: int, names: Sequence[str], known: int = 3, forms: Sequence[str] = FORMS
) -> RollCall:
    """A random roll call; statements of two claims are about two people.

    Raises:
        InputError: fewer names than people, fewer than 2 or more than 6 known people, or no speaker.
    """
    if not 2 <= known <= _MAX_KNOWN:
        raise InputError(f"task.known={known}: must be from 2 to {_MAX_KNOWN}")
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
    return RollCall(tuple(people[:known]), roles, tuple(people[known:]), tuple(statements))


# Text of questions and solutions


@dataclass(frozen=True)
class Style:
    """How a solution is written, whatever it says.

    `worked` is the probability that a line looks its facts up before the verdict. `talk` is the probability of an
    interjection before a line; above 0, opening and closing words vary as well.
    """

    worked: float = 0.0
    talk: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What a line says of its statement: the roles of the known people as looked up, and the verdict."""

    roles: tuple[bool, ...]
    truth: bool


def correct_judgements(roll: RollCall) -> list[Judgement]:
    """One judgement per speaker, without mistakes."""
    return [Judgement(roll.roles, truth) for truth in roll.truths]


def judgements_with_slips(roll: RollCall, slip: float, rng: random.Random) -> list[Judgement]:
    """One judgement per speaker; each fact is misread with probability `slip` / 2, and then each verdict as well."""
    lines = []
    for statement in roll.statements:
        roles = list(roll.roles)
        for person in {part.person for part in statement.parts}:
            if rng.random() < slip / 2:
                roles[person] = not roles[person]
        truth = bool(statement.holds(roles)) != (rng.random() < slip / 2)
        lines.append(Judgement(tuple(roles), truth))
    return lines


def roll_call_question(roll: RollCall) -> str:
    statements = " ".join(
        f"{name} says {statement_text(statement, roll.known)}."
        for name, statement in zip(roll.speakers, roll.statements, strict=True)
    )
    facts = assignment_text(roll.known, roll.roles)
    return f"Known: {facts}. {statements} Who of the speakers is a knight and who is a knave?"


def answer_text(roll: RollCall, truths: Sequence[bool]) -> str:
    return assignment_text(roll.speakers, truths)


def _line_text(roll: RollCall, speaker: int, judgement: Judgement, worked: bool) -> str:
    """`Emma says A or B; A, not B: true.`, or without the facts between `;` and `:` if the line is not worked."""
    statement = roll.statements[speaker]
    people = dict.fromkeys(part.person for part in statement.parts)
    facts = ", ".join(atom_text(Atom(person, judgement.roles[person]), roll.known) for person in people)
    looked_up = f"; {facts}" if worked else ""
    verdict = "true" if judgement.truth else "false"
    return f"{roll.speakers[speaker]} says {statement_text(statement, roll.known)}{looked_up}: {verdict}."


def roll_call_solution(
    roll: RollCall, lines: Sequence[Judgement], style: Style = Style(), rng: random.Random | None = None
) -> str:
    """The known roles, one line per speaker, and the boxed answer that follows from the verdicts of the lines."""
    rng = rng or random.Random(0)
    varied = style.talk > 0
    text = f"{rng.choice(_OPENERS) if varied else _OPENERS[0]} {assignment_text(roll.known, roll.roles)}."
    for speaker, judgement in enumerate(lines):
        text += f"\n{rng.choice(INTERJECTIONS)} " if rng.random() < style.talk else " "
        text += _line_text(roll, speaker, judgement, rng.random() < style.worked)
    closer = rng.choice(_CLOSERS) if varied else _CLOSERS[0]
    return f"{text}\n{closer} \\boxed{{ {answer_text(roll, [line.truth for line in lines])}}}."


# Reading questions and responses back


def _claims(text: str, names: Sequence[str]) -> list[tuple[str, bool, bool]]:
    """(name, stated role, with "not") of each claim in `text`; ValueError if anything else stands there."""
    found = []
    for part in re.split(r" and | or |, ", text):
        match = _QUESTION_CLAIM.match(part)
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


def parse_question(text: str) -> RollCall:
    """The roll call that `roll_call_question` wrote.

    Raises:
        ValueError: `text` is not such a question.
    """
    match = _QUESTION.match(text)
    if match is None:
        raise ValueError(f"no roll call: {text[:60]!r}")
    facts = _claims(match[1], ())
    known = tuple(name for name, _, _ in facts)
    statements = [sentence.partition(" says ") for sentence in match[2].removesuffix(".").split(". ")]
    return RollCall(
        known,
        tuple(role for _, role, _ in facts),
        tuple(speaker for speaker, _, _ in statements),
        tuple(_statement(claim, known) for _, _, claim in statements),
    )


@dataclass(frozen=True)
class Line:
    """One line of a response.

    `right` tells whether its verdict is right (None: nobody of that name speaks), `end` is the character after the
    verdict, and `facts` has for each role that a worked line looks up whether it is right and the character after it.
    """

    speaker: str
    verdict: bool
    right: bool | None
    worked: bool
    end: int
    facts: tuple[tuple[bool, int], ...]


@dataclass(frozen=True)
class Reading:
    """The lines of a response and the number of its interjections."""

    lines: tuple[Line, ...]
    interjections: int


def read_response(roll: RollCall, text: str) -> Reading:
    """Find the lines and interjections of a response to `roll`."""
    truths = dict(zip(roll.speakers, roll.truths, strict=True))
    roles = dict(zip(roll.known, roll.roles, strict=True))
    lines = []
    for match in _LINE.finditer(text):
        facts: tuple[tuple[bool, int], ...] = ()
        if match[3] is not None:
            facts = tuple(
                (roles.get(claim[1]) == (claim[2] == "knight"), claim.end())
                for claim in CLAIM.finditer(text, *match.span(3))
            )
        truth, verdict = truths.get(match[1]), match[4] == "true"
        right = None if truth is None else truth == verdict
        lines.append(Line(match[1], verdict, right, match[3] is not None, match.end(4), facts))
    return Reading(tuple(lines), sum(text.count(word) for word in INTERJECTIONS))


def style_metrics(problem: Problem, text: str) -> Metrics:
    """Right verdicts, worked lines and interjections of a response, each per line (the task's `figures`)."""
    reading = read_response(parse_question(problem.question), text)
    lines = len(reading.lines)
    counts = {
        "style/right_verdicts": sum(bool(line.right) for line in reading.lines),
        "style/worked": sum(line.worked for line in reading.lines),
        "style/interjections": reading.interjections,
    }
    return {name: Mean(count / max(lines, 1), lines) for name, count in counts.items()}


# Problems, splits and the task


@dataclass(frozen=True)
class RollCallSettings:
    """What roll calls are drawn from, apart from the number of speakers.

    `worked` is the share of worked lines in the solutions of the data set.

    Raises:
        InputError: no form of statements, or an unknown one.
    """

    names: tuple[str, ...] = NAMES[:8]
    known: int = 3
    forms: tuple[str, ...] = FORMS
    worked: float = 0.0

    def __post_init__(self) -> None:
        if not self.forms or set(self.forms) - set(FORMS):
            raise InputError(f"task.forms={list(self.forms)}: every form must be one of {', '.join(FORMS)}")


def split_of(roll: RollCall) -> Split:
    """80 % train, 10 % val, 10 % test; depends on the canonical form alone, so splits are disjoint for all seeds."""
    bucket = int(canonical_form(roll)[:8], 16) % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def _to_problem(roll: RollCall, settings: RollCallSettings) -> Problem:
    question = roll_call_question(roll)
    style, rng = Style(worked=settings.worked), random.Random(question)
    return Problem(
        question=question,
        answer=answer_text(roll, roll.truths),
        solution=roll_call_solution(roll, correct_judgements(roll), style, rng),
        group=f"{len(roll.speakers)} speakers",
        extra={"size": len(roll.speakers), "form": canonical_form(roll)},
    )


def _draw_size(size: int, count: int, split: Split, settings: RollCallSettings, seed: int) -> list[Problem]:
    rng = random.Random(f"roll call/{seed}/{split}/{size}/{settings.known}")
    problems: list[Problem] = []
    seen: set[str] = set()
    rejections = 0
    while len(problems) < count:
        roll = draw_roll(rng, size, settings.names, settings.known, settings.forms)
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
        problems.append(_to_problem(roll, settings))
    return problems


def draw_problems(
    sizes: Iterable[int], per_size: int, split: Split, settings: RollCallSettings, seed: int = 0
) -> list[Problem]:
    """`per_size` problems for each number of speakers, no two of the same canonical form.

    Raises:
        InputError: there are not that many roll calls of some size.
    """
    distinct = dict.fromkeys(sizes)
    return [problem for size in distinct for problem in _draw_size(size, per_size, split, settings, seed)]


class RollCallParameters(TaskParameters):
    """Roll calls drawn when the run starts; those with `unseen_known` known people are never trained on."""

    train_sizes: list[int] = Field([5], description="speakers per roll call in the training set")
    known: int = Field(3, description="people whose roles the question gives, from 2 to 6")
    unseen_sizes: list[int] = Field([4], description="speakers per roll call in the evaluation set of another kind")
    unseen_known: int = Field(4, description="people whose roles are given in that set")
    train_per_size: int = Field(2048, ge=1, description="training roll calls of each size")
    eval_per_size: int = Field(100, ge=1, description="evaluation roll calls of each size")
    eval_split: Literal["val", "test"] = Field("val", description="split that evaluation roll calls are drawn from")
    forms: list[str] = Field(list(FORMS), description="forms of statements: " + ", ".join(FORMS))
    people: int = Field(8, ge=3, le=len(NAMES), description="how many of the names are used")
    worked: float = Field(0.0, ge=0, le=1, description="share of worked lines in the solutions of the data set")
    seed: int = Field(0, ge=0, description="seed of the roll calls")


def roll_call_task(p: RollCallParameters) -> Task:
    """Build the task of a config (`task=roll_call`).

    Raises:
        InputError: the unseen sizes are among the training sizes, or there are too few roll calls of a size.
    """
    if p.known == p.unseen_known and (overlap := sorted(set(p.train_sizes) & set(p.unseen_sizes))):
        raise InputError(f"task.unseen_sizes={p.unseen_sizes}: {overlap[0]} is a training size as well")
    settings = RollCallSettings(NAMES[: p.people], p.known, tuple(p.forms), p.worked)
    other = replace(settings, known=p.unseen_known)
    evaluations = {"seen_sizes": draw_problems(p.train_sizes, p.eval_per_size, p.eval_split, settings, p.seed)}
    if p.unseen_sizes:
        evaluations["unseen_sizes"] = draw_problems(p.unseen_sizes, p.eval_per_size, p.eval_split, other, p.seed)
    train = draw_problems(p.train_sizes, p.train_per_size, "train", settings, p.seed)
    return p.task(train, evaluations, "knights_and_knaves", style_metrics)

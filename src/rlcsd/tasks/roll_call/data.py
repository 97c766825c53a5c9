"""Splits of roll calls that share no canonical form."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import InputError
from ..base import Problem
from ..knights_and_knaves import NAMES
from ..knights_and_knaves.data import Split
from .roll import Roll, canonical_form, draw_roll
from .text import Manner, answer_text, judgements, question_text, solution_text

FORMS = ("atom", "not", "and", "or")
_MAX_REJECTIONS = 4000  # draws in a row without a new roll call before the supply counts as exhausted


@dataclass(frozen=True)
class Supply:
    """What a roll call is made of, apart from the number of its speakers.

    `worked` is the share of worked lines in the solutions that the data set gives.
    """

    names: tuple[str, ...] = NAMES[:8]
    known: int = 3
    forms: tuple[str, ...] = FORMS
    worked: float = 0.0

    def __post_init__(self) -> None:
        if not self.forms or set(self.forms) - set(FORMS):
            raise InputError(f"task.forms={list(self.forms)}: every form must be one of {', '.join(FORMS)}")


def split_of(roll: Roll) -> Split:
    """80 % train, 10 % val, 10 % test: a function of the canonical form alone, whoever draws with whatever seed."""
    bucket = int(canonical_form(roll)[:8], 16) % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def to_problem(roll: Roll, supply: Supply) -> Problem:
    question = question_text(roll)
    solution = solution_text(roll, judgements(roll), Manner(worked=supply.worked), random.Random(question))
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

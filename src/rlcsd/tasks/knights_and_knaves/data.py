"""Splits of puzzles that share no canonical form, reproducible from a seed and in parallel."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ...errors import InputError
from ..base import Problem
from .puzzle import FORMS, Puzzle, canonical_form, draw_puzzle
from .solution import DIRECT, search, solution_text
from .text import NAMES, answer_text, assignment_text, puzzle_text

Split = Literal["train", "val", "test"]
_MAX_REJECTIONS = 4000  # draws in a row without a new puzzle before the supply counts as exhausted


@dataclass(frozen=True)
class Recipe:
    """What a puzzle is made of, apart from its size."""

    forms: tuple[str, ...] = FORMS
    names: tuple[str, ...] = NAMES
    wording: str = "varied"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.forms) - set(FORMS))
        if unknown or not self.forms:
            raise InputError(f"task.forms={list(self.forms)}: every form must be one of {', '.join(FORMS)}")
        if self.wording not in ("varied", "plain"):
            raise InputError(f"task.wording={self.wording}: must be varied or plain")


def split_of(puzzle: Puzzle) -> Split:
    """The split a puzzle belongs to, a function of its canonical form alone: 80 % train, 10 % val, 10 % test.

    Whoever generates puzzles anywhere, with any seed, can therefore never leak one into another split.
    """
    bucket = int(canonical_form(puzzle.statements)[:8], 16) % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def to_problem(puzzle: Puzzle, roles: Sequence[bool], recipe: Recipe, rng: random.Random) -> Problem:
    cases = search(puzzle)
    assert cases is not None and cases[-1].roles == tuple(roles), "a search without slips finds the unique solution"
    answer = (answer_text if recipe.wording == "varied" else assignment_text)(puzzle.names, roles)
    return Problem(
        question=puzzle_text(puzzle, recipe.wording, rng),
        answer=answer,
        solution=solution_text(puzzle, cases, answer, DIRECT),
        group=f"{puzzle.size} people",
        extra={"size": puzzle.size, "form": canonical_form(puzzle.statements)},
    )


def _draw_size(size: int, count: int, split: Split, recipe: Recipe, seed: int) -> list[Problem]:
    rng = random.Random(f"{seed}/{split}/{size}")
    problems: list[Problem] = []
    seen: set[str] = set()
    rejections = 0
    while len(problems) < count:
        puzzle, roles = draw_puzzle(rng, size, recipe.names, recipe.forms)
        if split_of(puzzle) != split or (form := canonical_form(puzzle.statements)) in seen:
            rejections += 1
            if rejections > _MAX_REJECTIONS:
                raise InputError(
                    f"task: only {len(problems)} essentially different puzzles of {size} people were found for "
                    f"{split!r} where {count} were asked for; ask for fewer, for more people or for more forms"
                )
            continue
        rejections = 0
        seen.add(form)
        problems.append(to_problem(puzzle, roles, recipe, rng))
    return problems


def draw_problems(
    sizes: Iterable[int], per_size: int, split: Split, recipe: Recipe, seed: int = 0, processes: int = 1
) -> list[Problem]:
    """`per_size` problems for each size, no two of the same canonical form; independent of `processes`.

    Raises:
        InputError: the grammar does not have that many puzzles of some size.
    """
    draw = partial(_draw_size, count=per_size, split=split, recipe=recipe, seed=seed)
    sizes = list(dict.fromkeys(sizes))
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            drawn = list(pool.map(draw, sizes))
    else:
        drawn = [draw(size) for size in sizes]
    return [problem for problems in drawn for problem in problems]

"""Knights & Knaves as data: problems in splits that share no puzzle, the task, and data sets on disk."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from ...errors import InputError
from ...storage import check_new_folder
from ..cells import Row
from ..parquet_layout import is_published, read_task_sets, sources_in_use, to_rows
from ..registry import TaskParameters, register
from ..tabular import write_dataset
from ..task import Problem, Task
from .puzzle_text import DIRECT, NAMES, answer_text, assignment_text, puzzle_text, search, solution_text
from .puzzles import FORMS, Puzzle, canonical_form, draw_puzzle

Split = Literal["train", "val", "test"]
_SCARCE = 3  # people: of puzzles of so few there are only thousands
_PREVIEWED = 16  # puzzles of each size that a plan draws
_MAX_REJECTIONS = 4000  # draws in a row without a new puzzle before the supply counts as exhausted


# ------------------------------------------------------------------ problems


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
    return _split_of_form(canonical_form(puzzle.statements))


def _split_of_form(form: str) -> Split:
    bucket = int(form[:8], 16) % 10
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def draw_problems(
    sizes: Iterable[int], per_size: int, split: Split, recipe: Recipe, seed: int = 0, processes: int = 1
) -> list[Problem]:
    """`per_size` problems for each size, no two of the same canonical form; the same for any number of `processes`.

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


def _draw_size(size: int, count: int, split: Split, recipe: Recipe, seed: int) -> list[Problem]:
    rng = random.Random(f"{seed}/{split}/{size}")
    problems: list[Problem] = []
    seen: set[str] = set()
    rejections = 0
    while len(problems) < count:
        puzzle, roles = draw_puzzle(rng, size, recipe.names, recipe.forms)
        form = canonical_form(puzzle.statements)
        if _split_of_form(form) != split or form in seen:
            rejections += 1
            if rejections > _MAX_REJECTIONS:
                raise InputError(
                    f"task: only {len(problems)} essentially different puzzles of {size} people were found for "
                    f"{split!r} where {count} were asked for; ask for fewer, for more people or for more forms"
                )
            continue
        rejections = 0
        seen.add(form)
        problems.append(_problem(puzzle, roles, form, recipe, rng))
    return problems


def _problem(puzzle: Puzzle, roles: Sequence[bool], form: str, recipe: Recipe, rng: random.Random) -> Problem:
    cases = search(puzzle)
    assert cases is not None and cases[-1].roles == tuple(roles), "a search without slips finds the unique solution"
    answer = (answer_text if recipe.wording == "varied" else assignment_text)(puzzle.names, roles)
    return Problem(
        question=puzzle_text(puzzle, recipe.wording, rng),
        answer=answer,
        solution=solution_text(puzzle, cases, answer, DIRECT),
        group=f"{puzzle.size} people",
        extra={"size": puzzle.size, "form": form},
    )


# ------------------------------------------------------------------ the task


class KnightsAndKnavesParameters(TaskParameters):
    """Puzzles drawn on the spot; `unseen_sizes` are evaluated but never trained on."""

    train_sizes: list[int] = Field([3], min_length=1, description="people per puzzle in the training set")
    unseen_sizes: list[int] = Field(
        [], description="people per puzzle in an evaluation set of sizes that are never trained on"
    )
    train_per_size: int = Field(512, ge=1, description="training puzzles of each size")
    eval_per_size: int = Field(100, ge=1, description="evaluation puzzles of each size")
    eval_split: Literal["val", "test"] = Field("val", description="split that evaluation puzzles are drawn from")
    forms: list[str] = Field(list(FORMS), description="forms of statements: " + ", ".join(FORMS))
    people: int = Field(len(NAMES), ge=2, le=len(NAMES), description="how many of the names are used")
    wording: Literal["varied", "plain"] = Field("varied", description="several ways to put a statement, or one")
    seed: int = Field(0, ge=0, description="seed of the puzzles")
    processes: int = Field(1, ge=1, description="processes that draw puzzles")
    published: str | None = Field(
        None, description="folder of data sets: where the published puzzles of these sizes are there, they are used"
    )

    def preview(self, least: int) -> tuple[Self, dict[str, int]] | None:
        """Fewer puzzles of each size, unless there are sizes of which the puzzles may run out."""
        sizes = [*self.train_sizes, *self.unseen_sizes]
        if min(sizes) <= _SCARCE or self.uses_published():
            return None
        trained = len(set(self.train_sizes))
        some = max(_PREVIEWED, -(-least // trained))
        fewer = {"train_per_size": min(self.train_per_size, some), "eval_per_size": min(self.eval_per_size, _PREVIEWED)}
        sets = {name: len(set(people)) * self.eval_per_size for name, people in self.evaluation_sizes().items()}
        return self.model_copy(update=fewer), {"train": trained * self.train_per_size, **sets}

    def evaluation_sizes(self) -> dict[str, list[int]]:
        """People per puzzle in each evaluation set.

        Where published puzzles are used if they are there, the sets are theirs: an average counts each set alike.
        """
        if self.published is not None:
            return published_sets(self.train_sizes, self.unseen_sizes)
        return {"seen_sizes": self.train_sizes, **({"unseen_sizes": self.unseen_sizes} if self.unseen_sizes else {})}

    def uses_published(self) -> bool:
        return self.published is not None and is_published(Path(self.published) / range_name(self.train_sizes))


def knights_and_knaves(p: KnightsAndKnavesParameters) -> Task:
    """The published puzzles if they are there, else puzzles drawn now.

    Raises:
        InputError: a size out of range or both trained on and called unseen, or too few puzzles of some size.
    """
    name = range_name(p.train_sizes)
    if p.published is not None and p.uses_published():
        sets = "+".join(p.evaluation_sizes())
        source = sources_in_use(p.published, name, sets)
        return p.task(*read_task_sets(p.published, name, sets), "knights_and_knaves", source=source)
    overlap = sorted(set(p.train_sizes) & set(p.unseen_sizes))
    if overlap:
        raise InputError(f"task.unseen_sizes={p.unseen_sizes}: {overlap[0]} is a training size as well")
    for size in (*p.train_sizes, *p.unseen_sizes):
        if not 2 <= size <= p.people:
            raise InputError(f"task: a puzzle of {size} people needs a size from 2 to people={p.people}")
    recipe = Recipe(tuple(p.forms), NAMES[: p.people], p.wording)
    draw = partial(draw_problems, recipe=recipe, seed=p.seed, processes=p.processes)
    evaluations = {name: draw(sizes, p.eval_per_size, p.eval_split) for name, sizes in p.evaluation_sizes().items()}
    return p.task(draw(p.train_sizes, p.train_per_size, "train"), evaluations, "knights_and_knaves")


register("knights_and_knaves", KnightsAndKnavesParameters, knights_and_knaves)


# ------------------------------------------------------------------ data sets on disk


@dataclass(frozen=True)
class PuzzleRequest:
    """How many puzzles of which sizes `rlcsd data kk` writes; `unseen` sizes go to the test split alone."""

    sizes: Sequence[int]
    unseen: Sequence[int]
    train: int
    test: int
    wording: str = "varied"
    seed: int = 0
    processes: int = 1

    def draw(self, sizes: Sequence[int], count: int, split: Split) -> list[Problem]:
        return draw_problems(sizes, count, split, Recipe(wording=self.wording), self.seed, self.processes)

    @property
    def facts(self) -> list[str]:
        """The lines of the card on where the puzzles come from."""
        return [
            f"Source: generated by `rlcsd data kk`; {self.wording} wording; seed {self.seed}.",
            f"Sizes {', '.join(map(str, self.sizes))}; unseen sizes {', '.join(map(str, self.unseen)) or 'none'}.",
            "Every puzzle has exactly one solution, proven by exhaustion. Splits share no canonical form.",
        ]


def range_name(sizes: Sequence[int]) -> str:
    """`kk_4to8` for 4, 5, 6, 7, 8; `kk_4_6` for 4, 6; `kk_9` for 9 alone."""
    ordered = sorted(set(sizes))
    if len(ordered) > 1 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"kk_{ordered[0]}to{ordered[-1]}"
    return "kk_" + "_".join(map(str, ordered))


def published_sets(sizes: Sequence[int], unseen: Sequence[int]) -> dict[str, list[int]]:
    """People per puzzle in each evaluation set of the published layout: one of all trained sizes, one of each other."""
    return {f"{range_name(sizes)}_test": list(sizes), **{range_name([size]): [size] for size in unseen}}


def build_splits(out: Path, request: PuzzleRequest) -> str:
    """Write `train.jsonl`, `val.jsonl`, `test.jsonl` and a card to `out`, all or nothing; returns the card.

    Raises:
        InputError: the grammar has too few puzzles of some size, or `out` cannot be written.
    """
    check_new_folder(out)  # before the drawing, which takes a while
    splits = {
        "train": request.draw(request.sizes, request.train, "train"),
        "val": request.draw(request.sizes, request.test, "val"),
        "test": request.draw([*request.sizes, *request.unseen], request.test, "test"),
    }
    files = {f"{name}.jsonl": [_line(problem) for problem in problems] for name, problems in splits.items()}
    return write_dataset(out, "Knights & Knaves", files, request.facts)


def _line(problem: Problem) -> Row:
    """A problem as a row of a plain table, readable as `task=files`."""
    fields = {name: getattr(problem, name) for name in ("question", "answer", "solution", "group")}
    return {**fields, **problem.extra}


def build_layout(root: Path, request: PuzzleRequest) -> list[str]:
    """Write the published layout.

    That is `<root>/kk_4to8/train.parquet` and `<root>/kk_4to8_test+kk_9+kk_10+kk_11/val.parquet`.

    Returns the two cards. Raises as `build_splits`.
    """
    name = range_name(request.sizes)
    sets = published_sets(request.sizes, request.unseen)
    for folder in (name, "+".join(sets)):
        check_new_folder(root / folder)  # both, before either is made
    train = to_rows(request.draw(request.sizes, request.train, "train"), name, "logic", "train")
    tests = [
        row
        for source, sizes in sets.items()
        for row in to_rows(request.draw(sizes, request.test, "test"), source, "logic", "test")
    ]
    return [
        write_dataset(root / name, name, {"train.parquet": train}, request.facts),
        write_dataset(root / "+".join(sets), "+".join(sets), {"val.parquet": tests}, request.facts),
    ]

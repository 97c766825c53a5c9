"""The math data: DeepMath-103K by difficulty band to train on, AMC23, AIME24 and AIME25 to evaluate on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .cells import Row, checked_problem
from .parquet_layout import to_rows
from .tabular import read_rows, write_dataset
from .task import Problem

DEEPMATH = "hub:zwhe99/DeepMath-103K"
BANDS = ("5_7", "6_8", "7_10")  # Qwen3-1.7B, Qwen3-4B, Qwen3-8B and Olmo-3-7B-Think
COMPETITIONS = {
    "amc23": "hub:math-ai/amc23:test",
    "aime24": "hub:HuggingFaceH4/aime_2024:train",
    "aime25": "hub:math-ai/aime25:test",
}
_QUESTIONS, _ANSWERS = ("problem", "question"), ("answer", "final_answer")


def parse_band(text: str) -> tuple[float, float]:
    """`5_7` → (5, 7), both inclusive. Raises InputError if it is not two numbers in order."""
    band = re.fullmatch(r"(\d+(?:\.\d+)?)[_-](\d+(?:\.\d+)?)", text)
    if not band or float(band[1]) > float(band[2]):
        raise InputError(f"--band {text}: a difficulty band reads LOW_HIGH; published are {', '.join(BANDS)}")
    return float(band[1]), float(band[2])


def _column(field: str, row: Row, names: Sequence[str]) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise InputError(f"{field}: there is no column {' or '.join(map(repr, names))}; it has {', '.join(map(str, row))}")


def deepmath_problems(source: str, band: tuple[float, float]) -> tuple[list[Problem], Mapping[str, int]]:
    """DeepMath's problems with `low <= difficulty <= high`, and how many rows each filter took.

    The worked solution is the first of `r1_solution_1..3` that is there.

    Raises:
        InputError: the source cannot be read, or is not of DeepMath's columns.
    """
    rows = read_rows("--source", source)
    problems = []
    dropped = {"outside the band": 0, "without question or answer": 0}
    for number, row in enumerate(rows):
        where = f"--source={source}: row {number}"
        difficulty = _column(where, row, ["difficulty"])
        if not isinstance(difficulty, int | float):
            raise InputError(f"--source={source}: the difficulty of row {number} must be a number, not {difficulty!r}")
        if not band[0] <= difficulty <= band[1]:
            dropped["outside the band"] += 1
            continue
        question = _column(where, row, ["question"])
        answer = _column(where, row, ["final_answer"])
        if not str(question or "").strip() or not str("" if answer is None else answer).strip():
            dropped["without question or answer"] += 1
            continue
        solution = next((row[f"r1_solution_{i}"] for i in (1, 2, 3) if row.get(f"r1_solution_{i}")), None)
        problem = checked_problem(where, question, answer, solution)
        problems.append(replace(problem, extra={"difficulty": float(difficulty), "topic": str(row.get("topic", ""))}))
    if not problems:
        raise InputError(
            f"--source={source}: none of its {len(rows)} problems has a difficulty from {band[0]:g} to {band[1]:g}"
        )
    return problems, dropped


def build_deepmath(root: Path, band: str, source: str = DEEPMATH) -> str:
    """Write `<root>/deepmath_filtered_level<band>/train.parquet` with its card, which is returned.

    Raises:
        InputError: a malformed band, a source that cannot be read, or a folder that cannot be written.
    """
    low, high = parse_band(band)
    name = f"deepmath_filtered_level{low:g}_{high:g}"
    problems, dropped = deepmath_problems(source, (low, high))
    facts = [
        f"Source: {source}; solutions are its r1_solution columns.",
        f"Filter: difficulty from {low:g} to {high:g}, both included; "
        + ", ".join(f"{count} {why}" for why, count in dropped.items())
        + ".",
    ]
    return write_dataset(root / name, name, {"train.parquet": to_rows(problems, name, "math", "train")}, facts)


def competition_problems(name: str, source: str) -> list[Problem]:
    """The problems of one competition set.

    Raises InputError if it cannot be read or lacks a question or answer column.
    """
    problems = []
    for number, row in enumerate(read_rows(name, source)):
        where = f"{name}={source}: row {number}"
        answer = _column(where, row, _ANSWERS)
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)  # 27.0 in the file is the integer 27
        problems.append(checked_problem(where, _column(where, row, _QUESTIONS), answer, row.get("solution")))
    if not problems:
        raise InputError(f"{name}={source}: there are no problems in it")
    return problems


def build_competitions(root: Path, sources: Mapping[str, str] = COMPETITIONS) -> str:
    """Write `<root>/amc23+aime24+aime25/val.parquet` (the names of `sources`, joined) with its card, which is returned.

    Raises:
        InputError: a source that cannot be read, or a folder that cannot be written.
    """
    rows: list[Row] = []
    counts = []
    for name, source in sources.items():
        problems = competition_problems(name, source)
        counts.append(f"{name} {len(problems)}")
        rows += to_rows(problems, name, "math", "test")
    name = "+".join(sources)
    facts = [f"Source: {', '.join(sources.values())}.", f"Filter: none. Problems: {', '.join(counts)}."]
    return write_dataset(root / name, name, {"val.parquet": rows}, facts)

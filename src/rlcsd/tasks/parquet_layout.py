"""The published parquet layout, which is also verl's: `<root>/<dataset>/{train,val}.parquet`.

One row a problem: `data_source`, `prompt` (chat messages), `ability`, `reward_model` {style, ground_truth},
`extra_info` {index, problem, solution, …}. Several evaluation sets share one file, their names joined by `+`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingError
from ..prompts import BOXED_INSTRUCTION, question_text
from .tabular import Row, checked_problem, read_rows
from .task import Problem

MARK = "published.json"  # in the folder of a data set that `rlcsd data published` fetched


def to_rows(
    problems: Sequence[Problem], data_source: str, ability: str, split: str, instruction: str = BOXED_INSTRUCTION
) -> list[Row]:
    """The problems as rows of the layout; what a problem carries in `extra` goes into `extra_info`."""
    return [
        {
            "data_source": data_source,
            "prompt": [
                *({"role": role, "content": text} for role, text in problem.history),
                {"role": "user", "content": question_text(problem.question, instruction, problem.history)},
            ],
            "ability": ability,
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {
                "index": index,
                "split": split,
                "problem": problem.question,
                "solution": problem.solution or "",
                "group": problem.group,
                **problem.extra,
            },
        }
        for index, problem in enumerate(problems)
    ]


def _part(where: str, row: Row, column: str, kind: type) -> Any:
    if column not in row:
        raise InputError(f"{where} has no column {column!r}; it has {', '.join(map(str, row))}")
    if not isinstance(row[column], kind):
        raise InputError(
            f"{where}: column {column!r} must be a {'struct' if kind is dict else kind.__name__}, not {row[column]!r}"
        )
    return row[column]


def _question(where: str, row: Row, extra: Mapping[str, Any]) -> Any:
    """The row's chat up to its last user message, for which the bare question stands if the row keeps it."""
    messages = _part(where, row, "prompt", list) if "prompt" in row or not extra.get("problem") else []
    users = [place for place, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "user"]
    if not users and not extra.get("problem"):
        raise InputError(f"{where}: column 'prompt' has no user message")
    before = messages[: users[-1]] if users else []
    asked = {"role": "user", "content": extra["problem"]} if extra.get("problem") else messages[users[-1]]
    return [*before, asked]


def from_row(where: str, row: Row) -> tuple[str, Problem]:
    """(data source, problem) of one row. Raises InputError, beginning with `where`, if it is not of the layout."""
    extra = row.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise InputError(f"{where}: column 'extra_info' must be a struct, not {extra!r}")
    judged = _part(where, row, "reward_model", dict)
    source = _part(where, row, "data_source", str)
    group = extra.get("group") or source
    return source, checked_problem(
        where, _question(where, row, extra), judged.get("ground_truth"), extra.get("solution"), group, row
    )


def read_layout(field: str, root: str, dataset: str, split: str) -> dict[str, list[Problem]]:
    """The problems of `<root>/<dataset>/<split>.parquet` by data source.

    Names joined with `+` may also be folders apart, each with a set of its own, called by the folder's name. Where both
    are there, the joined one counts, unless it alone is not the authors'.

    Raises:
        InputError: no such file, or a row that is not of the layout.
    """
    joined, parts = _joined(root, dataset, split), _parts(root, dataset, split)
    if joined is not None:
        return _by_source(field, joined)
    missing = [one for one in parts.values() if not one.is_file()]
    if missing:
        absent = " and no file ".join(
            map(str, [_path(root, dataset, split)] if len(missing) == len(parts) else missing)
        )
        raise MissingError(
            f"{field}={dataset}: there is no file {absent}; `rlcsd data published` fetches the published sets, `rlcsd "
            "data` also builds them, and task.root says where they are"
        )
    return {
        name: [problem for problems in _by_source(field, one).values() for problem in problems]
        for name, one in parts.items()
    }


def reads_published(root: str, dataset: str, split: str) -> bool:
    """Does `read_layout` read files of the authors?"""
    joined = _joined(root, dataset, split)
    files = _parts(root, dataset, split).values() if joined is None else [joined]
    return all(is_published(file.parent) for file in files)


def _joined(root: str, dataset: str, split: str) -> Path | None:
    """The one file of a data set, unless it is our own build and the authors' sets are there one by one."""
    path, parts = _path(root, dataset, split), _parts(root, dataset, split).values()
    theirs = all(part.is_file() and is_published(part.parent) for part in parts)
    return path if path.is_file() and (is_published(path.parent) or not theirs) else None


def _parts(root: str, dataset: str, split: str) -> dict[str, Path]:
    """The files of sets joined with `+`, were each in a folder of its own."""
    return {name: _path(root, name, split) for name in dataset.split("+")}


def is_published(folder: Path) -> bool:
    """Is this a data set of the authors', and not one that `rlcsd data` built?"""
    return (folder / MARK).is_file()


def _path(root: str, dataset: str, split: str) -> Path:
    return Path(root) / dataset / f"{split}.parquet"


def _by_source(field: str, path: Path) -> dict[str, list[Problem]]:
    by_source: dict[str, list[Problem]] = defaultdict(list)
    for number, row in enumerate(read_rows(field, str(path))):
        source, problem = from_row(f"{path}: row {number}", row)
        by_source[source].append(problem)
    if not by_source:
        raise InputError(f"{field}: there are no problems in {path}")
    return dict(by_source)

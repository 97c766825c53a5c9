"""Data sets on disk with a card: where they come from, how they were filtered, how many, and a hash of the content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..folders import whole_folder
from .base import Problem
from .files import Row


def to_line(problem: Problem) -> Row:
    """A problem as a row of a plain table, readable as `task=files`."""
    return {
        "question": problem.question,
        "answer": problem.answer,
        "solution": problem.solution,
        "group": problem.group,
        **problem.extra,
    }


def _jsonl(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path.name}: writing parquet needs pip install 'rlcsd[data]'") from None
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def write_dataset(out: Path, title: str, files: Mapping[str, Sequence[Row]], facts: Sequence[str]) -> str:
    """Write `files` (name with .jsonl or .parquet → rows) and `README.md` to the new folder `out`; return the card.

    `facts` are the card's lines on source and filter. The hash is of the rows as JSON lines, whatever the format.

    Raises:
        InputError: `out` is there already or cannot be written, or there is no room on the disk; nothing is left
        behind.
    """
    table = ["| file | problems | sha256 of the rows |", "|---|---|---|"]
    with whole_folder(out) as partial:
        for name, rows in files.items():
            text = _jsonl(rows)
            if name.endswith(".parquet"):
                _write_parquet(partial / name, rows)
            else:
                (partial / name).write_text(text, encoding="utf-8")
            table.append(f"| {name} | {len(rows)} | `{hashlib.sha256(text.encode()).hexdigest()[:16]}` |")
        card = "\n".join([f"# {title}", "", *facts, "", *table, ""])
        (partial / "README.md").write_text(card, encoding="utf-8")
    return card

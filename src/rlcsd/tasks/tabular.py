"""A user's own data: rows from a jsonl, csv or parquet file or from the hub, and the columns that hold each field."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingError, first_line
from ..records import Message, conversation
from ..storage import whole_folder
from . import hub
from .task import Problem

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which column holds what; `solution` and `group` are optional."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    group: str | None = None


def _jsonl(field: str, path: str) -> list[Row]:
    rows: list[Row] = []
    with open(path, encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{field}={path}: line {number} is not JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise InputError(
                    f"{field}={path}: line {number} must be an object with named fields, not {line.strip()[:40]}"
                )
            rows.append(row)
    return rows


def _parquet(field: str, path: str) -> list[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingError(f"{field}={path}: reading parquet needs pip install 'rlcsd[data]'") from None
    return parquet.read_table(path).to_pylist()


def _csv(field: str, path: str) -> list[Row]:
    csv.field_size_limit(1 << 30)  # worked solutions are long
    with open(path, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        names = list(reader.fieldnames or ())
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{field}={path}: two columns are called {twice!r}; rename one of them")
        rows: list[Row] = []
        for row in reader:
            if None in row:  # where the reader puts what has no column
                raise InputError(
                    f"{field}={path}: line {reader.line_num} has more fields than the {len(names)} "
                    "columns; a field with a comma goes in quotes"
                )
            rows.append({name: _chat_in(text) for name, text in row.items()})
        return rows


def _chat_in(text: str | None) -> Any:
    """A cell that holds a chat as JSON is that chat: a csv file has no lists."""
    if text is None or not re.match(r"\s*\[\s*\{", text):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    chat = all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in value)
    return value if chat else text


def _hub(field: str, path: str) -> list[Row]:
    """`hub:owner/name[/config][:split]`, by default the split `train`."""
    name, _, split = path.removeprefix("hub:").partition(":")
    owner, _, rest = name.partition("/")
    dataset, _, config = rest.partition("/")
    if not owner or not dataset:
        raise InputError(
            f"{field}={path}: a data set on the hub reads hub:owner/name, hub:owner/name/config or hub:owner/name:split"
        )
    plain = _plain_files(field, f"{owner}/{dataset}", config or None, split or "train")
    if plain:
        return [row for file in plain for row in read_rows(field, str(file))]
    try:
        import datasets
    except ImportError:
        raise MissingError(f"{field}={path}: data from the hub needs pip install 'rlcsd[data]'") from None
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(f"{owner}/{dataset}", config or None, split=split or "train").to_list()
    except Exception as error:  # no network, no such name, no such split, gated: each layer has its own exception
        check = "check the name and the network (HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN count)"
        raise MissingError(f"{field}={path}: could not be fetched ({first_line(error)}); {check}") from None


def _plain_files(field: str, repo: str, config: str | None, split: str) -> list[Path]:
    """The files of a split on the hub, fetched and checked; none where the data set is not made of plain files, or the
    hub is out of reach: the datasets library may know it, or have it in its cache."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "rlcsd"
    try:
        source = hub.remembered_snapshot(field, repo, folder)
    except InputError:
        return []
    return [hub.fetch(field, source, file, folder) for file in hub.split_files(source, config, split)]


_READERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def read_rows(field: str, path: str) -> list[Row]:
    """All rows of a file, or of a data set on the hub (`hub:owner/name[/config][:split]`, kept in its cache).

    Raises:
        InputError: it is not there, not of a known format, or cannot be read; the sentence names `field`.
    """
    if path.startswith("hub:"):
        return _hub(field, path)
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{field}={path}: is a folder; name one .jsonl, .csv or .parquet file")
    if not file.is_file():
        raise MissingError(f"{field}={path}: there is no such file")
    if file.suffix not in _READERS:
        raise InputError(f"{field}={path}: the file must end in .jsonl, .csv or .parquet")
    try:
        return _READERS[file.suffix](field, path)
    except InputError:
        raise
    except Exception as error:  # not UTF-8, not parquet, not readable: each library has its own
        raise InputError(
            f"{field}={path}: cannot be read as {file.suffix[1:]} ({str(error).splitlines()[0]})"
        ) from None


def checked_problem(
    where: str, question: Any, answer: Any, solution: Any, group: Any = None, extra: Row | None = None
) -> Problem:
    """A problem of the given fields, and of the whole row as `extra`, for the verifier.

    Raises:
        InputError: an empty field or a wrong type; the sentence begins with `where`.
    """
    history: tuple[Message, ...] = ()
    if isinstance(question, list):
        try:
            history, question = conversation(question)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: the question must be a text that is not empty, or a chat, not {question!r}")
    answer = _written(answer)
    if not (isinstance(answer, str) and answer.strip()):
        raise InputError(f"{where}: the answer must be a text or a number that is not empty, not {answer!r}")
    if not isinstance(solution, str | None):
        raise InputError(f"{where}: the solution must be a text or null, not {solution!r}")
    texts = (question, answer, solution or "", *(text for _, text in history))
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InputError(f"{where}: its text holds half of a character (a lone surrogate), which no file can")
    label = "" if group is None else str(group)
    return Problem(question, answer, solution or None, label, dict(extra or {}), history)


def _written(answer: Any) -> Any:
    """A finite number as a model would write it, such as 3 for the 3.0 that a column with gaps makes of it."""
    if isinstance(answer, bool) or not isinstance(answer, int | float | Decimal):
        return answer
    if isinstance(answer, int):
        return str(answer)
    if not math.isfinite(answer):
        return answer
    return str(int(answer)) if float(answer).is_integer() and abs(float(answer)) < 2**53 else str(answer)


def read_problems(field: str, path: str, columns: Columns) -> list[Problem]:
    """The problems in a file or on the hub.

    Raises:
        InputError: no such file, a format or column that is not there, or an empty question or answer.
    """
    problems = []
    for number, row in enumerate(read_rows(field, path)):
        for column in filter(None, (columns.question, columns.answer, columns.solution, columns.group)):
            if column not in row:
                raise InputError(
                    f"{field}={path}: row {number} has no column {column!r}; it has {', '.join(map(str, row))}"
                )
        solution = row[columns.solution] if columns.solution else None
        group = row[columns.group] if columns.group else None
        problems.append(
            checked_problem(
                f"{field}={path}: row {number}", row[columns.question], row[columns.answer], solution, group, row
            )
        )
    return problems


# ------------------------------------------------------------------ dataset
# Data sets on disk with a card: where they come from, how they were filtered, how many, and a hash of the content.


def to_line(problem: Problem) -> Row:
    """A problem as a row of a plain table, readable as `task=files`."""
    return {
        "question": problem.question,
        "answer": problem.answer,
        "solution": problem.solution,
        "group": problem.group,
        **problem.extra,
    }


def _json_lines(rows: Sequence[Row]) -> str:
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
            text = _json_lines(rows)
            if name.endswith(".parquet"):
                _write_parquet(partial / name, rows)
            else:
                (partial / name).write_text(text, encoding="utf-8")
            table.append(f"| {name} | {len(rows)} | `{hashlib.sha256(text.encode()).hexdigest()[:16]}` |")
        card = "\n".join([f"# {title}", "", *facts, "", *table, ""])
        (partial / "README.md").write_text(card, encoding="utf-8")
    return card

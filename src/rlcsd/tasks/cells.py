"""Problems from the rows of a table, whatever its cells hold: texts, numbers, chats, numpy's arrays."""

from __future__ import annotations

import ast
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, MissingError
from ..records import Message, Problem, conversation, written
from .arrow import arrow_rows, shortest_float

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which column holds what; `solution` and `group` are optional."""

    question: str = "question"
    answer: str = "answer"
    solution: str | None = None
    group: str | None = None


def problems_of(where: str, rows: Iterable[Row], columns: Columns, needs_answer: bool = True) -> list[Problem]:
    """A problem of each row. Unless `needs_answer`, the answers may be empty, and their column missing.

    Raises:
        InputError: a column that is not there, or an empty question or answer; the sentence begins with `where`.
    """
    problems = []
    for number, row in enumerate(rows):
        here = f"{where}: row {number}"
        answer = columns.answer if needs_answer or columns.answer in row else None
        for column in filter(None, (columns.question, answer, columns.solution, columns.group)):
            if column not in row:
                raise InputError(f"{here} has no column {column!r}; it has {', '.join(map(str, row))}")
        solution = row[columns.solution] if columns.solution else None
        group = row[columns.group] if columns.group else None
        given = row[answer] if answer is not None else None
        problems.append(checked_problem(here, row[columns.question], given, solution, group, row, needs_answer))
    return problems


def rows_of(where: str, table: Any) -> list[Row]:
    """The rows of a list of mappings, of a `datasets.Dataset`, or of a DataFrame of pandas or polars.

    Raises:
        InputError: it is none of these, or has no rows; the sentence begins with `where`.
    """
    if isinstance(table, Mapping):
        raise InputError(f"{where}: rows are wanted, not a mapping; of a data set with splits pass one: rows['train']")
    if hasattr(table, "to_arrow"):
        table = _polars_rows(where, table)
    elif hasattr(table, "columns") and hasattr(table, "to_dict"):
        table = _pandas_rows(table)
    elif hasattr(table, "with_format") and hasattr(table, "__len__") and table.format["type"] != "custom":
        table = arrow_rows(table.with_format("arrow")[:])
    if isinstance(table, str | bytes) or not isinstance(table, Iterable):
        raise InputError(f"{where}: rows are a list of mappings, a datasets.Dataset or a DataFrame, not {table!r:.60}")
    rows = list(table)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: row {number} must be a mapping of columns to values, not {row!r:.60}")
    if not rows:
        raise InputError(f"{where}: there are no rows")
    return [{key: None if _is_nan(value) else value for key, value in row.items()} for row in rows]


def _polars_rows(where: str, table: Any) -> list[Row]:
    try:
        return arrow_rows(table.to_arrow())
    except ImportError:
        raise MissingError(f"{where}: a DataFrame of polars needs pip install 'rlcsd[data]'") from None


def _pandas_rows(table: Any) -> list[Row]:
    """pandas makes floats of 64 bits of those of a narrow column."""
    kinds = dict(zip(table.columns, table.dtypes, strict=True))
    return [
        {name: shortest_float(kinds[name], value) for name, value in row.items()} for row in table.to_dict("records")
    ]


def _is_nan(value: Any) -> bool:
    """Whether a cell is what a DataFrame holds where there is nothing."""
    return isinstance(value, float) and math.isnan(value)


def split(problems: Sequence[Problem], keys: Sequence[str], fraction: float, seed: int) -> list[list[Problem]]:
    """Two parts of the problems, of which the second has about `fraction`; problems of one key stay together.

    Both keep the order of the rows. The parts depend on `seed` and on the problems alone.
    """
    names = sorted(set(keys))
    random.Random(f"{seed}/split").shuffle(names)
    wanted = max(1, round(fraction * len(problems)))
    counts = Counter(keys)
    held_out: set[str] = set()
    for name in names:
        if wanted <= 0:
            break
        held_out.add(name)
        wanted -= counts[name]
    parts: list[list[Problem]] = [[], []]
    for problem, key in zip(problems, keys, strict=True):
        parts[key in held_out].append(problem)
    return parts


def checked_problem(
    where: str,
    question: Any,
    answer: Any,
    solution: Any,
    group: Any = None,
    extra: Row | None = None,
    needs_answer: bool = True,
) -> Problem:
    """A problem of the given cells of a row, and of the whole row as `extra`, for the verifier.

    `question` is a text or a chat (`chat_in`), `answer` a text or a number (None or empty unless `needs_answer`),
    `solution` a text or None.

    Raises:
        InputError: an empty cell or one of another type; the sentence begins with `where`.
    """
    history: tuple[Message, ...] = ()
    question = chat_in(question)
    if isinstance(question, list):
        try:
            history, question = conversation(question)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
    if isinstance(question, str) and _PRINTED.fullmatch(question):
        raise InputError(f"{where}: the question is a chat as Python prints it; write it as JSON, not {question!r:.60}")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: the question must be a text that is not empty, or a chat, not {question!r}")
    answer = written(plain_values(answer))
    if answer is None and not needs_answer:
        answer = ""
    if not (isinstance(answer, str) and (answer.strip() or not needs_answer)):
        raise InputError(f"{where}: the answer must be a text or a number that is not empty, not {answer!r}")
    solution = plain_values(solution)
    if not isinstance(solution, str | None):
        raise InputError(f"{where}: the solution must be a text or null, not {solution!r}")
    texts = (question, answer, solution or "", *(text for _, text in history))
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InputError(f"{where}: its text holds half of a character (a lone surrogate), which no file can")
    return Problem(question, answer, solution, plain_values(group), dict(extra or {}), history)


# ------------------------------------------------------------------ what a cell holds


def chat_in(cell: Any) -> Any:
    """The chat that a cell holds, as a list of messages; a text or anything else as it is.

    Tables hold chats in several ways: as a list of structs; as one struct of lists, which is what a sequence of structs
    becomes in older data sets; as JSON, whole or message by message, where a format or a writer has no nested columns;
    as Python prints a list, which is what `DataFrame.to_csv` writes; as `{"messages": […]}`; and any of these as the
    only element of a list.
    """
    cell = plain_values(cell)
    if isinstance(cell, str):
        return _chat_of(_printed(cell) if _PRINTED.fullmatch(cell) else json_in(cell)) or cell
    return _chat_of(cell) or cell


_PRINTED = re.compile(r"\s*(?:\[+\s*)?\{\s*'(?:role|content|messages)'\s*:.*[\]}]\s*", re.DOTALL)


def _printed(text: str) -> Any:
    """The value that Python prints as this text; the text where it cannot be read, such as an array of numpy."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _chat_of(value: Any) -> list[Any] | None:
    """The messages of a chat, of which each at least has a role; None if it is no chat."""
    if isinstance(value, Mapping):
        if {"role", "content"} <= value.keys():
            role, content = value["role"], value["content"]
            if isinstance(role, list):
                columns = [column for column in value.values() if isinstance(column, list)]
                if any(len(column) != len(role) for column in columns):
                    return None
                return [
                    {name: column[index] for name, column in value.items() if isinstance(column, list)}
                    for index in range(len(role))
                ]
            return [{**value, "role": role, "content": content}]
        return _chat_of(json_in(value["messages"])) if "messages" in value else None
    if not isinstance(value, list) or not value:
        return None
    messages = [json_in(message) for message in value]
    if all(isinstance(message, Mapping) and "role" in message for message in messages):
        lists = len(messages) == 1 and isinstance(messages[0]["role"], list)
        return _chat_of(messages[0]) if lists else messages
    return _chat_of(messages[0]) if len(messages) == 1 else None


def json_in(cell: Any) -> Any:
    """What a text stands for that is a JSON object or list; anything else as it is."""
    if not isinstance(cell, str) or cell.lstrip()[:1] not in ("[", "{"):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def plain_values(value: Any) -> Any:
    """Arrays and scalars of numpy or torch, also inside lists and mappings, as Python's own values."""
    if hasattr(value, "dtype"):
        if getattr(value, "ndim", 0):
            return plain_values(list(value))
        return shortest_float(value.dtype, value.item() if hasattr(value, "item") else value)
    if isinstance(value, list | tuple):
        return [plain_values(element) for element in value]
    if isinstance(value, Mapping):
        return {key: plain_values(element) for key, element in value.items()}
    return value

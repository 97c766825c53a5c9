"""Rows of tables: read from jsonl, csv and parquet files and from the hub, and written as a data set with a card.

Whatever a table comes from, its rows hold plain Python values (`arrow`).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError, MissingError, first_line
from ..storage import whole_folder
from . import hub
from .arrow import arrow_rows
from .cells import Row


def read_rows(field: str, path: str) -> list[Row]:
    """All rows of a file, or of a data set on the hub (`hub:owner/name[/config][:split]`, kept in its cache).

    Raises:
        InputError: it is not there, not of a known format, or cannot be read; the sentence names `field`.
    """
    if path.startswith("hub:"):
        return _hub(field, path)
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{field}={path}: is a folder; name one .jsonl, .json, .csv or .parquet file")
    if not file.is_file():
        raise MissingError(f"{field}={path}: there is no such file")
    if file.suffix not in _READERS:
        raise InputError(f"{field}={path}: the file must end in .jsonl, .json, .csv or .parquet")
    try:
        return _READERS[file.suffix](field, path)
    except InputError:
        raise
    except Exception as error:  # not UTF-8, not parquet, not readable: each library has its own
        raise InputError(f"{field}={path}: cannot be read as {file.suffix[1:]} ({first_line(error)})") from None


# ------------------------------------------------------------------ files


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


def _json(field: str, path: str) -> list[Row]:
    """A list of objects, alone or as the only list of objects in an object (`{"data": […]}`), or JSON Lines."""
    text = Path(path).read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # a second line: the ending of many files of JSON Lines
            return _jsonl(field, path)
        raise InputError(f"{field}={path}: line {error.lineno} is not JSON ({error.msg})") from None
    lists = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    tables = [rows for rows in lists if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)]
    if len(tables) != 1:
        raise InputError(
            f"{field}={path}: must hold one list of objects with named fields, [{{…}}, …] or {{NAME: […]}}"
        )
    return tables[0]


def _csv(field: str, path: str) -> list[Row]:
    csv.field_size_limit(1 << 30)  # worked solutions are long
    with open(path, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        names = list(reader.fieldnames or ())
        _check_names(field, path, names)
        rows: list[Row] = []
        for row in reader:
            if None in row:  # where the reader puts what has no column
                raise InputError(
                    f"{field}={path}: line {reader.line_num} has more fields than the {len(names)} "
                    "columns; a field with a comma goes in quotes"
                )
            rows.append(row)
        return rows


def _parquet(field: str, path: str) -> list[Row]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingError(f"{field}={path}: reading parquet needs pip install 'rlcsd[data]'") from None
    with parquet.ParquetFile(path) as file:  # not `read_table`, which adds columns from names of folders such as a=1
        table = file.read()
    _check_names(field, path, table.column_names)
    return arrow_rows(table)


def _check_names(field: str, path: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{field}={path}: two columns are called {twice!r}; rename one of them")


_READERS: dict[str, Callable[[str, str], list[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


# ------------------------------------------------------------------ the hub


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
        loaded = datasets.load_dataset(f"{owner}/{dataset}", config or None, split=split or "train")
        return arrow_rows(loaded.with_format("arrow")[:])
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


# ------------------------------------------------------------------ writing


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
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            if name.endswith(".parquet"):
                _write_parquet(partial / name, rows)
            else:
                (partial / name).write_text(text, encoding="utf-8")
            table.append(f"| {name} | {len(rows)} | `{hashlib.sha256(text.encode()).hexdigest()[:16]}` |")
        card = "\n".join([f"# {title}", "", *facts, "", *table, ""])
        (partial / "README.md").write_text(card, encoding="utf-8")
    return card


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise InputError(f"{path.name}: writing parquet needs pip install 'rlcsd[data]'") from None
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)

"""Folders and logs on disk: a folder appears under its final name only when it is whole; records in JSON lines."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError


def check_new_folder(target: Path, option: str = "--out") -> None:
    """Raise InputError unless `target` can become a new folder: nothing of the user's is ever replaced.

    `option` is how the user named the folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{option} {target}: already there and not an empty folder; choose another place")


@contextmanager
def whole_folder(target: Path, replace: bool = False, option: str = "--out") -> Iterator[Path]:
    """A folder to fill that becomes `target` at the end, or vanishes if anything fails.

    `replace` allows a `target` that is already there (a checkpoint of the same step).

    Raises:
        InputError: `target` is there already or cannot be written, or there is no room on the disk.
    """
    if not replace:
        check_new_folder(target, option)
    partial = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from None
    try:
        yield partial
        if target.exists():
            old = target.parent / f".{target.name}.{os.getpid()}.old"
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"{target}: no space is left on the disk; nothing was written there") from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines; none if it is not there. Lines end with a line feed and nothing else."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.is_file() else []


def append_jsonl(path: Path, *records: Any) -> None:
    """Write records at the end of a file of JSON lines."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

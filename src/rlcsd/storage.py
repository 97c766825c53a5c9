"""Folders and files that survive a crash: written whole or not at all, synced, checked by hashes.

Checkpoints, data sets and models are written with `whole_folder`, logs with `append_jsonl`, small files with
`write_text`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

MANIFEST = "manifest.json"  # size and SHA-256 of every file of a folder
_LEFT_OVER = re.compile(r"^\.(?P<name>.+)\.(?P<host>[\w-]*)\.(?P<process>\d+)\.(?P<kind>partial|old)$")
_HOST = re.sub(r"[^\w-]", "_", platform.node())  # nodes with one file system have processes of the same id


def check_new_folder(target: Path, option: str = "--out") -> None:
    """Raise InputError unless `target` is absent or an empty folder. `option` is the flag that named it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{option} {target}: already there and not an empty folder; choose another place")


@contextmanager
def whole_folder(target: Path, replace: bool = False, option: str = "--out") -> Iterator[Path]:
    """Yield a temporary folder to fill; it is renamed to `target` at the end, or removed if anything fails.

    Every file is synced before the rename, so that a crash leaves the whole folder or none. `replace` allows a `target`
    that exists (a checkpoint of the same step).

    Raises:
        InputError: `target` exists or cannot be written, or the disk is full.
    """
    if not replace:
        check_new_folder(target, option)
    partial, old = _beside(target, "partial"), _beside(target, "old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left_overs(target.parent, only=target.name)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from None
    try:
        yield partial
        for path in partial.rglob("*"):
            _sync(path)
        _sync(partial)
        if not replace:
            check_new_folder(target, option)  # another process may have made it
        if target.exists():
            target.rename(old)
        partial.rename(target)
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        if is_disk_full(error):
            raise InputError(f"{target}: no space is left on the disk; nothing was written there") from None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_left_overs(parent: Path, only: str | None = None, alone: bool = False) -> None:
    """Remove temporary files of this host's dead processes from `parent`, of all targets or of the one named `only`.

    A target that was being replaced when its process died gets its old content back. `alone`: no other process writes
    there, so hosts and process ids are not looked at (a new process may have the id of the dead one).
    """
    for path in list(parent.iterdir()) if parent.is_dir() else []:
        match = _LEFT_OVER.match(path.name)
        if match is None or (only is not None and match["name"] != only):
            continue
        if not alone and (match["host"] != _HOST or _is_alive(int(match["process"]))):
            continue
        target = parent / match["name"]
        if match["kind"] == "old" and not target.exists():
            path.rename(target)
        else:
            _remove(path)


def remove_folder(path: Path) -> None:
    """Remove a folder. It is renamed first: after a crash it is gone, and `remove_left_overs` removes the rest."""
    hidden = _beside(path, "partial")
    path.rename(hidden)
    _remove(hidden)


def write_text(path: Path, text: str) -> None:
    """Write a text file by rename: after a crash it has its old content or the new one."""
    _replace(path, text.encode("utf-8", "backslashreplace"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All records of a JSON Lines file; none if the file is absent. Lines end with a line feed and nothing else.

    A last line that is no JSON (a crash interrupted its writing) is left out.

    Raises:
        InputError: another line is not a JSON object.
    """
    records: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            if any(_record(later) is not None for later in lines[number:]):
                raise InputError(f"{path}, line {number}: not a JSON object; the file was changed or damaged")
            break
        records.append(record)
    return records


def append_jsonl(path: Path, *records: Any) -> None:
    """Append records to a JSON Lines file, in one write. A last line that a full disk has torn goes first."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
    with path.open("a+b") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"", b"\n"):
            last = path.read_bytes().rpartition(b"\n")[2]
            if _record(last) is None:
                file.truncate(end - len(last))
            else:
                text = "\n" + text
        file.write(text.encode("utf-8", "backslashreplace"))


def synced_length(path: Path) -> int:
    """Sync a file and return its length in bytes; 0 if it is absent."""
    if not path.is_file():
        return 0
    _sync(path)
    return path.stat().st_size


def keep_records(path: Path, length: int, extra: list[dict[str, Any]] | None = None) -> None:
    """Cut a JSON Lines file to its first `length` bytes and append the records `extra`, by rename."""
    if not path.is_file():
        return
    head = path.read_bytes()[:length]
    tail = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in extra or [])
    _replace(path, head + tail.encode("utf-8", "backslashreplace"))


def records_after(path: Path, length: int) -> list[dict[str, Any]]:
    """The complete records that begin at byte `length` or later, up to the first line that is no record."""
    records = []
    for line in path.read_bytes()[length:].split(b"\n")[:-1] if path.is_file() else []:
        record = _record(line)
        if record is None:
            break
        records.append(record)
    return records


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system, or of a library that wraps it, means that the disk is full."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def _beside(target: Path, kind: str) -> Path:
    """The hidden path beside `target` of what this process is writing (`partial`) or replacing (`old`)."""
    return target.with_name(f".{target.name}.{_HOST}.{os.getpid()}.{kind}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _replace(path: Path, content: bytes) -> None:
    partial = _beside(path, "partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """fsync a file, or a folder for the names in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # a target is filled by one call at a time, so this is an earlier process of the same id
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ------------------------------------------------------------------ manifests


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files that are in the folder now."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps(files, indent=1, sort_keys=True)
    # Its last line is its own hash, so that damage to the manifest is found too.
    (folder / MANIFEST).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n", encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What differs from a folder's manifest, in a few words; None if every file is as it was written."""
    try:
        text, _, rest = (folder / MANIFEST).read_bytes().decode("utf-8").rpartition("}\n")
        text += "}"
        if hashlib.sha256(text.encode()).hexdigest() + "\n" != rest:
            return f"{MANIFEST} is damaged"
    except UnicodeDecodeError:
        return f"{MANIFEST} is damaged"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    for name, wanted in json.loads(text).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
        if _sha256(path) != wanted["sha256"]:
            return f"{name} is damaged (its SHA-256 hash is another)"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A folder's manifest: the size and SHA-256 hash of every file, so that damage is found before the files are used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

NAME = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Write `manifest.json` about all files that are in the folder now."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _hash(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    text = json.dumps(files, indent=1, sort_keys=True)
    # The manifest's own hash stands in its last line: a flipped bit in it is found like any other.
    (folder / NAME).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n", encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that has a manifest, in a few words; None if every file is as it was written."""
    try:
        text, _, rest = (folder / NAME).read_bytes().decode("utf-8").rpartition("}\n")
        text += "}"
        if hashlib.sha256(text.encode()).hexdigest() + "\n" != rest:
            return f"{NAME} is damaged"
    except UnicodeDecodeError:
        return f"{NAME} is damaged"
    except OSError as error:
        return f"{NAME} cannot be read ({error.strerror})"
    for name, wanted in json.loads(text).items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
        if _hash(path) != wanted["sha256"]:
            return f"{name} is damaged (its SHA-256 hash is another)"
    return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

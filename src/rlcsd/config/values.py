"""What the sections of the configuration are made of: kinds of values, and the checks of texts, names and templates."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1  # keeps counts within 32 bits


def printable(text: str) -> str:
    """`text`, unless it is empty or has a character that no name or path may have."""
    if not text.strip():
        raise ValueError("must not be empty")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must be without control characters such as NUL or a line break")
    return text


def without_nul(value: Any) -> Any:
    """`value`, unless a text somewhere in it has a character that neither a path nor a file may have."""
    if isinstance(value, str) and any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
        raise ValueError("must be without NUL characters and broken encodings")
    for part in (
        (*value.keys(), *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    ):
        without_nul(part)
    return value


def inside(name: str) -> str:
    """`name`, unless it would lead out of the folder that it is put in, or is too long for a file system."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or parts[0].endswith(":") or any(part in (".", "..") for part in parts):
        raise ValueError("must stay inside output_dir: a name, without a leading / and without . or .. as a part")
    if len(name.encode()) > 200:
        raise ValueError("must have at most 200 bytes")
    return name


def template(value: str) -> str:
    """A chat template: the text itself, or what stands in the file that it names."""
    if "{{" in value or "{%" in value:
        return value
    try:
        text = Path(value).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ValueError("must be a file with a chat template, or the template itself, with {{ … }} in it") from None
    if "{{" not in text and "{%" not in text:
        raise ValueError("must be a file with a chat template; this one has no {{ … }} in it")
    return text


Text = Annotated[str, AfterValidator(printable)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST)]


class Section(BaseModel):
    """Frozen, without unknown keys, and strict: no number is read from a text or from true and false."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, strict=True)

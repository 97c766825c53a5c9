"""Types of the schema's values, with the checks of texts, names and templates."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LARGEST = 2**31 - 1  # keeps counts within 32 bits
MAX_THREADS = 1024


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, and strict (no number is read from a text or a bool)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, strict=True)


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must be without control characters such as NUL or a line break")
    return text


def without_nul(value: Any) -> Any:
    """Return `value`. Raises ValueError if a text anywhere in it has a NUL or a lone surrogate."""
    if isinstance(value, str) and any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
        raise ValueError("must be without NUL characters and broken encodings")
    parts = (*value.keys(), *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        without_nul(part)
    return value


def _inside_output_dir(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or parts[0].endswith(":") or any(part in (".", "..") for part in parts):
        raise ValueError("must stay inside output_dir: a name, without a leading / and without . or .. as a part")
    if len(name.encode()) > 200:
        raise ValueError("must have at most 200 bytes")
    return name


def _chat_template(value: str) -> str:
    """The text of a chat template, read from the file if `value` names one."""
    if "{{" in value or "{%" in value:
        return value
    try:
        text = Path(value).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ValueError("must be a file with a chat template, or the template itself, with {{ … }} in it") from None
    if "{{" not in text and "{%" not in text:
        raise ValueError("must be a file with a chat template; this one has no {{ … }} in it")
    return text


def _ordered(band: list[float]) -> list[float]:
    if band[0] > band[1]:
        raise ValueError("must be [low, high] with low at most high")
    return band


def _thread_count(count: int) -> int:
    if count > MAX_THREADS:
        raise ValueError(f"must be at most {MAX_THREADS}; this machine has {os.cpu_count()} CPUs")
    return count


def _count_or_share(things: str, whole: str) -> AfterValidator:
    """For a whole number of `things`, or as a float a share of `whole`."""

    def checked(value: int | float) -> int | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError(f"must be a whole number of {things}, or a share of {whole} between 0 and 1")
        if not 0 <= value <= LARGEST:
            raise ValueError("must be at least 0" if value < 0 else f"must be at most {LARGEST}")
        return value

    return AfterValidator(checked)


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|xpu|npu|hpu)(:\d+)?", name):
        raise ValueError(
            "must be auto, cpu, cuda or cuda:NUMBER (losses are summed in float64, which mps does not have)"
        )
    return name


Text = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST)]
StepsOrShare = Annotated[int | float, _count_or_share("steps", "all steps")]
TokensOrShare = Annotated[int | float, _count_or_share("tokens", "sampling.max_tokens")]
ThreadCount = Annotated[int, Field(ge=0), AfterValidator(_thread_count)]
Device = Annotated[Text, AfterValidator(_device)]
RunName = Annotated[Text, AfterValidator(_inside_output_dir)]
ChatTemplate = Annotated[str, AfterValidator(without_nul), AfterValidator(_chat_template)]  # becomes the file's text
Band = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]

T = TypeVar("T")
RESUMABLE = "may change on resume"
# Type of a key that a resumed run may change: it does not alter what has been computed so far (at most its rounding).
Resumable = Annotated[T, RESUMABLE]

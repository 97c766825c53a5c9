"""How mistakes in a config are put into words."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import InputError

_MESSAGES = {
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "list_type": "must be a list, for example [a,b]",
    "dict_type": "must be a mapping of keys to values",
}


def suggestion(word: str, known: Iterable[str]) -> str:
    """What was probably meant, or everything there is."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def as_yaml(value: Any) -> str:
    """A value as it reads in YAML where that differs from Python, and cut if it is long."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def _message(error: ErrorDetails, key: str) -> str:
    if error["type"] == "model_type":
        return f"is a section of keys; set one of them, {key}.KEY=…"
    text = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    text = text.replace("Input should be", "must be").replace("greater than or equal to", "at least")
    text = text.replace("less than or equal to", "at most").replace("List should have", "must have")
    text = text.split(" after validation")[0]
    return text[0].lower() + text[1:]


def _is_label(part: int | str) -> bool:
    """Whether a part of a location names a branch of a union (`list[str]`) and no key."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "bool"))


def as_input_error(error: ValidationError, prefix: str = "", known: Iterable[str] = ()) -> InputError:
    """The first thing that a schema found wrong, as one sentence; `known` are the keys to suggest from."""
    errors = error.errors()
    # Where a key is unknown and another is missing beside it, the unknown one is a misspelling of the other.
    beside = [one for one in errors if one["type"] == "extra_forbidden" and one["loc"][:-1] == errors[0]["loc"][:-1]]
    first = beside[0] if beside and errors[0]["type"] == "missing" else errors[0]
    key = prefix + ".".join(str(part) for part in first["loc"] if not _is_label(part))
    if first["type"] == "extra_forbidden":
        return InputError(f"{key}: unknown key; {suggestion(key, known)}")
    if first["type"] == "missing":
        return InputError(f"{key}: a value is needed, {key}=…")
    if not first["loc"]:
        return InputError(first["msg"].removeprefix("Value error, "))
    branches = [other for other in errors if any(map(_is_label, other["loc"])) and other["loc"][:1] == first["loc"][:1]]
    messages = list(dict.fromkeys(_message(one, key) for one in branches or [first]))
    return InputError(f"{key}={as_yaml(first['input'])}: {', or '.join(messages)}")


def known_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every dotted key of a schema, those of sections that may be null too."""
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        for section in sections(field.annotation):
            keys |= known_keys(section, f"{prefix}{name}.")
    return keys


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The schemas in an annotation: itself, or a member of its union."""
    members = [annotation, *getattr(annotation, "__args__", ())]
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]

"""Turn pydantic validation errors into one-sentence InputErrors, and suggest the nearest valid name."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import InputError, suggestion

_MESSAGES = {
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "list_type": "must be a list, for example [a,b]",
    "dict_type": "must be a mapping of keys to values",
}


def as_yaml(value: Any) -> str:
    """A value for an error message: null, true and false as in YAML, others as in Python, shortened if long."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def as_input_error(
    error: ValidationError,
    prefix: str = "",
    known: Iterable[str] = (),
    unknown_key: Callable[[str, Iterable[str]], str] = suggestion,
) -> InputError:
    """The complaints of a validation error, a sentence each that names the key and its value; one on each line.

    Args:
        error: what pydantic raised.
        prefix: what precedes the schema's own keys, for example `method.`.
        known: the valid keys, dotted, for the answer to an unknown one.
        unknown_key: makes that answer from the unknown key and the valid ones.
    """
    errors = error.errors()
    misspelt = {one["loc"][:-1] for one in errors if one["type"] == "extra_forbidden"}
    by_key: dict[Any, list[ErrorDetails]] = {}
    for one in errors:
        # Where a key is unknown and a sibling of it is missing, the unknown one is a misspelling of the missing one.
        if one["type"] == "missing" and one["loc"][:-1] in misspelt:
            continue
        # What may be one of several types has a complaint for each.
        place = one["loc"][:1] if any(map(_is_union_label, one["loc"])) else one["loc"]
        by_key.setdefault(place, []).append(one)
    sentences = [_complaint(group, prefix, known, unknown_key) for group in by_key.values()]
    return InputError("\n".join(dict.fromkeys(sentences)))


def _complaint(
    errors: Sequence[ErrorDetails], prefix: str, known: Iterable[str], unknown_key: Callable[[str, Iterable[str]], str]
) -> str:
    """One sentence about the errors of one key."""
    first = errors[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # raised by a validator, already one sentence
        return str(cause)
    key = prefix + ".".join(str(part) for part in first["loc"] if not _is_union_label(part))
    if first["type"] == "extra_forbidden":
        key = _whole_key(key, first["input"])
        return f"{key}: unknown key; {unknown_key(key, known)}"
    if first["type"] == "missing":
        return f"{key}: a value is needed, {key}=…"
    if not first["loc"] or (isinstance(first["input"], dict | BaseModel) and first["type"] == "value_error"):
        text = str(first["msg"].removeprefix("Value error, "))  # about several keys, which it usually names
        return text if not first["loc"] or re.match(r"[\w.]+(=|: )", text) else f"{key}: {text}"
    messages = list(dict.fromkeys(_message(one, key) for one in errors))
    return f"{key}={as_yaml(first['input'])}: {', or '.join(messages)}"


def known_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every dotted key of a schema, including those of sections that may be null."""
    keys = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        for section in sections(field.annotation):
            keys |= known_keys(section, f"{prefix}{name}.")
    return keys


def flat_config(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values as one level with dotted keys; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The schemas in an annotation: itself, or the members of its union."""
    members = [annotation, *getattr(annotation, "__args__", ())]
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _whole_key(key: str, value: Any) -> str:
    """The key with the first of the keys below it, if its value is a section: what was written is `rollout.n`."""
    while isinstance(value, dict) and value:
        part, value = next(iter(value.items()))
        key = f"{key}.{part}"
    return key


def _message(error: ErrorDetails, key: str) -> str:
    if error["type"] == "model_type":
        return f"is a section of keys; set one of them, {key}.KEY=…"
    text = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    text = text.replace("Input should be", "must be").replace("greater than or equal to", "at least")
    text = text.replace("less than or equal to", "at most").replace("List should have", "must have")
    text = text.split(" after validation")[0]
    return text[0].lower() + text[1:]


def _is_union_label(part: int | str) -> bool:
    """Whether a part of a location names a member of a union (`list[str]`) and no key."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "bool"))

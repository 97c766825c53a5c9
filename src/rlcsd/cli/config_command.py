"""`rlcsd config`: the named choices, a resolved config, and every key with its type, range, value and meaning."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ..config.fields import LARGEST
from ..errors import InputError
from ..validation import as_yaml
from .train_commands import OVERRIDES


def add_config_command(commands: Any) -> None:
    """Add `rlcsd config`."""
    config = commands.add_parser("config", help="list the named choices, show a resolved config, or explain its keys")
    config.add_argument(
        "what", choices=("list", "show", "keys"), help="keys: each key with its type, value and meaning"
    )
    config.add_argument(
        "--only", default="", metavar="PREFIX", help="with keys: those that begin so, for example method."
    )
    config.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    config.set_defaults(run=_config)


def _config(arguments: argparse.Namespace) -> None:
    from ..config.load import choices, load, to_yaml

    if arguments.what == "list":
        for group, names in choices().items():
            print(f"{group:<11}{'  '.join(name for name in names if name != 'plugin')}")
    elif arguments.what == "show":
        print(to_yaml(load(arguments.overrides)), end="")
    else:
        print("\n".join(map(str, _keys(arguments.overrides, arguments.only))))


def _keys(overrides: Sequence[str], prefix: str) -> list[Key]:
    """The keys of the resolved config that begin with `prefix`."""
    from ..config.load import load

    chosen = [key for key in keys_of(load(overrides)) if key.name.startswith(prefix)]
    if not chosen:
        raise InputError(f"--only {prefix}: no key begins so; for example --only sampling. or --only method.")
    return chosen


_TYPES = {
    "integer": "integer",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "mapping",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Key:
    """One key: dotted name, type and range in words, value, and description."""

    name: str
    type: str
    value: str
    description: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value}\n    {self.type}. {self.description}"


def keys_of(section: BaseModel, prefix: str = "") -> Iterator[Key]:
    """The keys of a section and, dotted, of the sections in it, method and task included."""
    schema = type(section).model_json_schema()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from keys_of(value, f"{prefix}{name}.")
            continue
        kind = type_in_words(schema["properties"][name], schema.get("$defs", {}))
        description = (field.description or "").strip()
        sentence = (
            description[:1].upper()
            + description[1:]
            + ("" if description.endswith((".", "…")) or not description else ".")
        )
        yield Key(prefix + name, kind, as_yaml(value), sentence)


def type_in_words(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The type and the range of one JSON schema, such as "integer ≥ 1" or "null or text"."""
    if "$ref" in schema:
        return "mapping with keys " + ", ".join(definitions[schema["$ref"].rpartition("/")[2]]["properties"])
    if "anyOf" in schema:
        return " or ".join(type_in_words(one, definitions) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {type_in_words(schema.get('items', {}), definitions)}"
    bounds = [f"{sign} {schema[name]:g}" for name, sign in _BOUNDS.items() if schema.get(name) not in (None, LARGEST)]
    return " ".join([_TYPES.get(str(schema.get("type")), "any value"), ", ".join(bounds)]).strip()

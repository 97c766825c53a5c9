"""Every key of a config with its type, range, value and meaning, read off the schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from .values import LARGEST
from .words import shown

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
    """One key: its dotted name, type and range in words, present value, and description."""

    name: str
    type: str
    value: str
    description: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value}\n    {self.type}. {self.description}"


def keys_of(section: BaseModel, prefix: str = "") -> Iterator[Key]:
    """The keys of a section and, dotted, of the sections in it."""
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
        yield Key(prefix + name, kind, shown(value), sentence)


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

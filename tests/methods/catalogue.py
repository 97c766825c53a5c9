"""The methods by name for tests, and what those with another model as the teacher need beside their name."""

from __future__ import annotations

from typing import Any

from rlcsd.methods import METHODS, Method


def needs_other_model(name: str) -> bool:
    """Is the teacher another model by default?"""
    field = METHODS[name].Config.model_fields.get("teacher")
    return field is not None and field.default == "model"


EIGHT = [name for name in METHODS if not needs_other_model(name)]  # those of the paper's table


def method_of(name: str, **fields: Any) -> Method:
    """The method with some hyper-parameters, and a teacher if it needs another model."""
    return METHODS[name].from_fields(**({"teacher_model": "tiny"} if needs_other_model(name) else {}), **fields)


def overrides_of(name: str) -> list[str]:
    """What chooses the method on the command line."""
    return [f"method={name}", *(["method.teacher_model=tiny"] if needs_other_model(name) else [])]

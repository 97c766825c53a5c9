"""The methods by name for tests, and what those with another model as the teacher need beside their name."""

from __future__ import annotations

from typing import Any

from rlcsd.methods import METHODS, OBJECTIVES, Method


def needs_other_model(name: str) -> bool:
    """Is the teacher another model by default?"""
    field = METHODS[name].Config.model_fields.get("teacher")
    return field is not None and field.default == "model"


EIGHT = ["grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd", "opsd_ectr", "rlsd_ectr"]  # those of the paper's table
BASELINES = [name for name in OBJECTIVES if name != "grpo"]  # grpo with another objective
RELATIVES = ["cepo", "sdar", "opsa"]  # from other papers


def method_of(name: str, **fields: Any) -> Method:
    """The method with some hyper-parameters, and a teacher if it needs another model."""
    needed = {"teacher_model": "tiny"} if needs_other_model(name) else {}
    return METHODS[name].from_fields(**{**needed, "constant_length": 16, **fields})


def overrides_of(name: str) -> list[str]:
    """What chooses the method on the command line."""
    return [f"method={name}", *(["method.teacher_model=tiny"] if needs_other_model(name) else [])]

"""Verifiers by name; `register` adds a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..errors import InputError
from . import knights_and_knaves
from .boxed import last_boxed, without_thinking

# (response text, reference answer) → reward; truthy or positive means correct. A verifier that has a method
# `batch(responses, answers)` is given many at a time.
Verifier = Callable[[str, Any], float | bool]

__all__ = ["Verifier", "exact", "get", "grade", "grade_groups", "last_boxed", "register", "without_thinking"]


def exact(response: str, answer: Any) -> bool:
    """The last box holds exactly the answer, but for white space at its ends."""
    return last_boxed(response) == str(answer).strip()


@cache
def _math() -> Verifier:
    from .math import MathVerifier

    return MathVerifier()


_VERIFIERS: dict[str, Callable[[], Verifier]] = {
    "exact": lambda: exact,
    "knights_and_knaves": lambda: knights_and_knaves.verify,
    "math": _math,
}


def register(name: str, verifier: Verifier) -> None:
    """Make `verifier` available to configs as `name`."""
    _VERIFIERS[name] = lambda: verifier


def get(name: str) -> Verifier:
    """The verifier called `name`. Raises InputError for an unknown one, or one whose library is not installed."""
    if name not in _VERIFIERS:
        close = difflib.get_close_matches(name, _VERIFIERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_VERIFIERS))}"
        raise InputError(f"verifier={name}: unknown verifier; {hint}")
    return _VERIFIERS[name]()


def grade(verifier: Verifier, responses: Sequence[str], answers: Sequence[Any]) -> list[float]:
    """The reward of each response."""
    batch = getattr(verifier, "batch", None)
    if batch is not None:
        return [float(reward) for reward in batch(responses, answers)]
    return [float(verifier(response, answer)) for response, answer in zip(responses, answers, strict=True)]


def grade_groups(
    verifier: Verifier, groups: Sequence[Sequence[str]], answers: Sequence[Any]
) -> list[tuple[float, ...]]:
    """The rewards of several responses to each answer, all judged side by side."""
    flat = [answer for texts, answer in zip(groups, answers, strict=True) for _ in texts]
    rewards = iter(grade(verifier, [text for texts in groups for text in texts], flat))
    return [tuple(next(rewards) for _ in texts) for texts in groups]

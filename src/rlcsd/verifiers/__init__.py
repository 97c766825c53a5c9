"""Verifiers by name; `register` adds a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ..errors import InputError, first_line
from . import knights_and_knaves
from .boxed import last_boxed, without_thinking
from .isolated import IsolatedVerifier, can_fork
from .reward import as_reward, checked_reward, described

# (response text, reference answer) → reward, a bool or a finite number; positive means correct. A verifier that has a
# method `batch(responses, answers)` is given many at a time.
Verifier = Callable[[str, Any], float | bool]

__all__ = [
    "Verifier",
    "exact",
    "get",
    "grade",
    "grade_groups",
    "isolated",
    "last_boxed",
    "register",
    "without_thinking",
]


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


def isolated(verifier: Verifier, seconds: float | None) -> Verifier:
    """The verifier in processes of its own, with a limit of `seconds` for a response.

    Those of this package stay as they are: they take linear time, or have such processes already. So do those with a
    `batch` of their own, which look after their own time, and all where `seconds` is None.
    """
    ours = (exact, knights_and_knaves.verify)
    if seconds is None or verifier in ours or hasattr(verifier, "batch") or not can_fork():
        return verifier
    return IsolatedVerifier(verifier, seconds)


def grade(verifier: Verifier, responses: Sequence[str], answers: Sequence[Any]) -> list[float]:
    """The reward of each response.

    Raises:
        InputError: the verifier raised, or returned anything but a bool or a finite number for each response.
    """
    pairs = list(zip(responses, answers, strict=True))
    if hasattr(verifier, "batch"):
        name = getattr(verifier, "__name__", type(verifier).__name__)
        try:
            results = list(verifier.batch(responses, answers))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"verifier {name!r} raised {type(error).__name__} ({first_line(error)})") from error
        if len(results) != len(pairs):
            raise InputError(f"verifier {name!r} returned {len(results)} rewards for {len(pairs)} responses")
        found = [checked_reward(result) for result in results]
    else:
        found = [as_reward(verifier, *pair) for pair in pairs]
    for pair, (_, complaint) in zip(pairs, found, strict=True):
        if complaint is not None:
            raise InputError(described(verifier, *pair, complaint))
    return [reward for reward, _ in found]


def grade_groups(
    verifier: Verifier, groups: Sequence[Sequence[str]], answers: Sequence[Any]
) -> list[tuple[float, ...]]:
    """The rewards of several responses to each answer, all judged side by side."""
    flat = [answer for texts, answer in zip(groups, answers, strict=True) for _ in texts]
    rewards = iter(grade(verifier, [text for texts in groups for text in texts], flat))
    return [tuple(next(rewards) for _ in texts) for texts in groups]

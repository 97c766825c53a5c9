"""What a verifier may return, and the sentence about one that returns anything else."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any


def as_reward(verifier: Callable[[str, Any], Any], response: str, answer: Any) -> tuple[float, str | None]:
    """The verifier's reward for one response, or 0 and a complaint about the verifier."""
    try:
        result = verifier(response, answer)
    except Exception as error:
        return 0.0, f"raised {type(error).__name__} ({(str(error).strip().splitlines() or ['no message'])[0][:200]})"
    return checked_reward(result)


def checked_reward(result: Any) -> tuple[float, str | None]:
    """A bool or a finite number as a float (a tensor or array of one element counts), or 0 and a complaint."""
    if hasattr(result, "item") and getattr(result, "size", None) is not None:
        with contextlib.suppress(ValueError, RuntimeError, TypeError):
            result = result.item()
    if not isinstance(result, numbers.Real):  # numpy's bool is one only after item()
        return 0.0, f"returned {_short(repr(result))}; it must return a bool or a finite number"
    if not math.isfinite(result):
        return 0.0, f"returned {float(result)}; it must return a bool or a finite number"
    return float(result), None


def described(verifier: Any, response: str, answer: Any, complaint: str) -> str:
    """One sentence: which verifier, on what, and what is wrong with it."""
    name = getattr(verifier, "__name__", type(verifier).__name__)
    given = f"the answer {_short(repr(answer))} and the response {_short(repr(response))}"
    return f"verifier {name!r} {complaint}, for {given}"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

"""Is the last boxed answer mathematically the reference answer?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import MissingError
from .boxed import last_boxed
from .pool import WorkerPool

# Beyond these an answer is right only if it is the reference itself: it is an essay, or made to keep a parser busy.
LONGEST = 1000  # characters
DEEPEST = 12  # brackets inside brackets, for which parsing takes exponential time


class MathVerifier:
    """math-verify, in worker processes, with guards; see `equivalence.py`.

    `seconds` is the hard limit of one comparison; what takes longer counts as wrong.

    Raises:
        MissingError: math-verify is not installed.
    """

    def __init__(self, seconds: float = 5.0, processes: int | None = None) -> None:
        if find_spec("math_verify") is None:
            raise MissingError("verifier=math: comparing answers needs math-verify; pip install 'rlcsd[data]'")
        self.pool = WorkerPool(processes or min(8, os.cpu_count() or 1), seconds)

    def __call__(self, response: str, answer: Any) -> bool:
        """True if the last box of `response` says the same as `answer`, itself boxed or not.

        Raises:
            ValueError: `answer` is empty.
        """
        return self.batch([response], [answer])[0]

    def batch(self, responses: Sequence[str], answers: Sequence[Any]) -> list[bool]:
        """As a call, for many responses side by side."""
        verdicts: list[bool | None] = []
        undecided = []
        for response, answer in zip(responses, answers, strict=True):
            boxed = last_boxed(str(answer))
            reference = str(answer).strip() if boxed is None else boxed
            if not reference:
                raise ValueError("the reference answer is empty")
            given = last_boxed(response)
            verdicts.append(_at_once(given, reference))
            if verdicts[-1] is None:
                undecided.append((given or "", reference))
        found = iter(self.pool.equivalent(undecided) if undecided else [])
        return [next(found) if verdict is None else verdict for verdict in verdicts]


def _at_once(given: str | None, reference: str) -> bool | None:
    """The verdict where it needs no algebra, else None."""
    if not given:
        return False
    if given == reference:
        return True
    return False if any(len(text) > LONGEST or _depth(text) > DEEPEST for text in (given, reference)) else None


def _depth(text: str) -> int:
    """How deeply brackets are nested, whether or not they are closed."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest

"""Is the last boxed answer mathematically the reference answer?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import MissingError
from .boxed import last_boxed
from .latex import clean
from .process import Pool, spawned
from .rewards import Answer

# Beyond these an answer is right only if it is the reference itself: it is an essay, or made to keep a parser busy.
LONGEST = 1000  # characters
DEEPEST = 12  # brackets inside brackets, for which parsing takes exponential time
_END_OF_LINE = re.compile(r"[^\s,;&\\][^\S\n]*\n")  # but for that of a list over several lines


class MathVerifier:
    """Compare the last box with the reference answer (`statements.equivalent`), in processes of its own.

    Args:
        seconds: the limit for one comparison; what takes longer counts as wrong.
        processes: how many work side by side; by default as many as there are cores, at most 8.
        unfinished_thoughts: whether a box counts that stands in a thought (`<think>`) which never ends.

    Raises:
        MissingError: math-verify is not installed.
    """

    def __init__(self, seconds: float = 5.0, processes: int | None = None, unfinished_thoughts: bool = False) -> None:
        if find_spec("math_verify") is None:
            raise MissingError("verifier=math: comparing answers needs math-verify; pip install 'rlcsd[data]'")
        self.unfinished_thoughts = unfinished_thoughts
        start = f"{__name__}:comparison"
        self.pool = Pool(lambda: spawned(start), seconds, processes or min(8, os.cpu_count() or 1), attempts=2)

    def __call__(self, response: str, answer: Any) -> bool:
        """True if the last box of `response` says the same as `answer`, itself boxed or not.

        Raises:
            ValueError: `answer` is empty.
            RuntimeError: no process can be started.
        """
        return self.batch([response], [answer])[0]

    def batch(self, responses: Sequence[str], answers: Sequence[Any]) -> list[bool]:
        """As a call, for many responses side by side."""
        verdicts: list[bool | None] = []
        undecided = []
        for response, answer in zip(responses, answers, strict=True):
            reference = _reference(answer)
            if not reference:
                raise ValueError("the reference answer is empty")
            given = last_boxed(response, self.unfinished_thoughts)
            verdicts.append(_at_once(given, reference))
            if verdicts[-1] is None:
                undecided.append((given or "", reference))
        found = iter(self.pool.ask(undecided) if undecided else [])
        return [bool(next(found)[0]) if verdict is None else verdict for verdict in verdicts]


def is_worked_out(answer: Any) -> bool:
    """Whether a reference is no final answer, which a box could hold, but text that leads to one: it has several lines
    of its own, such as gsm8k's, which end in `#### 72`, or is an essay."""
    reference = clean(_reference(answer))
    lines = _END_OF_LINE.search(reference) is not None and r"\begin" not in reference
    return lines or "####" in reference or len(reference) > LONGEST


def _reference(answer: Any) -> str:
    boxed = last_boxed(str(answer))
    return str(answer).strip() if boxed is None else boxed


def comparison() -> Callable[[str, str], Answer]:
    """What the processes of a `MathVerifier` answer with; whatever a parser makes of odd text, it is not the answer."""
    from .statements import equivalent

    def compare(given: str, reference: str) -> Answer:
        try:
            return equivalent(given, reference), None
        except Exception:
            return False, None

    if not (equivalent("x+1", "1+x") and equivalent("x<1", "(-\\infty,1)")):  # imports, before any clock runs
        raise RuntimeError("the comparison of formulas does not work here")
    return compare


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

"""A task is data and a verifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..prompts import BOXED_INSTRUCTION
from ..records import Problem
from ..verifiers import Verifier

__all__ = ["Problem", "Task"]


@dataclass(frozen=True)
class Task:
    """Training problems, named evaluation sets, and the judge of responses.

    Raises:
        InputError: an empty set, a problem without question or answer, or an answer that the verifier cannot read.
    """

    name: str
    train: Sequence[Problem]
    evaluations: Mapping[str, Sequence[Problem]]
    verifier: Verifier
    instruction: str = BOXED_INSTRUCTION

    def __post_init__(self) -> None:
        for name, problems in {"train": self.train, **self.evaluations}.items():
            if not problems:
                raise InputError(f"task={self.name}: there are no problems in {name!r}")
            for row, problem in enumerate(problems):
                empty = (
                    "question"
                    if not problem.question.strip()
                    else "answer"
                    if not str(problem.answer).strip()
                    else None
                )
                if empty:
                    raise InputError(f"task={self.name}: the {empty} of problem {row} in {name!r} is empty")
                try:
                    self.verifier("", problem.answer)
                except Exception as error:
                    raise InputError(
                        f"task={self.name}: problem {row} in {name!r} cannot be verified ({error})"
                    ) from None

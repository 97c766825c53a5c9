"""A task is data and a verifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..metrics import Metrics
from ..prompts import BOXED_INSTRUCTION
from ..records import Problem
from ..verifiers import Verifier, get, grade, isolated

__all__ = ["Problem", "Task"]


@dataclass(frozen=True)
class Task:
    """Training problems, named evaluation sets, and the judge of responses.

    `verifier` is a callable or the name of a registered one. One of the user's own runs in processes of its own and may
    take `verifier_seconds` for a response; None runs it in this process without a limit (a reward model on a GPU).

    `figures` says more of a response than its verdict, for the log: means by name, each with its weight.

    Raises:
        InputError: an empty set, a problem without question or answer, or an answer that the verifier cannot read.
    """

    name: str
    train: Sequence[Problem]
    evaluations: Mapping[str, Sequence[Problem]]
    verifier: Verifier
    instruction: str = BOXED_INSTRUCTION
    verifier_seconds: float | None = 60.0
    figures: Callable[[Problem, str], Metrics] | None = None

    def __post_init__(self) -> None:
        verifier = get(self.verifier) if isinstance(self.verifier, str) else self.verifier
        if not callable(verifier):
            raise InputError(f"task={self.name}: the verifier must be a function or a name, not {verifier!r}")
        object.__setattr__(self, "verifier", isolated(verifier, self.verifier_seconds))
        if not isinstance(self.evaluations, Mapping):
            raise InputError(f"task={self.name}: evaluations must map names to lists of problems")
        for name, problems in {"train": self.train, **self.evaluations}.items():
            if not isinstance(problems, Sequence):
                kind = type(problems).__name__
                raise InputError(f"task={self.name}: {name!r} must be a list of problems, not a {kind}")
            if not problems:
                raise InputError(f"task={self.name}: there are no problems in {name!r}")
            for row, problem in enumerate(problems):
                self._check(problem, f"problem {row} in {name!r}")

    def _check(self, problem: Problem, where: str) -> None:
        if not isinstance(problem, Problem):
            raise InputError(f"task={self.name}: {where} must be a rlcsd.Problem, not a {type(problem).__name__}")
        for field in ("question", "answer"):
            if not str(getattr(problem, field)).strip():
                raise InputError(f"task={self.name}: the {field} of {where} is empty")
        try:
            grade(self.verifier, [""], [problem.answer])
        except InputError as error:
            raise InputError(f"task={self.name}: {where} cannot be verified ({error})") from None

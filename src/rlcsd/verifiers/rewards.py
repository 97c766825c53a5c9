"""Calls of verifiers, checks of what they return, and weighted sums of several rewards."""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..errors import InputError
from ..records import Problem, Verdict

_ROUNDING = 1e-6  # relative: 0.7 + 0.2 + 0.1 is a little less than 1, in float32 by more than in float64


Result = Verdict | float  # what a verifier may return, checked
Answer = tuple[Any, str | None]  # what was returned, and a complaint if nothing was


class VerifierError(InputError):
    """Something is wrong with a verifier; `problem` is the one that it was judging, if that is known."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True)
class Form:
    """The second argument of a verifier: the problem as a whole or its answer, passed by position or by its name."""

    whole: bool = False
    keyword: str | None = None

    def subject(self, problem: Problem) -> Any:
        return problem if self.whole else problem.answer

    def call(self, verifier: Callable[..., Any], response: Any, subject: Any) -> Any:
        return verifier(response, **{self.keyword: subject}) if self.keyword else verifier(response, subject)


def form_of(verifier: Any) -> Form:
    """The form of a verifier, or of the `batch` of one, by its signature.

    It takes whole problems if its second parameter is called `problem` (`problems`) or annotated as a `Problem`, and
    reference answers otherwise. Methods, partials, callable objects and decorated functions have signatures too; one
    without (some built-in functions) takes answers.
    """
    if isinstance(form := getattr(verifier, "form", None), Form):
        return form
    try:
        parameters = list(inspect.signature(verifier).parameters.values())
    except (TypeError, ValueError):
        return Form()
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    by_name = [p for p in parameters if p.kind is p.KEYWORD_ONLY and (p.default is p.empty or _takes_problem(p))]
    if len(by_position) > 1:
        return Form(_takes_problem(by_position[1]))
    if variadic or not by_name:
        return Form()
    return Form(_takes_problem(by_name[0]), by_name[0].name)


def _takes_problem(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation  # a text in a file with `from __future__ import annotations`
    named = annotation is Problem or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Problem")
    return named or parameter.name in ("problem", "problems")


def as_result(verifier: Callable[..., Any], form: Form, response: str, subject: Any) -> tuple[Result, str | None]:
    """What the verifier returned for one response, or 0 and a complaint about the verifier."""
    try:
        result = form.call(verifier, response, subject)
    except Exception as error:
        return 0.0, f"raised {type(error).__name__} ({(str(error).strip().splitlines() or ['no message'])[0][:200]})"
    if isinstance(result, Coroutine):
        result.close()  # nobody will await it
        return 0.0, "returned a coroutine; define it with `async def`, so that it is awaited"
    return checked(result)


def checked(result: Any) -> tuple[Result, str | None]:
    """A verdict, or a finite number as a float, or 0 and a complaint. True and False are verdicts.

    A tensor or array of one element counts as its element.
    """
    if isinstance(result, Verdict):
        return _checked_verdict(result)
    value = _plain(result)
    if isinstance(value, bool):
        return Verdict(value, float(value)), None
    number = _number(value)
    if number is None:
        return 0.0, f"returned {_short(repr(result))}; it must return a bool, a finite number or a rlcsd.Verdict"
    return number, None


def _checked_verdict(verdict: Verdict) -> tuple[Result, str | None]:
    correct, reward = _plain(verdict.correct), _number(verdict.reward)
    wrong = None
    if not isinstance(correct, bool):
        wrong = f"correct={_short(repr(verdict.correct))}, which must be True or False"
    elif reward is None:
        wrong = f"reward={_short(repr(verdict.reward))}, which must be a finite number"
    elif not isinstance(verdict.feedback, str | None):
        wrong = f"feedback={_short(repr(verdict.feedback))}, which must be a text or None"
    elif not isinstance(verdict.answer, str | None):
        wrong = f"answer={_short(repr(verdict.answer))}, which must be a text or None"
    parts = verdict.parts if isinstance(verdict.parts, Mapping) else {"": None}
    figures = {str(name): _number(value) for name, value in parts.items()}
    if wrong is None and None in figures.values():
        wrong = f"parts={_short(repr(verdict.parts))}, which must map names to finite numbers"
    if wrong is not None or not isinstance(correct, bool) or reward is None:
        return 0.0, f"returned a Verdict with {wrong}"
    numbers = {name: value for name, value in figures.items() if value is not None}
    return Verdict(correct, reward, numbers, verdict.feedback or None, verdict.answer), None


def _plain(value: Any) -> Any:
    """numpy's and torch's scalars as Python's own."""
    if hasattr(value, "item") and getattr(value, "size", None) is not None:
        with contextlib.suppress(ValueError, RuntimeError, TypeError):
            return value.item()
    return value


def _number(value: Any) -> float | None:
    """A finite number as a float: Python's own, numpy's, torch's, a fraction or a decimal; None for all else."""
    value = _plain(value)
    if not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # an integer beyond all floats; a signalling NaN
        return None
    return number if math.isfinite(number) else None


def as_verdict(result: Result, success: float) -> Verdict:
    """A plain number is correct from `success` on."""
    return (
        result
        if isinstance(result, Verdict)
        else Verdict(result >= success - _ROUNDING * max(1.0, abs(success)), result)
    )


def described(verifier: Any, response: str, subject: Any, complaint: str) -> str:
    """One sentence: which verifier, on what, and what is wrong with it."""
    answer = subject.answer if isinstance(subject, Problem) else subject
    given = f"the answer {_short(repr(answer))} and the response {_short(repr(response))}"
    who = "" if isinstance(verifier, WeightedRewards) else f"verifier {name_of(verifier)!r} "  # its complaint says who
    return f"{who}{complaint}, for {given}"


def name_of(verifier: Any) -> str:
    """A function's own name, or that of the class of a callable object or the function in a partial."""
    inner = getattr(verifier, "func", verifier)
    return getattr(inner, "__name__", type(verifier).__name__)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


# ------------------------------------------------------------------ several verifiers as one

Asker = Callable[[Any, Sequence[str], Sequence[Problem], bool], list[Answer]]  # answers are verdicts


@dataclass(frozen=True)
class Reward:
    """One of several verifiers: what its reward is multiplied by, and its name in the log (by default its own).

    >>> from rlcsd import Problem, Reward, Task
    >>> def brief(response, answer):
    ...     return len(response) < 200
    >>> rewards = [Reward("exact", decides=True), Reward(brief, weight=0.1)]
    >>> task = Task("parity", [Problem("Is 7 even or odd?", "odd")], {}, rewards)
    >>> task.judge(task.train, [("\\\\boxed{odd}",)])[0][0].reward
    1.1

    `decides`: whether it is one of those that a response must satisfy to be correct. Where no reward says so, those of
    the largest weight decide.
    """

    verifier: Any
    weight: float = 1.0
    name: str = ""
    decides: bool = False

    @property
    def label(self) -> str:
        own = self.verifier.rpartition(":")[2] if isinstance(self.verifier, str) else name_of(self.verifier)
        return self.name or own.strip("<>")


class WeightedRewards:
    """Reward Σ weight · reward of each part; correct if all parts that decide are.

    `parts` of the verdicts are the parts' own rewards, without weights. What parts say of a response is joined.

    Raises:
        InputError: no part, two of one name, a name that cannot be in a log, or weights that are all 0.
    """

    def __init__(self, rewards: Sequence[Reward], ask: Asker) -> None:
        self.rewards, self._ask = list(rewards), ask
        labels = [reward.label for reward in rewards]
        if not rewards or not any(reward.weight for reward in rewards):
            raise InputError("task.rewards: at least one reward with a weight other than 0 is needed")
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"task.rewards: two rewards are called {label!r}; give one of them a name of its own")
            if not re.fullmatch(r"[\w.-]+", label):
                raise InputError(f"task.rewards: {label!r} cannot be a name in the log; use letters, digits, . _ or -")
        for label, reward in zip(labels, rewards, strict=True):
            if isinstance(reward.weight, bool | str) or not math.isfinite(reward.weight):
                raise InputError(
                    f"task.rewards: the weight of {label!r} must be a finite number, not {reward.weight!r}"
                )
        largest = max(reward.weight for reward in rewards)
        marked = any(reward.decides for reward in rewards)
        self.deciding = [r.decides if marked else r.weight == largest for r in rewards]

    def ask(self, responses: Sequence[str], problems: Sequence[Problem], stop: bool = True) -> list[Answer]:
        """The joint verdict on each response, or the complaint about the first part that failed on it."""
        columns: list[list[Answer]] = []
        for reward in self.rewards:
            columns.append(self._ask(reward.verifier, responses, problems, stop))
            if stop and any(complaint is not None for _, complaint in columns[-1]):
                break
        return [self._answer(row) for row in zip(*columns, strict=True)]

    def _answer(self, row: Sequence[Answer]) -> Answer:
        for reward, (_, complaint) in zip(self.rewards, row, strict=False):
            if complaint is not None:
                return 0.0, f"verifier {name_of(reward.verifier)!r} {complaint}"
        if len(row) < len(self.rewards):  # another response stopped the rest
            return 0.0, None
        return self._joint([verdict for verdict, _ in row]), None

    def _joint(self, verdicts: Sequence[Verdict]) -> Verdict:
        parts: dict[str, float] = {}
        for reward, verdict in zip(self.rewards, verdicts, strict=True):
            parts[reward.label] = verdict.reward
            parts |= {f"{reward.label}/{name}": value for name, value in verdict.parts.items()}
        said = [verdict.feedback for verdict in verdicts if verdict.feedback]
        decided = [verdict for verdict, decides in zip(verdicts, self.deciding, strict=True) if decides]
        return Verdict(
            correct=all(verdict.correct for verdict in decided),
            reward=sum(r.weight * v.reward for r, v in zip(self.rewards, verdicts, strict=True)),
            parts=parts,
            feedback="\n".join(said) or None,
            answer=next((verdict.answer for verdict in decided if verdict.answer is not None), None),
        )

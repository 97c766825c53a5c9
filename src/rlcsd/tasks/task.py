"""Tasks: training problems, evaluation sets and a verifier; and which problems two sets share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError, first_line
from ..prompts import BOXED_INSTRUCTION
from ..records import Problem, Verdict
from ..verifiers import (
    CONCURRENCY,
    AsyncVerifier,
    Reward,
    Verifier,
    VerifierError,
    WeightedRewards,
    as_given,
    ask_for_verdicts,
    close,
    get,
    isolated,
    needs_answer,
    raise_first,
    reading_thoughts,
    reads_boxes,
    unmatched,
)
from .cells import Columns, problems_of, rows_of, split

if TYPE_CHECKING:  # the module needs torch, and tasks do not
    from ..metrics import Metrics

__all__ = ["Overlap", "Problem", "Reward", "Task", "Verdict", "normalised", "overlaps"]

_QUICK = ("exact", "knights_and_knaves")  # verifiers that take microseconds for a response
_TRIED_JUDGE = 1  # and one that asks another program, which may cost money
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a verifier that failed is asked again
_TRIED = 64  # problems of a set that any other verifier is tried on before a run


@dataclass(frozen=True)
class Task:
    """Training problems, named evaluation sets, and the verifier of responses.

    >>> from rlcsd import Problem, Task
    >>> problems = [Problem(f"Is {n} even or odd?", "odd" if n % 2 else "even") for n in range(20)]
    >>> task = Task("parity", problems[:16], {"held_out": problems[16:]}, verifier="exact")
    >>> [verdict.correct for verdict in task.judge(task.train[:1], [("\\\\boxed{even}", "\\\\boxed{odd}")])[0]]
    [True, False]

    `verifier` is a callable, the name of a registered one, `path/to/file.py:name`, or a list of `Reward`, whose
    weighted sum is the reward. One of the user's own runs in processes of its own and may take `verifier_seconds` for
    a response; None runs it in this process without a limit (a reward model on a GPU). Where a verifier returns a
    number, a response is correct from `success` on; a bool or a `Verdict` says itself whether it is. `system_prompt` is
    the system message of problems that have none of their own, and `source` says where they are from.
    With `unfinished_thoughts`, the verifiers of this package take a box in a thought (`<think>`) that never ends for an
    answer.

    `answer_of` reads the final answer of a response, None if it has none; hints state it. By default it is the content
    of the last box. A `Verdict` with an `answer` goes before it.

    A verifier that raises, takes too long or returns nonsense ends the run (`on_verifier_error="stop"`); "retry" asks
    it up to five times more, after 1, 2, 4, 8 and 16 seconds, before it does; "wrong" takes the response for wrong,
    unless the verifier fails on all responses that it is given. `verifier_processes` is the number of processes (by
    default up to four), `verifier_concurrency` how many responses an `async def` verifier judges at a time.

    An answer may be empty where the verifier has an attribute `needs_answer = False`.

    `figures` gives task-specific metrics of a response, for the log: means by name, each with its weight.

    An empty response is judged when a task is made, so that a verifier that cannot judge is known before a run: for
    every problem where the verifier is quick, else for 64 problems of each set.

    Raises:
        InputError: an empty set, a problem without question or answer, one that the verifier cannot judge, or `math`
            with worked solutions for most of a set's answers.
    """

    name: str
    train: Sequence[Problem]
    evaluations: Mapping[str, Sequence[Problem]]
    verifier: Verifier | str | Sequence[Reward]
    instruction: str = BOXED_INSTRUCTION
    verifier_seconds: float | None = 60.0
    success: float = 1.0
    system_prompt: str = ""
    figures: Callable[[Problem, str], Metrics] | None = None
    source: str = ""
    unfinished_thoughts: bool = False
    answer_of: Callable[[str], str | None] | None = None
    on_verifier_error: Literal["stop", "retry", "wrong"] = "stop"
    verifier_processes: int | None = None
    verifier_concurrency: int = CONCURRENCY

    def __post_init__(self) -> None:
        if self.on_verifier_error not in ("stop", "retry", "wrong"):
            raise InputError(
                f"task={self.name}: on_verifier_error must be stop, retry or wrong, not {self.on_verifier_error!r}"
            )
        for field in ("verifier_processes", "verifier_concurrency"):
            number = getattr(self, field)
            if number is not None and not (isinstance(number, int) and number > 0):
                raise InputError(f"task={self.name}: {field} must be a whole number above 0, not {number!r}")
        seconds = self.verifier_seconds
        if seconds is not None and not seconds > 0:
            raise InputError(f"task={self.name}: verifier_seconds must be a number above 0, or None, not {seconds}")
        object.__setattr__(self, "verifier", self._callable(self.verifier))
        self._check_sets()
        if self.system_prompt:
            object.__setattr__(self, "train", self._with_system_prompt(self.train))
            evaluations = {name: self._with_system_prompt(problems) for name, problems in self.evaluations.items()}
            object.__setattr__(self, "evaluations", evaluations)
        quick = any(self.verifier == get(name) for name in _QUICK)
        whole: Any = self.verifier
        parts = [reward.verifier for reward in whole.rewards] if isinstance(whole, WeightedRewards) else [whole]
        tried = _TRIED_JUDGE if any(isinstance(part, AsyncVerifier) for part in parts) else _TRIED
        for name, problems in self._sets():
            answer = unmatched(self.verifier, [problem.answer for problem in _spread(problems, _TRIED)])
            if answer is not None:
                raise InputError(
                    f"task={self.name}: verifier=math compares with a final answer, and most answers in {name!r} are "
                    f"more than that, such as {_end_of(answer)!r}; give the final answer alone (task.answer=COLUMN)"
                )
            some = problems if quick else _spread(problems, tried)
            self.judge(some, [("",)] * len(some))

    @classmethod
    def from_rows(
        cls,
        name: str,
        rows: Any,
        verifier: Verifier | str | Sequence[Reward] = "exact",
        *,
        question: str = "question",
        answer: str = "answer",
        solution: str | None = None,
        group: str | None = None,
        test_fraction: float | None = None,
        evaluations: Mapping[str, Any] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Task:
        """A task from the rows of a table.

        >>> from rlcsd import Task
        >>> rows = [{"q": f"{a} + {b} = ?", "a": a + b} for a in range(10) for b in range(10)]
        >>> task = Task.from_rows("sums", rows, question="q", answer="a", test_fraction=0.2)
        >>> len(task.train), len(task.evaluations["test"])
        (80, 20)

        Args:
            rows: a list of mappings, a `datasets.Dataset`, or a DataFrame of pandas or polars.
            verifier: see `Task`.
            question: the column of the question: a text, or a chat in which the user has the last word.
            answer: the column of the reference answer: a text or a number.
            solution: the column of a worked solution, if there is one.
            group: the column of the kind of problem, for tables.
            test_fraction: this share of the rows becomes the evaluation set `test` and is not trained on. Rows that ask
                the same question stay on one side.
            evaluations: further evaluation sets, tables of the same columns by name.
            seed: of the split.
            options: fields of `Task`, such as `instruction` or `system_prompt`.

        Raises:
            InputError: no rows, a column that is not there, an empty cell, or a fraction that leaves a side empty.
        """
        columns = Columns(question, answer, solution, group)
        where = f"task={name}"
        asked = needs_answer(verifier)
        train = problems_of(where, rows_of(where, rows), columns, asked)
        sets: dict[str, Sequence[Problem]] = {
            label: problems_of(f"{where}, {label}", rows_of(f"{where}, {label}", table), columns, asked)
            for label, table in (evaluations or {}).items()
        }
        if test_fraction is not None:
            if "test" in sets:
                raise InputError(
                    f"{where}: test_fraction makes an evaluation set `test`, which evaluations has already"
                )
            if not 0 < test_fraction < 1:
                raise InputError(f"{where}: test_fraction must be between 0 and 1, not {test_fraction}")
            train, sets["test"] = split(train, [normalised(without_system(p)) for p in train], test_fraction, seed)
            if not train:
                raise InputError(f"{where}: test_fraction={test_fraction} leaves nothing to train on; lower it")
        return cls(name, train, sets, verifier, **options)

    def judge(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[tuple[Verdict, ...]]:
        """The verdicts on several responses to each problem.

        Raises:
            InputError: the verifier raised, took too long or returned nonsense, and `on_verifier_error` does not say
                what else to do; the sentence names it and the row.
        """
        flat = [problem for texts, problem in zip(responses, problems, strict=True) for _ in texts]
        try:
            verdicts = iter(self._verdicts([text for texts in responses for text in texts], flat))
        except VerifierError as error:
            where = self._where(error.problem) if error.problem is not None else "a problem"
            raise InputError(f"task={self.name}: {where} cannot be verified ({error})") from error
        return [tuple(next(verdicts) for _ in texts) for texts in responses]

    def _verdicts(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The verdict on each response, after what `on_verifier_error` says. Raises VerifierError."""
        stop = self.on_verifier_error == "stop"
        answers = self._answers(self.verifier, responses, problems, stop)
        attempts = [1] * len(answers)
        for seconds in _WAITS if self.on_verifier_error == "retry" else ():
            failed = [index for index, (_, complaint) in enumerate(answers) if complaint is not None]
            if not failed:
                break
            time.sleep(seconds)
            texts, theirs = [responses[index] for index in failed], [problems[index] for index in failed]
            again = self._answers(self.verifier, texts, theirs, stop)
            for index, answer in zip(failed, again, strict=True):
                answers[index], attempts[index] = answer, attempts[index] + 1
        failures = sum(complaint is not None for _, complaint in answers)
        if self.on_verifier_error != "wrong" or failures == len(answers):
            raise_first(self.verifier, responses, problems, answers)
        return [
            replace(verdict, attempts=number) if complaint is None else Verdict(False, 0.0, error=complaint)
            for (verdict, complaint), number in zip(answers, attempts, strict=True)
        ]

    def close(self) -> None:
        """End the verifier's processes. The end of a run calls it; a later response starts them again."""
        close(self.verifier)

    @property
    def hints_by_text(self) -> bool:
        """Whether a wrong response may be a hint by its text where no answer can be read in it.

        Not where answers are read from boxes, as in the published experiments, or by `answer_of`: without an answer a
        response states none there. A verifier of one's own may judge by anything.
        """
        return self.answer_of is None and not reads_boxes(self.verifier)

    def read_answer(self, response: str, verdict: Verdict) -> str | None:
        """The final answer as the verdict or `answer_of` has it, "" if they find none; None: neither reads it.

        Raises:
            InputError: `answer_of` raised, or returned anything but a text or None.
        """
        if verdict.answer is not None or self.answer_of is None:
            return verdict.answer
        try:
            found = self.answer_of(response)
        except Exception as error:
            raise InputError(
                f"task={self.name}: answer_of raised {type(error).__name__} ({first_line(error)})"
            ) from error
        if not isinstance(found, str | None):
            raise InputError(f"task={self.name}: answer_of must return a text or None, not {found!r}")
        return (found or "").strip()

    def _answers(
        self, verifier: Any, responses: Sequence[str], problems: Sequence[Problem], stop: bool
    ) -> list[tuple[Any, str | None]]:
        """The verdict on each response, or a complaint; see `verifiers.ask`."""
        return ask_for_verdicts(verifier, responses, problems, self.success, stop)

    def _callable(self, verifier: Verifier | str | Sequence[Reward]) -> Any:
        verifier = as_given(verifier)  # that of another task (dataclasses.replace) is bound to the other's settings
        if isinstance(verifier, Sequence) and not isinstance(verifier, str):
            for reward in verifier:
                if not isinstance(reward, Reward):
                    raise InputError(f"task={self.name}: a list of verifiers must hold rlcsd.Reward, not {reward!r}")
            named = [replace(r, name=r.label, verifier=self._callable(r.verifier)) for r in verifier]
            return WeightedRewards(named, self._answers)
        found = get(verifier, self.unfinished_thoughts) if isinstance(verifier, str) else verifier
        if not (callable(found) or hasattr(found, "batch")):
            raise InputError(f"task={self.name}: the verifier must be a function or a name, not {found!r}")
        own = reading_thoughts(found, self.unfinished_thoughts)
        return isolated(own, self.verifier_seconds, self.verifier_processes, self.verifier_concurrency)

    def _with_system_prompt(self, problems: Sequence[Problem]) -> list[Problem]:
        """The problems, each with the system prompt unless it has one of its own."""
        first = ("system", self.system_prompt)
        return [
            problem
            if any(role == "system" for role, _ in problem.history)
            else replace(problem, history=(first, *problem.history))
            for problem in problems
        ]

    def _sets(self) -> list[tuple[str, Sequence[Problem]]]:
        return [("train", self.train), *self.evaluations.items()]

    def _where(self, problem: Problem) -> str:
        for name, problems in self._sets():
            for row, other in enumerate(problems):
                if other is problem:
                    return f"problem {row} in {name!r}"
        return f"the problem {problem.question[:60]!r}"

    def _check_sets(self) -> None:
        if not isinstance(self.evaluations, Mapping):
            raise InputError(f"task={self.name}: evaluations must map names to lists of problems")
        for name in self.evaluations:
            if not isinstance(name, str) or not name.strip() or name == "average" or ": " in name:
                raise InputError(
                    f"task={self.name}: an evaluation set cannot be called {name!r}; use a name without ': ', and not "
                    "'average'"
                )
        for name, problems in self._sets():
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
        for field in ("question", "answer") if needs_answer(self.verifier) else ("question",):
            if not str(getattr(problem, field)).strip():
                judge = "; a verifier that needs none says so, needs_answer = False" if field == "answer" else ""
                raise InputError(f"task={self.name}: the {field} of {where} is empty{judge}")


def _spread(problems: Sequence[Problem], most: int) -> Sequence[Problem]:
    """At most so many problems, evenly spaced."""
    return problems[:: -(-len(problems) // most)]


def _end_of(text: str) -> str:
    return text if len(text) <= 80 else f"…{text[-79:]}"


# ------------------------------------------------------------------ overlap

_TYPESETTING = re.compile(r"\\(?:left|right|text|mathrm|displaystyle|q?quad)\b|\\[,;:! ]")
_SILENT = re.compile(r"[\s$\\{}.,;:!?~`'\"“”’]+")


def normalised(question: str) -> str:
    """Lower case without typesetting, space and punctuation: what survives a re-typed problem. Operators stay."""
    return _SILENT.sub("", _TYPESETTING.sub(" ", question).lower())


def without_system(problem: Problem) -> str:
    """The conversation without its system messages, which do not make another question of it."""
    return replace(problem, history=tuple(turn for turn in problem.history if turn[0] != "system")).text


@dataclass(frozen=True)
class Overlap:
    """How many problems of an evaluation set are also in the training set; `normalised` includes `exact`."""

    name: str
    problems: int
    exact: int
    normalised: int
    example: str | None = None

    def __str__(self) -> str:
        shown = f"; for example: {self.example[:80]!r}" if self.example else ""
        counts = (
            f"{self.exact} of {self.problems} problems are in the training set as written, {self.normalised} normalised"
        )
        return f"{self.name}: {counts}{shown}"


def overlaps(train: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]]) -> list[Overlap]:
    """For each evaluation set, which of its problems are in the training set: as written, and `normalised`."""
    written = {without_system(problem) for problem in train}
    loose = {normalised(question) for question in written}
    shares = []
    for name, problems in evaluations.items():
        questions = [without_system(problem) for problem in problems]
        shared = [question for question in questions if question in written or normalised(question) in loose]
        exact = sum(question in written for question in shared)
        shares.append(Overlap(name, len(problems), exact, len(shared), shared[0] if shared else None))
    return shares

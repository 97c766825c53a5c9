"""Verifiers that judge many responses at a time: coroutines (`async def`) and objects with a method `batch`.

Both run in this process, beside the run: what they wait for is another program (a judge behind HTTP) or a device that
only this process may use. Neither can be ended from outside, but no call is waited for beyond its time limit.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ..errors import InputError, first_line
from ..records import Problem
from .rewards import Answer, checked, form_of, name_of

_GRACE = 2.0  # seconds beyond a limit after which a loop in which nothing ends counts as blocked


def is_async(function: Any) -> bool:
    """Is it an `async def`, a partial of one, or an object whose call is one?"""
    inner = function.func if isinstance(function, partial) else function
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


class AsyncVerifier:
    """An `async def` verifier, awaited for up to `concurrency` responses at a time, each for `seconds` at most.

    All calls share one event loop, so that a client keeps its connections from step to step. None: no limit.
    """

    def __init__(self, verifier: Callable[..., Awaitable[Any]], seconds: float | None, concurrency: int) -> None:
        self.verifier, self.seconds, self.concurrency = verifier, seconds, concurrency
        self.form, self.__name__ = form_of(verifier), name_of(verifier)

    def ask(self, responses: Sequence[str], problems: Sequence[Problem], stop: bool = True) -> list[Answer]:
        """What was returned for each response, or a complaint. With `stop` the first complaint cancels the rest."""
        answers: list[Answer | None] = [None] * len(responses)
        ended = [time.monotonic()]  # when something last ended
        last = [0]  # what was begun last: a loop that is blocked is most likely blocked by it

        async def all_of_them() -> None:
            free = asyncio.Semaphore(self.concurrency)
            stopped = False

            async def one(index: int) -> None:
                nonlocal stopped
                async with free:
                    if stopped:
                        return
                    last[0] = index
                    subject = self.form.subject(problems[index])
                    call = partial(self.form.call, self.verifier, responses[index], subject)
                    answers[index] = await _awaited(call, self.seconds)
                    ended[0] = time.monotonic()
                    stopped = stopped or (stop and answers[index][1] is not None)  # type: ignore[index]

            tasks = [asyncio.ensure_future(one(index)) for index in range(len(responses))]
            for task in asyncio.as_completed(tasks):
                await task
                if stopped:
                    break
            for waiting in tasks:
                waiting.cancel()

        loop = _Loop.shared()
        future = asyncio.run_coroutine_threadsafe(all_of_them(), loop.loop)
        while not future.done():
            if self.seconds is not None and time.monotonic() - ended[0] > self.seconds + _GRACE:
                loop.abandon()
                future.cancel()
                complaint = f"did not come back to the event loop within {self.seconds:g} s; await what waits"
                blamed = last if stop else range(len(answers))
                return [
                    answer or ((0.0, complaint) if index in blamed else (0.0, None))
                    for index, answer in enumerate(answers)
                ]
            _wait(future)
        future.result()
        return [(0.0, None) if answer is None else answer for answer in answers]

    def __call__(self, response: str, problem: Problem) -> Any:
        """What the verifier says of one response to a problem; raises InputError as a task does."""
        ((result, complaint),) = self.ask([response], [problem])
        if complaint is not None:
            raise InputError(f"verifier {self.__name__!r} {complaint}")
        return result


class BatchVerifier:
    """A verifier with a method `batch`, in a thread of its own.

    A call is given `seconds` for every `concurrency` responses in it. None: no limit.
    """

    def __init__(self, verifier: Any, seconds: float | None, concurrency: int = 1) -> None:
        self.verifier, self.seconds, self.concurrency = verifier, seconds, concurrency
        self.form, self.__name__ = form_of(verifier.batch), name_of(verifier)

    def ask(self, responses: Sequence[str], problems: Sequence[Problem], stop: bool = True) -> list[Answer]:
        """What was returned for each response, or a complaint.

        If a call raises, each response is judged by itself, to know which of them it was; with `stop` up to that one.
        """
        results, complaint, raised = self._call(responses, problems)
        if complaint is None:
            return [checked(result) for result in results]
        if not raised or len(responses) == 1:
            return [(0.0, complaint)] * len(responses)
        alone: list[Answer] = []
        for response, problem in zip(responses, problems, strict=True):
            alone += self.ask([response], [problem], stop)
            if stop and alone[-1][1] is not None:
                return alone + [(0.0, None)] * (len(responses) - len(alone))
        # Together it fails and alone it does not: the call is to blame, and no response.
        return alone if not stop else [(0.0, complaint)] * len(responses)

    def batch(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Any]:
        """The results of a call; raises InputError as a task does."""
        answers = self.ask(responses, problems)
        for _, complaint in answers:
            if complaint is not None:
                raise InputError(f"verifier {self.__name__!r} {complaint}")
        return [result for result, _ in answers]

    def __call__(self, response: str, problem: Problem) -> Any:
        return self.batch([response], [problem])[0]

    def _call(self, responses: Sequence[str], problems: Sequence[Problem]) -> tuple[list[Any], str | None, bool]:
        """The results of one call; or a complaint, and whether it raised."""
        subjects = [self.form.subject(problem) for problem in problems]
        seconds = None if self.seconds is None else self.seconds * math.ceil(len(responses) / self.concurrency)
        found: list[Any] = []

        def call() -> None:
            try:
                results = self.form.call(self.verifier.batch, responses, subjects)
                found.append(asyncio.run(_result(results)) if inspect.isawaitable(results) else list(results))
            except KeyboardInterrupt:  # of the user, in this thread
                raise
            except BaseException as error:
                found.append(error)

        if seconds is None:
            call()
        else:
            thread = threading.Thread(target=call, daemon=True)
            thread.start()
            thread.join(seconds)
        if not found:
            return [], f"took longer than {seconds:g} s for {len(responses)} responses", False
        if isinstance(found[0], InputError):
            raise found[0]
        if isinstance(found[0], BaseException):
            return [], f"raised {type(found[0]).__name__} ({first_line(found[0])})", True  # type: ignore[arg-type]
        if len(found[0]) != len(responses):
            return [], f"returned {len(found[0])} rewards for {len(responses)} responses", False
        return found[0], None, False


async def _result(awaitable: Awaitable[Any]) -> list[Any]:
    return list(await awaitable)


async def _awaited(call: Callable[[], Awaitable[Any]], seconds: float | None) -> Answer:
    """What a call returned within its limit, checked, or a complaint."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return checked(await call())
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return 0.0, f"took longer than {seconds:g} s"
        return 0.0, f"raised {type(error).__name__} ({first_line(error)[:200]})"


def _wait(future: Any) -> None:
    try:
        future.exception(timeout=0.1)
    except TimeoutError:
        return


class _Loop:
    """An event loop in a thread of this process; a fork, or a loop that was abandoned, gets another one."""

    _current: _Loop | None = None

    def __init__(self) -> None:
        self.process, self.loop = os.getpid(), asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    @classmethod
    def shared(cls) -> _Loop:
        if cls._current is None or cls._current.process != os.getpid():
            cls._current = cls()
        return cls._current

    def abandon(self) -> None:
        """Leave a loop that is blocked to itself: nothing can end its thread."""
        _Loop._current = None

"""Every wait on other processes is bounded, and what dies meanwhile ends it with a sentence."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import ray
from ray import exceptions

from ...errors import InputError, first_line
from ...storage import is_disk_full
from .ray_cluster import lost

T = TypeVar("T")
_PULSE = 1.0  # seconds after which a wait looks whether the cluster is still there


def results(references: Sequence[Any], what: str, timeout: float) -> list[Any]:
    """What the references become, in their order; the first that fails ends the wait.

    Raises:
        InputError: a process died, memory ran out, `timeout` seconds have passed, or whatever else went wrong there.
        OSError: a disk is full.
    """
    waiting, check = list(references), _Limit(what, timeout, "no answer within")
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=check.pause)
        if not ready:
            check()
            continue
        with told(what):
            ray.get(ready)
    with told(what):
        return list(ray.get(list(references)))


def bounded(function: Callable[[], T], what: str, timeout: float) -> T:
    """The result of a function of verl's that waits for processes without a limit of its own; errors as in `results`.

    It runs in a thread that nobody waits for if the time is over.
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    thread, check = threading.Thread(target=run, daemon=True), _Limit(what, timeout, "not done within")
    thread.start()
    while thread.is_alive():
        thread.join(check.pause)
        if thread.is_alive():
            check()
    result, error = outcome[0]
    if error is not None:
        raise translated(error, what) from error
    return cast(T, result)


def awaited(work: Awaitable[T], what: str, timeout: float) -> T:
    """The result of a coroutine that talks to servers; errors as in `results`."""
    return gathered([work], what, timeout)[0]


def gathered(requests: Sequence[Awaitable[T]], what: str, timeout: float) -> list[T]:
    """What requests to servers become, in their order; errors as in `results`.

    The time is over when none of them has ended for `timeout` seconds: many requests wait for their turn.
    """

    async def limited() -> list[T]:
        tasks = [asyncio.ensure_future(request) for request in requests]
        waiting, check = set(tasks), _Limit(what, timeout, "no answer within")
        try:
            while waiting:
                ended, waiting = await asyncio.wait(waiting, timeout=check.pause, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
                if ended:
                    check.renew()
                else:
                    check()
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    with told(what):
        return asyncio.run(limited())


class _Limit:
    """Called after each pause of a wait: raises InputError when its time is over, or when Ray is gone."""

    def __init__(self, what: str, timeout: float, words: str) -> None:
        self.what, self.timeout, self.words = what, timeout, words
        self.renew()

    def renew(self) -> None:
        """The whole time again."""
        self.end = time.monotonic() + self.timeout

    @property
    def pause(self) -> float:
        return max(0.0, min(_PULSE, self.end - time.monotonic()))

    def __call__(self) -> None:
        gone = lost()
        if gone:
            raise InputError(f"{self.what}: the Ray cluster is gone: {gone}")
        if time.monotonic() >= self.end:
            raise InputError(f"{self.what}: {self.words} engine.timeout={self.timeout:g} seconds")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Errors inside the block become sentences; see `translated`."""
    try:
        yield
    except Exception as error:
        raise translated(error, what) from error


def translated(error: Exception, what: str) -> Exception:
    """An error of Ray, of verl or of a worker as a sentence; an error of ours and a full disk stay as they are."""
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, InputError) or (isinstance(cause, OSError) and is_disk_full(cause)):
        return cause
    said = str(cause).lower()
    memory = "out of memory" in said or "can't allocate memory" in said
    if memory or isinstance(error, exceptions.OutOfMemoryError) or isinstance(cause, MemoryError):
        return InputError(
            f"{what}: out of memory; lower engine.micro_batch_tokens, engine.score_tokens or engine.rollout_memory, or "
            "set engine.offload=all or model.gradient_checkpointing=true"
        )
    if isinstance(error, exceptions.RayActorError | exceptions.NodeDiedError | exceptions.WorkerCrashedError):
        return InputError(f"{what}: a process of the cluster died ({_death(error)})")
    if isinstance(error, exceptions.RaySystemError | exceptions.GetTimeoutError | exceptions.ObjectLostError):
        return InputError(f"{what}: the Ray cluster is gone or lost data ({first_line(error)})")
    if isinstance(error, exceptions.RayTaskError) and _follows_a_death(cause):
        return InputError(f"{what}: a worker lost its peers ({first_line(cause)})")
    return InputError(f"{what}: {type(cause).__name__}: {first_line(cause)} (the whole of it: {_noted(error)})")


def _noted(error: Exception) -> str:
    """A file that has the error with its stack: what a sentence leaves out is needed where a GPU or a server failed."""
    path = os.path.join(tempfile.gettempdir(), f"rlcsd-{os.getpid()}.log")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return path


def _death(error: Exception) -> str:
    """What Ray knows of a death, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if getattr(error, "actor_init_failed", False):
        return lines[-1][:300]  # below the stack: the error that its start ended with
    told = [line for line in lines if "exit" in line.lower() or "died" in line.lower() or "killed" in line.lower()]
    return (told or lines or [type(error).__name__])[-1].partition(" Some common causes")[0][:300]


def _follows_a_death(cause: BaseException) -> bool:
    """Is this what a collective says when a peer is gone?"""
    text = str(cause).lower()
    words = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "nccl", "gloo")
    return isinstance(cause, RuntimeError) and any(word in text for word in words)

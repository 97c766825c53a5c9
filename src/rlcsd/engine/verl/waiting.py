"""Wait for Ray workers and rollout servers with a timeout; raise a one-sentence InputError when one dies or fails."""

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

from ...errors import InputError, OutOfMemoryError, first_line, is_out_of_memory
from ...storage import is_disk_full
from .ray_cluster import log_folder, lost

T = TypeVar("T")
_POLL_SECONDS = 1.0  # how often a wait checks that the cluster is still alive


def wait_for_results(references: Sequence[Any], what: str, timeout: float) -> list[Any]:
    """Resolve Ray object references, in order; the first one that fails ends the wait.

    `what` begins every error message ("scoring", "loading the model").

    Raises:
        InputError: a process died, memory ran out, `timeout` seconds passed, or a worker raised anything else.
        OSError: a disk is full.
    """
    waiting, deadline = list(references), _Deadline(what, timeout, "no answer within")
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=deadline.pause)
        if not ready:
            deadline.check()
            continue
        with translated_errors(what):
            ray.get(ready)
    with translated_errors(what):
        return list(ray.get(list(references)))


def run_with_timeout(function: Callable[[], T], what: str, timeout: float) -> T:
    """Call a blocking function of verl that has no timeout of its own. Raises as `wait_for_results` does.

    The function runs in a daemon thread, which is abandoned when the time is over.
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    thread, deadline = (threading.Thread(target=run, daemon=True), _Deadline(what, timeout, "not done within"))
    thread.start()
    while thread.is_alive():
        thread.join(deadline.pause)
        if thread.is_alive():
            deadline.check()
    result, error = outcome[0]
    if error is not None:
        raise translate(error, what) from error
    return cast(T, result)


def wait_for_requests(requests: Sequence[Awaitable[T]], what: str, timeout: float) -> list[T]:
    """Await coroutines that talk to rollout servers; results in order. Raises as `wait_for_results` does.

    `timeout` counts the seconds without any answer, because requests queue at the servers.
    """

    async def run() -> list[T]:
        tasks = [asyncio.ensure_future(request) for request in requests]
        waiting, deadline = set(tasks), _Deadline(what, timeout, "no answer within")
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=deadline.pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if done:
                    deadline.restart()
                else:
                    deadline.check()
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    with translated_errors(what):
        return asyncio.run(run())


class _Deadline:
    """The end of a wait. `check` raises InputError when the time is over or Ray has died."""

    def __init__(self, what: str, timeout: float, phrase: str) -> None:
        self.what, self.timeout, self.phrase = what, timeout, phrase
        self.restart()

    def restart(self) -> None:
        self.end = time.monotonic() + self.timeout

    @property
    def pause(self) -> float:
        """Seconds to wait before the next check."""
        return max(0.0, min(_POLL_SECONDS, self.end - time.monotonic()))

    def check(self) -> None:
        reason = lost()
        if reason:
            raise InputError(f"{self.what}: the Ray cluster is gone: {reason}")
        if time.monotonic() >= self.end:
            raise InputError(f"{self.what}: {self.phrase} engine.timeout={self.timeout:g} seconds")


# ------------------------------------------------------------------ errors


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Re-raise any error in the block as `translate` returns it."""
    try:
        yield
    except Exception as error:
        raise translate(error, what) from error


def translate(error: Exception, what: str) -> Exception:
    """Turn an error of Ray, verl or a worker into an InputError of one sentence that begins with `what`.

    An InputError and a full disk (OSError) are returned as the worker raised them.
    """
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, InputError) or (isinstance(cause, OSError) and is_disk_full(cause)):
        return cause
    if isinstance(error, exceptions.OutOfMemoryError) or is_out_of_memory(cause):
        return OutOfMemoryError(f"{what}: out of memory")  # the engine adds the keys to change
    for one in (error, cause):  # the cause: a worker asked a server that has died
        if isinstance(one, exceptions.RayActorError | exceptions.NodeDiedError | exceptions.WorkerCrashedError):
            return InputError(f"{what}: a process of the cluster died ({_cause_of_death(one)}; {_logs()})")
    if isinstance(error, exceptions.RaySystemError | exceptions.GetTimeoutError | exceptions.ObjectLostError):
        return InputError(f"{what}: the Ray cluster is gone or lost data ({first_line(error)})")
    if isinstance(error, exceptions.RayTaskError) and _is_lost_peer(cause):
        return InputError(f"{what}: a worker lost its peers ({first_line(cause)})")
    return InputError(
        f"{what}: {type(cause).__name__}: {first_line(cause)} (full traceback: {_write_traceback(error)}; {_logs()})"
    )


def _logs() -> str:
    return f"logs of workers and servers: {log_folder()}"


def _write_traceback(error: Exception) -> str:
    """Append the traceback to a file in the temporary folder and return its path."""
    path = os.path.join(tempfile.gettempdir(), f"rlcsd-{os.getpid()}.log")
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return path


def _cause_of_death(error: Exception) -> str:
    """Ray's reason for the death of an actor, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if getattr(error, "actor_init_failed", False):
        return lines[-1][:300]  # the error of its constructor stands below the traceback
    reasons = [line for line in lines if "exit" in line.lower() or "died" in line.lower() or "killed" in line.lower()]
    return (reasons or lines or [type(error).__name__])[-1].partition(" Some common causes")[0][:300]


def _is_lost_peer(cause: BaseException) -> bool:
    """Whether a collective failed because another rank is gone."""
    text = str(cause).lower()
    words = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "nccl", "gloo")
    return isinstance(cause, RuntimeError) and any(word in text for word in words)

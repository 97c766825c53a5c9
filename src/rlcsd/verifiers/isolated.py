"""A user's verifier in processes of its own: one that hangs, crashes or returns nonsense is named, and stops nothing
else.

The processes are forked, so any callable will do: a lambda, a method, a function of a notebook. Where a system cannot
fork, the verifier runs in the calling process, without a time limit.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from ..errors import InputError
from .reward import as_reward, described


class IsolatedVerifier:
    """`verifier` with a time limit of `seconds` for each response, in up to `processes` processes.

    Processes start when they are first needed, and end with the process that started them.
    """

    def __init__(self, verifier: Callable[[str, Any], Any], seconds: float, processes: int | None = None) -> None:
        self.verifier, self.seconds = verifier, seconds
        self.__name__ = getattr(verifier, "__name__", type(verifier).__name__)
        self.idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self.processes = processes or min(4, os.cpu_count() or 1)
        for _ in range(self.processes):
            self.idle.put(_Process(verifier))

    def __call__(self, response: str, answer: Any) -> float:
        """The reward of one response. Raises InputError as `batch` does."""
        return self.batch([response], [answer])[0]

    def batch(self, responses: Sequence[str], answers: Sequence[Any]) -> list[float]:
        """The reward of each response.

        Raises:
            InputError: the verifier raised, took too long, ended its process, or returned what is no reward.
        """
        if len(responses) == 1:
            return [self._ask((responses[0], answers[0]))]
        with ThreadPoolExecutor(self.processes) as threads:
            return list(threads.map(self._ask, zip(responses, answers, strict=True)))

    def _ask(self, item: tuple[str, Any]) -> float:
        process = self.idle.get()
        try:
            reward, complaint = process.ask(item, self.seconds)
        finally:
            self.idle.put(process)
        if complaint is not None:
            raise InputError(described(self.verifier, *item, complaint))
        return reward


class _Process:
    """One forked process and the pipe to it."""

    def __init__(self, verifier: Callable[[str, Any], Any]) -> None:
        self.verifier = verifier
        self.process: Any = None
        self.pipe: Connection | None = None

    def _running(self) -> Connection:
        if self.process is None or not self.process.is_alive():
            context = multiprocessing.get_context("fork")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(self.verifier, theirs, os.getpid()), daemon=True)
            self.process.start()
            theirs.close()
        assert self.pipe is not None
        return self.pipe

    def ask(self, item: tuple[str, Any], seconds: float) -> tuple[float, str | None]:
        """The reward, or a complaint about the verifier."""
        pipe = self._running()
        try:
            pipe.send(item)
            if pipe.poll(seconds):
                answer: tuple[float, str | None] = pipe.recv()
                return answer
            complaint = f"took longer than {seconds:g} s and was ended"
        except (EOFError, OSError):
            self.process.join(1)
            complaint = f"ended its process (exit code {self.process.exitcode})"
        self.process.kill()
        self.process.join()
        pipe.close()
        self.process = None
        return 0.0, complaint


def _serve(verifier: Callable[[str, Any], Any], pipe: Connection, parent: int) -> None:
    """What the forked process does: one (response, answer) in, one (reward, complaint) out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this process
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the threads of the parent's OpenMP do not survive a fork
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            response, answer = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        pipe.send(as_reward(verifier, response, answer))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"

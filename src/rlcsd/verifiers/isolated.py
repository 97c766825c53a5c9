"""A user's verifier in processes of its own: one that hangs, crashes or returns nonsense is named, and stops nothing
else.

The processes are forked, so any callable will do: a lambda, a method, a function of a notebook. Where a system cannot
fork, the verifier runs in the calling process, without a time limit.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from ..errors import first_line
from ..records import Verdict
from .rewards import Result, VerifierError, as_result, described, form_of, name_of

Answer = tuple[Result, str | None]  # what the verifier returned, and a complaint about it
_STARTING = threading.RLock()  # libraries that guard their files across forks refuse two forks at a time
_PIPES: weakref.WeakSet[Connection] = weakref.WeakSet()  # this process's ends of all pipes; a fork has copies of them


class IsolatedVerifier:
    """`verifier` with a time limit of `seconds` for each response, in up to `processes` processes.

    Processes start when they are first needed, and end with this object or the process that started them. With an
    attribute `forgiving`, a verifier that takes too long or ends its process calls the response wrong: it is a
    library's own scorer, and the response is to blame.
    """

    def __init__(self, verifier: Callable[..., Any], seconds: float, processes: int | None = None) -> None:
        self.verifier, self.seconds, self.form = verifier, seconds, form_of(verifier)
        self.__name__ = name_of(verifier)
        self.forgiving = bool(getattr(verifier, "forgiving", False))
        self.idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self.processes = processes or min(4, os.cpu_count() or 1)
        for _ in range(self.processes):
            self.idle.put(_Process(verifier))

    def __call__(self, response: str, subject: Any) -> Result:
        """What the verifier says of one response. Raises InputError as `batch` does."""
        return self.batch([response], [subject])[0]

    def batch(self, responses: Sequence[str], subjects: Sequence[Any]) -> list[Result]:
        """What the verifier says of each response; `subjects` are the problems or their answers, as it takes them.

        Raises:
            InputError: the verifier raised, took too long, ended its process, or returned what is no reward.
        """
        found = self.ask(responses, subjects)
        for response, subject, (_, complaint) in zip(responses, subjects, found, strict=True):
            if complaint is not None:
                raise VerifierError(described(self.verifier, response, subject, complaint))
        return [result for result, _ in found]

    def ask(self, responses: Sequence[str], subjects: Sequence[Any]) -> list[Answer]:
        """What the verifier returned for each response, with complaints instead of exceptions.

        After the first complaint the others are not asked: a verifier that hangs would hang for each of them.
        """
        failed = threading.Event()

        def one(response: str, subject: Any) -> Answer:
            if failed.is_set():
                return 0.0, None
            process = self.idle.get()
            try:
                answer = process.ask((response, subject), self.seconds)
            finally:
                self.idle.put(process)
            if answer[1] is not None and self.forgiving:
                return Verdict(False, 0.0), None
            if answer[1] is not None:
                failed.set()
            return answer

        if len(responses) == 1:
            return [one(responses[0], subjects[0])]
        with ThreadPoolExecutor(self.processes) as threads:
            return list(threads.map(one, responses, subjects))


class _Process:
    """One forked process and the pipe to it."""

    def __init__(self, verifier: Callable[..., Any]) -> None:
        self.verifier = verifier
        self.process: Any = None
        self.pipe: Connection | None = None

    def _running(self) -> Connection:
        if self.process is None or not self.process.is_alive():
            context = multiprocessing.get_context("fork")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(self.verifier, theirs, os.getpid()), daemon=True)
            with _STARTING:
                _PIPES.add(self.pipe)
                self.process.start()
            theirs.close()
        assert self.pipe is not None
        return self.pipe

    def ask(self, item: tuple[str, Any], seconds: float) -> Answer:
        """What the verifier returned, or a complaint about it."""
        try:
            packed = pickle.dumps(item)
        except Exception as error:  # each type has its own
            reason = f"{type(error).__name__}: {first_line(error)}"
            return 0.0, f"cannot be given its problem in a process of its own ({reason}); use verifier_seconds=None"
        pipe = self._running()
        try:
            pipe.send_bytes(packed)
            if pipe.poll(seconds):
                answer: Answer = pipe.recv()
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


def _serve(verifier: Callable[..., Any], pipe: Connection, parent: int) -> None:
    """What the forked process does: one (response, subject) in, one `Answer` out, until nobody has the other end."""
    for other in list(_PIPES):
        other.close()
    form = form_of(verifier)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this process
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the threads of the parent's OpenMP do not survive a fork
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            response, subject = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        pipe.send(as_result(verifier, form, response, subject))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"

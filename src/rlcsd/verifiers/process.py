"""Processes that answer questions within a time limit: one that hangs or crashes is named and replaced.

`Pool` is what both kinds of verifiers run in. The comparison of formulas needs a fresh interpreter, which imports
neither torch nor the caller's script (`spawned`). A user's verifier may be any callable, a lambda or a function of a
notebook, and needs a copy of the calling process (`forked`); where a system cannot fork, it runs in the calling
process without a time limit.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
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
from .rewards import Answer, Result, VerifierError, as_result, described, form_of, name_of

Question = tuple[Any, ...]
_STARTING = threading.RLock()  # libraries that guard their files across forks refuse two forks at a time
_PIPES: weakref.WeakSet[Connection] = weakref.WeakSet()  # this process's ends of all pipes; a fork has copies of them
_START_SECONDS = 120.0


class Pool:
    """Up to `processes` processes that answer questions, each within `seconds`.

    They start when they are first needed, and end with `close`, with this object, or with the process that started
    them.

    Args:
        start: starts one; `forked` or `spawned`.
        seconds: the limit for one question; starting a process does not count.
        processes: how many.
        attempts: how often a question is asked whose process ends, if not by the time limit.
    """

    def __init__(self, start: Callable[[], Process], seconds: float, processes: int, attempts: int = 1) -> None:
        self.seconds, self.processes, self.attempts = seconds, processes, attempts
        self.idle: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for _ in range(processes):
            self.idle.put(_Slot(start))

    def ask(self, questions: Sequence[Question], stop_at_complaint: bool = False) -> list[Answer]:
        """The answer to each question, in order, with a complaint where there is none.

        With `stop_at_complaint`, the questions after the first complaint are not asked and answered (None, None): what
        hangs would hang for each of them.
        """
        stopped = threading.Event()

        def one(question: Question) -> Answer:
            if stopped.is_set():
                return None, None
            slot = self.idle.get()
            try:
                answer = slot.ask(question, self.seconds, self.attempts)
            finally:
                self.idle.put(slot)
            if answer[1] is not None and stop_at_complaint:
                stopped.set()
            return answer

        if len(questions) == 1:
            return [one(questions[0])]
        with ThreadPoolExecutor(self.processes) as threads:
            return list(threads.map(one, questions))

    def close(self) -> None:
        """End the processes that are not answering; a later question starts one again."""
        slots = []
        with contextlib.suppress(queue.Empty):
            while True:
                slots.append(self.idle.get_nowait())
        for slot in slots:
            slot.end()
            self.idle.put(slot)


class Process:
    """A started process: its end of the pipe, whether it lives, and how to end it and what it started itself."""

    def __init__(self, handle: Any, pipe: Connection) -> None:
        self.handle, self.pipe = handle, pipe
        self._kill_group = weakref.finalize(self, _kill_group, self.pid, os.getpid())  # at the latest with the run

    @property
    def pid(self) -> int:
        return int(self.handle.pid)

    def alive(self) -> bool:
        poll = getattr(self.handle, "poll", None)
        return poll() is None if poll else bool(self.handle.is_alive())

    def end(self, patience: float = 0.0) -> int | None:
        """Wait for `patience` seconds, then kill it; its exit code."""
        if isinstance(self.handle, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.handle.wait(patience)
            self._kill_group()
            self.handle.kill()
            self.pipe.close()
            return self.handle.wait()
        self.handle.join(patience)
        self._kill_group()
        self.handle.kill()
        self.handle.join()
        self.pipe.close()
        code: int | None = self.handle.exitcode
        return code


def _kill_group(pid: int, owner: int) -> None:
    """Kill a started process and those that it started; only its owner does, and no copy of the owner."""
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


class _Slot:
    """Holds one process of a pool, and starts another when it has ended."""

    def __init__(self, start: Callable[[], Process]) -> None:
        self.start = start
        self.process: Process | None = None

    def ask(self, question: Question, seconds: float, attempts: int) -> Answer:
        try:
            packed = pickle.dumps(question)
        except Exception as error:  # each type has its own
            reason = f"{type(error).__name__}: {first_line(error)}"
            return None, f"cannot be given its problem in a process of its own ({reason}); use verifier_seconds=None"
        complaint = ""
        for _ in range(attempts):
            process = self._running()
            try:
                process.pipe.send_bytes(packed)
                if process.pipe.poll(seconds):
                    answer: Answer = process.pipe.recv()
                    return answer
            except (EOFError, OSError):
                self.process = None
                complaint = f"ended its process (exit code {process.end(1)})"
                continue
            self.process = None
            process.end()
            return None, f"took longer than {seconds:g} s and was ended"
        return None, complaint

    def end(self) -> None:
        if self.process is not None:
            self.process.end()
            self.process = None

    def _running(self) -> Process:
        if self.process is None or not self.process.alive():
            with _STARTING:
                self.process = self.start()
        return self.process


# ------------------------------------------------------------------ starting


def can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"


def forked(function: Callable[..., Answer]) -> Process:
    """A copy of this process that answers with `function(*question)`."""
    context = multiprocessing.get_context("fork")
    pipe, child_end = context.Pipe()
    _PIPES.add(pipe)
    process = context.Process(target=_serve_fork, args=(function, child_end, os.getpid()), daemon=True)
    process.start()
    child_end.close()
    with contextlib.suppress(EOFError, OSError):  # what ends at once is found out by the first question
        if pipe.poll(_START_SECONDS):
            pipe.recv()
    return Process(process, pipe)


def _serve_fork(function: Callable[..., Answer], pipe: Connection, parent: int) -> None:
    for other in list(_PIPES):
        other.close()
    os.setsid()  # what the verifier starts is of its group and ends with it
    multiprocessing.current_process().daemon = False  # which may start none
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends this process
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the threads of the parent's OpenMP do not survive a fork
    pipe.send("ready")
    _serve(function, pipe, parent)


def spawned(factory: str, megabytes: int = 4096) -> Process:
    """A fresh interpreter that answers with the function that `factory`, "module:name", returns when it is called.

    It is a plain subprocess, so the caller's script needs no `if __name__ == "__main__"`. `megabytes` limits its
    memory.

    Raises:
        RuntimeError: it does not start.
    """
    context = multiprocessing.get_context("spawn")
    pipe, child_end = context.Pipe()
    _PIPES.add(pipe)
    script = f"from {__name__} import serve_spawned; serve_spawned()"
    command = [sys.executable, "-c", script, factory, str(child_end.fileno()), str(os.getpid()), str(megabytes)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        pass_fds=[child_end.fileno()],
        start_new_session=True,  # Ctrl-C is for the run
    )
    child_end.close()
    started, reason = Process(process, pipe), "no message"
    with contextlib.suppress(EOFError, OSError):
        if pipe.poll(_START_SECONDS) and (reason := pipe.recv()) == "ready":
            return started
    code = started.end()
    raise RuntimeError(f"a process for {factory} cannot start (exit code {code}, {reason})")


def serve_spawned() -> None:
    """What a spawned process does, by its command line."""
    import resource

    factory, descriptor, parent, megabytes = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    limit = int(megabytes) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    module, _, name = factory.partition(":")
    pipe = Connection(int(descriptor))
    try:
        function = getattr(importlib.import_module(module), name)()
    except BaseException as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise
    pipe.send("ready")
    _serve(function, pipe, int(parent))


def _serve(function: Callable[..., Answer], pipe: Connection, parent: int) -> None:
    """Answer questions until nobody has the other end of the pipe or the parent is gone."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            question = pipe.recv()
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
        pipe.send(function(*question))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


# ------------------------------------------------------------------ a user's verifier


class IsolatedVerifier:
    """`verifier` in forked processes, with a limit of `seconds` for each response.

    With an attribute `forgiving`, a verifier that takes too long or ends its process calls the response wrong: it is a
    library's own scorer, and the response is to blame.
    """

    def __init__(self, verifier: Callable[..., Any], seconds: float, processes: int | None = None) -> None:
        self.verifier, self.seconds, self.form = verifier, seconds, form_of(verifier)
        self.__name__ = name_of(verifier)
        self.forgiving = bool(getattr(verifier, "forgiving", False))
        form = self.form

        def judge(response: str, subject: Any) -> Answer:
            return as_result(verifier, form, response, subject)

        self.pool = Pool(lambda: forked(judge), seconds, processes or min(4, os.cpu_count() or 1))

    def __call__(self, response: str, subject: Any) -> Result:
        """What the verifier says of one response. Raises VerifierError as `batch` does."""
        return self.batch([response], [subject])[0]

    def batch(self, responses: Sequence[str], subjects: Sequence[Any]) -> list[Result]:
        """What the verifier says of each response; `subjects` are the problems or their answers, as it takes them.

        Raises:
            VerifierError: the verifier raised, took too long, ended its process, or returned what is no reward.
        """
        found = self.ask(responses, subjects)
        for response, subject, (_, complaint) in zip(responses, subjects, found, strict=True):
            if complaint is not None:
                raise VerifierError(described(self.verifier, response, subject, complaint))
        return [result for result, _ in found]

    def ask(self, responses: Sequence[str], subjects: Sequence[Any], stop: bool = True) -> list[Answer]:
        """What the verifier returned for each response, with complaints instead of exceptions.

        With `stop` nothing is asked after the first complaint.
        """
        questions = list(zip(responses, subjects, strict=True))
        found = self.pool.ask(questions, stop_at_complaint=stop and not self.forgiving)
        if self.forgiving:
            return [(Verdict(False, 0.0), None) if complaint is not None else (r, None) for r, complaint in found]
        return [(0.0 if result is None else result, complaint) for result, complaint in found]

"""Answers compared in worker processes: a hard time limit for each, whatever the symbolic engine is doing.

A worker sets an alarm before each comparison and leaves its signal at the default action, so the kernel ends a
runaway worker even inside C code; the pool starts another. Workers end with the process that started them, because
their input does. They are plain subprocesses, so a caller needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor


class _Worker:
    """One subprocess running `rlcsd.verifiers.worker`."""

    def __init__(self, seconds: float, megabytes: int) -> None:
        self.command = [sys.executable, "-m", "rlcsd.verifiers.worker", str(seconds), str(megabytes)]
        self.process: subprocess.Popen[str] | None = None

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the run, not for its workers
            )
            assert self.process.stdout is not None
            if self.process.stdout.readline() != "ready\n":  # silence would look like wrong answers
                raise RuntimeError(f"the math verifier's worker cannot start; try: {' '.join(self.command)}")
        return self.process

    def ask(self, given: str, reference: str) -> bool:
        """The worker's word; False if it takes too long. A worker killed by anything else gets one successor.

        Raises:
            RuntimeError: a worker does not even start.
        """
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([given, reference]) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            if line:
                return bool(json.loads(line))
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.stdout.close()
            if process.wait() == -signal.SIGALRM:
                return False
        return False


class WorkerPool:
    """Up to `processes` workers, started when first needed; `seconds` and `megabytes` limit one comparison."""

    def __init__(self, processes: int, seconds: float, megabytes: int = 4096) -> None:
        self.processes = processes
        self.idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(processes):
            self.idle.put(_Worker(seconds, megabytes))

    def _ask(self, pair: tuple[str, str]) -> bool:
        worker = self.idle.get()
        try:
            return worker.ask(*pair)
        finally:
            self.idle.put(worker)

    def equivalent(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """For each (given, reference): do they say the same? In order."""
        with ThreadPoolExecutor(self.processes) as threads:
            return list(threads.map(self._ask, pairs))

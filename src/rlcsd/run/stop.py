"""SIGINT, SIGTERM and SIGHUP: finish what cannot be left half done, save, and stop. A second signal stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop by a signal. `number` is the signal's; a shell sees the exit code 128 + number."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number


class StopSignals:
    """What a signal does depends on the moment: between steps it raises at once, inside `deferred` it waits."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.received: int | None = None
        self._deferring = 0
        self._tell = tell

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A piece of work (a step, a save) that the first signal lets finish."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1

    def check(self) -> None:
        """Raise Interrupted if a signal came while it had to wait."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block. Only the main thread of a program receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise Interrupted(number, "interrupted twice")
        self.received = number
        if not self._deferring:
            raise Interrupted(number)
        self._tell(f"{signal.Signals(number).name}: finishing this step, then saving; a second signal stops at once")

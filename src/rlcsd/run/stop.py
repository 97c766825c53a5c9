"""Stop a run on SIGINT, SIGTERM or SIGHUP: it finishes the step, saves and ends. A second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run. `number` is the signal's; the exit code is 128 + number."""

    def __init__(self, number: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.number = number


class StopTraining(Exception):  # noqa: N818 - it reports no error, like StopIteration
    """Raised by a user's `on_step`: the run ends after this step as after its last one. Its text is the reason.

    >>> import rlcsd
    >>> def stop_at_half(step, metrics):
    ...     if metrics["rollout/reward"] > 0.5:
    ...         raise rlcsd.StopTraining("the reward is above 0.5")
    """


class StopSignals:
    """Signal handlers of a run. A signal raises Interrupted at once, except inside `deferred`, where it waits.

    `warn` is called with a sentence when a signal has to wait.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.received: int | None = None
        self._deferring = 0
        self._warn = warn

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Work inside the block (a step, a save) is finished after the first signal; call `check` afterwards."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1

    def check(self) -> None:
        """Raise Interrupted if a signal came inside a `deferred` block."""
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
        self._warn(f"{signal.Signals(number).name}: finishing this step, then saving; a second signal stops at once")

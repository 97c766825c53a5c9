"""Steps that take long because other programs use the machine's CPUs: the run says so."""

from __future__ import annotations

import psutil

from ..engine.local.local_engine import Neighbours

_SLOWER = 1.6  # times the fastest step so far
_SHORT = 1.0  # seconds that nobody minds
_PAUSE = 50  # steps between two complaints


class SlowSteps:
    """Watches what other programs use while the steps of a run of `threads` CPU threads are made."""

    def __init__(self, threads: int) -> None:
        self.threads, self.neighbours = threads, Neighbours()
        self.fastest, self.complained = float("inf"), -_PAUSE

    def complaint(self, step: int, seconds: float) -> str | None:
        """To be called after each step; one sentence if it was slow and the machine is the reason."""
        others, cpus = self.neighbours.cpus(), psutil.cpu_count() or 1
        slow = seconds > _SHORT and (seconds > _SLOWER * self.fastest or self.fastest == float("inf"))
        self.fastest = min(self.fastest, seconds)
        crowded = others + self.threads > cpus + 0.5
        if not (slow and crowded) or step - self.complained < _PAUSE:
            return None
        self.complained = step
        advice = "; a new run with engine.threads=1 suffers less from it" if self.threads > 1 else ""
        return (
            f"step {step} took {seconds:.1f} s while other programs used {others:.1f} of this machine's {cpus} CPUs"
            f"{advice}"
        )

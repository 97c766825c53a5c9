"""How many CPU threads torch uses: as many as there are CPUs that nobody else keeps busy.

Threads that share a CPU with another program hold each other up at every barrier: two threads on two busy CPUs are
slower than one. Another number of threads gives other rounding, and so another run with the same seed. Therefore the
number is chosen once, at the start of a run, which keeps it in its config.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ...config.schema import Config
from .network import resolve_device

_SECONDS = 0.4  # how long the machine is watched before a choice
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Threads:
    """A choice of `count` threads of `most` possible, while other programs used `others` CPUs."""

    count: int
    most: int
    others: float = 0.0

    @property
    def reason(self) -> str | None:
        """One sentence if the machine made the count smaller than it could be."""
        if self.count == self.most:
            return None
        return (
            f"other programs use {self.others:.1f} of this machine's {psutil.cpu_count() or 1} CPUs, so the run takes "
            f"{self.count} of {self.most} threads, which changes rounding; engine.threads={self.most} takes all"
        )


def choose_threads() -> Threads:
    """A number of threads by the load of the machine now. OMP_NUM_THREADS, if set, is the user's word."""
    most = most_threads()
    if most == 1 or os.environ.get("OMP_NUM_THREADS"):
        return Threads(most, most)
    neighbours = Neighbours()
    time.sleep(_SECONDS)
    others = neighbours.cpus()
    free = (psutil.cpu_count() or most) - others
    return Threads(max(1, min(most, int(free + 0.5))), most, others)


def with_threads(config: Config, tell: Callable[[str], None] = lambda reason: None) -> Config:
    """The config with a number of threads in it if `engine.threads` is 0. `tell` is given the reason for a smaller one.

    On a GPU, where the CPU waits, that is torch's own number. Other engines have threads of their own.
    """
    if config.engine.name != "local" or config.engine.threads:
        return config
    on_cpu = resolve_device(config.engine.device).type == "cpu"
    chosen = choose_threads() if on_cpu else Threads(most_threads(), most_threads())
    if chosen.reason:
        tell(chosen.reason)
    return config.model_copy(update={"engine": config.engine.model_copy(update={"threads": chosen.count})})


class Neighbours:
    """What the other programs of this machine use."""

    def __init__(self) -> None:
        self._last = self._now()

    def cpus(self) -> float:
        """CPUs that other programs kept busy, on average since the last question."""
        last, self._last = self._last, self._now()
        wall = self._last[0] - last[0]
        busy, own = self._last[1] - last[1], self._last[2] - last[2]
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: the clock's, those that all CPUs were busy, and those of this process and its children."""
        times, own = psutil.cpu_times(), os.times()
        children = 0.0
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended meanwhile, and is in `own`
                used = child.cpu_times()
                children += used.user + used.system
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice already
        ours = own.user + own.system + own.children_user + own.children_system + children
        return time.monotonic(), busy, ours


_before: int | None = None  # torch's own number, before a run of this process set another
_set: int | None = None


def set_threads(count: int) -> None:
    """Let torch use `count` threads, and remember that this was no choice of the user's."""
    global _set
    most_threads()
    torch.set_num_threads(count)
    _set = count


def most_threads() -> int:
    """As many as torch would take by itself or the user has told it to, within the container's share of CPU time."""
    global _before
    if _before is None or torch.get_num_threads() not in (_set, _before):
        _before = torch.get_num_threads()
    quota = cgroup_cpus(_CGROUP)
    return max(1, min(_before, int(quota + 0.5) if quota else _before))


def cgroup_cpus(root: Path) -> float | None:
    """The CPUs' worth of time that a container may use, of control groups version 2 or 1; None without a limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # "max" or -1: no limit
    return int(quota) / int(period)

"""How many CPU threads torch uses, and what else keeps the CPUs busy.

Threads that share a CPU with other programs wait for each other: beside two busy processes a step of the tiny model
takes more than twice as long with two threads as with one, while alone it gains a fifth (`benchmarks/threads.py`). So a
small model has one thread. Another number of threads gives other rounding, and so another run with the same seed:
therefore the number never depends on the load, and a run keeps it in its config.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from ...config.schema import Config
from ...errors import InputError
from .memory import load_shape

_CGROUP = Path("/sys/fs/cgroup")
SMALL = 10e6  # parameters


def with_threads(config: Config) -> Config:
    """The config with a number of threads in it if `engine.threads` is 0. Other engines have threads of their own."""
    if config.engine.name != "local" or config.engine.threads:
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"threads": own_threads(config)})})


def own_threads(config: Config) -> int:
    """One for a small model, otherwise `most_threads`; where OMP_NUM_THREADS is set, that is the number."""
    return 1 if "OMP_NUM_THREADS" not in os.environ and _is_small(config) else most_threads()


def _is_small(config: Config) -> bool:
    try:
        return load_shape(config.model).parameters < SMALL
    except InputError:
        return False  # what is wrong with the model is said when it is loaded


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

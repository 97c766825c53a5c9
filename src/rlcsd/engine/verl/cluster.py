"""Ray: started for a run or joined, and left with nothing of the run behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray

from ...config.engines import VerlEngineConfig
from ...config.words import shown
from ...errors import InputError, first_line
from .processes import Head, Processes
from .settings import environment

# What each process of the run has in its environment; set before verl is imported there.
_PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "OMP_NUM_THREADS", "PYTHONPATH", "TOKENIZERS_PARALLELISM", "VERL_PLATFORM")


@dataclass
class Connection:
    """This process's place in a Ray cluster. `processes` are Ray's own, if it was started here for the run."""

    head: Head | None = None
    processes: Processes | None = None
    ours: bool = False  # whether this module connected, and not the program before it


_connection = Connection()


def join(settings: VerlEngineConfig) -> None:
    """Start Ray on this machine, or join the cluster that is named; a program that has connected already stays so.

    Raises:
        InputError: there is no such cluster, or it has not enough GPUs.
    """
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": passed | environment(settings)},
        "log_to_driver": False,
        "logging_level": "ERROR",
    }
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default Ray lets its workers wait behind everything else
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if not ray.is_initialized():
            _connection.ours = True
            where: dict[str, Any] = {"address": settings.ray_address}
            if settings.ray_address is None:
                _connection.processes = Processes()
                cpus = max(os.cpu_count() or 1, 4 * settings.gpus_per_node)
                gpus = None if settings.platform == "cuda" else settings.gpus_per_node  # logical, where there are none
                where = {"address": "local", "num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
            with _own_signals():
                ray.init(**where, **options)
            if _connection.processes is not None:
                _connection.processes.look()
        _connection.head = Head(ray.get_runtime_context().gcs_address)
        _check_gpus(settings)
    except Exception as error:  # Ray raises a plain Exception if its processes do not come up in time
        leave()
        if isinstance(error, InputError):
            raise
        what = f"could not join {settings.ray_address}" if settings.ray_address else "could not be started here"
        raise InputError(
            f"engine.ray_address={shown(settings.ray_address)}: Ray {what} ({first_line(error)})"
        ) from None
    except BaseException:
        leave()
        raise


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself. What this program does then is done in the end; if it does nothing, it exits.

    So an engine is closed in any case: a process that just ends leaves what Ray has started to end by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    theirs = before if callable(before) else lambda number, frame: sys.exit(128 + number)
    try:
        yield
    except SystemExit:  # by Ray's handler
        signal.signal(signal.SIGTERM, theirs)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, theirs)


def _check_gpus(settings: VerlEngineConfig) -> None:
    """Raise InputError unless enough nodes have enough GPUs."""
    counts = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    enough = sum(count >= settings.gpus_per_node for count in counts)
    if enough < settings.nodes:
        raise InputError(
            f"engine.nodes={settings.nodes}, engine.gpus_per_node={settings.gpus_per_node}: the Ray cluster has "
            f"{enough} nodes with that many GPUs (GPUs by node: {counts or 'none'})"
        )


def lost() -> str | None:
    """Why the cluster cannot be used any more, or None."""
    processes, head = _connection.processes, _connection.head
    return (processes.lost() if processes else None) or (head.lost() if head else None)


def leave() -> None:
    """Disconnect, and end Ray if it was started here; a second call does nothing."""
    global _connection
    mine, _connection = _connection, Connection()
    if mine.processes is not None:
        if not ray.is_initialized() or mine.processes.lost():
            mine.processes.end()  # Ray itself would wait for what does not answer
        mine.processes.look()
    if mine.ours and ray.is_initialized():
        with suppress(Exception):
            ray.shutdown()
    if mine.processes is not None:
        mine.processes.end()

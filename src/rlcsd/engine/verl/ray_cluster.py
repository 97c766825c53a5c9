"""Ray: started for a run or joined, and left with nothing of the run behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray

from ...config.engines import VerlEngineConfig
from ...config.messages import as_yaml
from ...errors import InputError, first_line
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
            f"engine.ray_address={as_yaml(settings.ray_address)}: Ray {what} ({first_line(error)})"
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


# ------------------------------------------------------------------ processes
# Ray's own processes: watched while a run waits for answers, and ended with it, whatever state they are in.
#
# Ray notices the death of its `gcs_server` only after a minute, and then ends this very process without a word; what its
# `raylet` started outlives a `raylet` that was killed; and a Ray that did not come up in time leaves what it had started.

_NEEDED = ("gcs_server", "raylet")
_OUT_OF_REACH = 30.0  # seconds without a connection after which the head is given up
_RAYS_FOLDER = os.path.dirname(ray.__file__)


class Processes:
    """What Ray starts for this process from now on, and all that these start."""

    def __init__(self) -> None:
        self.others = {child.pid for child in psutil.Process().children()}
        self.known: dict[int, psutil.Process] = {}
        self.needed: dict[int, str] = {}

    def look(self) -> None:
        """Remember who is there: the children of a process that dies are nobody's."""
        for child in psutil.Process().children():
            if child.pid not in self.others and self._is_rays(child):
                with suppress(psutil.Error):
                    if child.pid not in self.needed and child.name() in _NEEDED:
                        self.needed[child.pid] = child.name()
                    self.known |= {one.pid: one for one in (child, *child.children(recursive=True))}

    def _is_rays(self, child: psutil.Process) -> bool:
        if child.pid in self.known:
            return True
        with suppress(psutil.Error):
            return any(_RAYS_FOLDER in word for word in child.cmdline())
        return False

    def lost(self) -> str | None:
        """Which of the processes that Ray cannot do without has died, if one has."""
        self.look()
        for pid, name in self.needed.items():
            if not _runs(self.known[pid]):
                with suppress(psutil.Error):
                    self.known[pid].wait(0)  # or its number stays taken, which its workers look for
                return f"its {name} died"
        return None

    def end(self) -> None:
        """Kill what still runs."""
        self.look()
        for one in self.known.values():
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(list(self.known.values()), timeout=5)
        self.known.clear()
        self.needed.clear()


def _runs(one: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    return False


class Head:
    """The address at which the `gcs_server` of a cluster takes connections, of one that was joined too."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.where, self.reached = (host.strip("[]"), int(port)), time.monotonic()

    def lost(self) -> str | None:
        """Why the cluster is given up, if it is."""
        try:
            socket.create_connection(self.where, timeout=5).close()
            self.reached = time.monotonic()
        except ConnectionRefusedError:
            return "its gcs_server is not there any more"
        except OSError as error:
            if time.monotonic() - self.reached > _OUT_OF_REACH:
                return f"its head could not be reached for {_OUT_OF_REACH:g} seconds ({error})"
        return None

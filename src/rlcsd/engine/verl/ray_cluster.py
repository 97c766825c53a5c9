"""Start Ray for a run or join a running cluster, watch its processes, and end what the run started.

Ray alone is not enough for that. It notices the death of its `gcs_server` only after a minute and then ends the
driver without a message; children of a killed `raylet` survive it; and a Ray that did not come up in time leaves
processes behind.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray

from ...config.schema import VerlEngineConfig
from ...errors import InputError, first_line
from ...validation import as_yaml
from .settings import environment

# Environment variables that every process of the run gets from the driver, by name and by prefix.
_INHERITED = ("OMP_NUM_THREADS", "PYTHONPATH", "TOKENIZERS_PARALLELISM", "VERL_PLATFORM")
_INHERITED_PREFIXES = ("HF_", "NCCL_", "VLLM_")
_JOIN_SECONDS = 300.0  # for which a joined cluster may lack nodes: those of a Slurm job start one after the other
_REQUIRED = ("gcs_server", "raylet")  # processes that Ray cannot do without
_UNREACHABLE_SECONDS = 30.0  # without a connection to the head node, after which the cluster is given up
_RAY_FOLDER = os.path.dirname(ray.__file__)
_SHARED_MEMORY = "/dev/shm/"


class RayProcesses:
    """The processes that Ray starts from this one, and all their descendants. Made before `ray.init`."""

    def __init__(self) -> None:
        self.unrelated = {child.pid for child in psutil.Process().children()}
        self.known: dict[int, psutil.Process] = {}
        self.required: dict[int, str] = {}
        self.segments: set[str] = set()  # in shared memory, mapped by known processes
        self.unrelated_segments = _segments()

    def refresh(self) -> None:
        """Record what runs now: children of a process that dies can no longer be found through it."""
        for child in psutil.Process().children():
            if child.pid not in self.unrelated and self._is_rays(child):
                with suppress(psutil.Error):
                    if child.pid not in self.required and child.name() in _REQUIRED:
                        self.required[child.pid] = child.name()
                    self.known |= {process.pid: process for process in (child, *child.children(recursive=True))}

    def _is_rays(self, child: psutil.Process) -> bool:
        if child.pid in self.known:
            return True
        with suppress(psutil.Error):
            return any(_RAY_FOLDER in word for word in child.cmdline())
        return False

    def lost(self) -> str | None:
        """Which required process has died, if one has."""
        self.refresh()
        for pid, name in self.required.items():
            if not _is_running(self.known[pid]):
                with suppress(psutil.Error):
                    self.known[pid].wait(0)  # reap it: its workers wait until its pid is gone
                return f"its {name} died"
        return None

    def record_segments(self) -> None:
        """Record the shared-memory segments of the known processes (NCCL's, vLLM's), which outlive a kill."""
        self.refresh()
        self.segments |= mapped_segments(self.known)

    def kill(self) -> None:
        """Kill every process that still runs, and remove the shared memory that they leave behind."""
        self.record_segments()
        for process in self.known.values():
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(self.known.values()), timeout=5)
        remove_segments(self.segments - self.unrelated_segments)
        self.known.clear()
        self.required.clear()
        self.segments.clear()


def mapped_segments(pids: Iterable[int]) -> set[str]:
    """Names of the shared-memory segments that processes of this machine use."""
    found: set[str] = set()
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            paths = (line.partition(_SHARED_MEMORY)[2].strip() for line in maps if _SHARED_MEMORY in line)
            found |= {path for path in paths if "/" not in path and not path.endswith("(deleted)")}
    return found


def remove_segments(names: Iterable[str]) -> None:
    """Remove shared-memory segments, as far as they are still there."""
    for name in names:
        with suppress(OSError):
            os.unlink(_SHARED_MEMORY + name)


def note_segments(server: Any) -> None:
    """Runs in a server's actor: note the shared memory of the processes that it has started, should one of them die."""
    this = psutil.Process()
    own, others = mapped_segments([this.pid]), mapped_segments(p.pid for p in this.children(recursive=True))
    server.rlcsd_segments = others - own  # the actor itself uses Ray's object store


def check_engine(server: Any) -> None:
    """Runs in a server's actor: raise vLLM's error if the process of its engine has died."""
    engine = getattr(server, "engine", None)
    if engine is not None and engine.errored:
        raise engine.dead_error


def end_server(server: Any) -> None:
    """Runs in a server's actor before it is killed: vLLM ends its processes, and no shared memory is left."""
    engine = getattr(server, "engine", None)
    if engine is not None:
        with suppress(Exception):
            engine.shutdown()
    remove_segments(server.rlcsd_segments)


def _segments() -> set[str]:
    """The names of all shared-memory segments of this machine; none where it is not a folder."""
    with suppress(OSError):
        return set(os.listdir(_SHARED_MEMORY))
    return set()


def _is_running(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class HeadNode:
    """The address of a cluster's `gcs_server`, which also works for a cluster that was joined."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address, self.last_reached = ((host.strip("[]"), int(port)), time.monotonic())

    def lost(self) -> str | None:
        """Why the cluster is given up, or None."""
        try:
            socket.create_connection(self.address, timeout=5).close()
            self.last_reached = time.monotonic()
        except ConnectionRefusedError:
            return "its gcs_server is not there any more"
        except OSError as error:
            if time.monotonic() - self.last_reached > _UNREACHABLE_SECONDS:
                return f"its head could not be reached for {_UNREACHABLE_SECONDS:g} seconds ({error})"
        return None


# ------------------------------------------------------------------ connection


@dataclass
class Connection:
    """This process's connection to Ray. `processes` are set if Ray was started here for the run."""

    head: HeadNode | None = None
    processes: RayProcesses | None = None
    ours: bool = False  # whether `join` called ray.init, rather than the program before it


_connection = Connection()


def join(settings: VerlEngineConfig) -> None:
    """Start Ray on this machine, or connect to `engine.ray_address`. An existing connection is used as it is.

    Raises:
        InputError: there is no such cluster, or it has too few GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default lowers the priority of workers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if not ray.is_initialized():
            _connect(settings)
        _connection.head = HeadNode(ray.get_runtime_context().gcs_address)
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


def _connect(settings: VerlEngineConfig) -> None:
    _connection.ours = True
    options: dict[str, Any] = {"address": settings.ray_address}
    if settings.ray_address is None:
        _connection.processes = RayProcesses()
        cpus = max(os.cpu_count() or 1, 4 * settings.gpus_per_node)
        gpus = None if settings.platform == "cuda" else settings.gpus_per_node  # logical GPUs on another platform
        options = {"address": "local", "num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False}
    variables = inherited_environment() | environment(settings)
    with _keep_sigterm_handler():
        ray.init(**options, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="ERROR")
    if _connection.processes is not None:
        _connection.processes.refresh()


def inherited_environment() -> dict[str, str]:
    """The driver's variables that workers and servers need: Hugging Face's, NCCL's and vLLM's, and a few by name."""
    return {k: v for k, v in os.environ.items() if k in _INHERITED or k.startswith(_INHERITED_PREFIXES)}


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore this program's SIGTERM handler, which `ray.init` replaces; without one, SIGTERM raises SystemExit.

    So the engine is closed on SIGTERM: a driver that simply ended would leave Ray's processes to end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    handler = before if callable(before) else lambda number, frame: sys.exit(128 + number)
    try:
        yield
    except SystemExit:  # raised by Ray's handler
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _check_gpus(settings: VerlEngineConfig) -> None:
    """Wait until `engine.nodes` nodes have `engine.gpus_per_node` GPUs, for some time if a cluster was joined.

    Raises:
        InputError: there are fewer.
    """
    end = time.monotonic() + (min(_JOIN_SECONDS, settings.timeout) if settings.ray_address else 0.0)
    while True:
        counts = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
        enough = sum(count >= settings.gpus_per_node for count in counts)
        if enough >= settings.nodes or time.monotonic() >= end:
            break
        time.sleep(1.0)
    if enough < settings.nodes:
        raise InputError(
            f"engine.nodes={settings.nodes}, engine.gpus_per_node={settings.gpus_per_node}: the Ray cluster has "
            f"{enough} nodes with that many GPUs (GPUs by node: {counts or 'none'})"
        )


def lost() -> str | None:
    """Why the cluster cannot be used any more, or None. Called about once a second during a wait."""
    processes, head = _connection.processes, _connection.head
    return (processes.lost() if processes else None) or (head.lost() if head else None)


def record_segments() -> None:
    """See `RayProcesses.record_segments`. Called before actors are killed; does nothing in a joined cluster."""
    if _connection.processes is not None:
        _connection.processes.record_segments()


def log_folder() -> str:
    """Where Ray writes the logs of workers and servers, on the node of each."""
    node = getattr(ray._private.worker, "_global_node", None)
    return str(node.get_logs_dir_path()) if node is not None else "/tmp/ray/session_latest/logs"


def leave() -> None:
    """Disconnect, and end Ray if it was started here. A second call does nothing."""
    global _connection
    connection, _connection = _connection, Connection()
    if connection.processes is not None:
        if not ray.is_initialized() or connection.processes.lost():
            connection.processes.kill()  # ray.shutdown would wait for processes that no longer answer
        connection.processes.refresh()
    if connection.ours and ray.is_initialized():
        with suppress(Exception):
            ray.shutdown()
    if connection.processes is not None:
        connection.processes.kill()

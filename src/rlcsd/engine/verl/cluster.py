"""Ray: started for a run or joined, and every wait on it bounded, so that what dies ends the run with a sentence."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import ray
from ray import exceptions

from ...config.schema import VerlEngineConfig
from ...config.words import shown
from ...errors import InputError, first_line
from .settings import environment

T = TypeVar("T")

# What each process of the run has in its environment; set before verl is imported there.
_PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "OMP_NUM_THREADS", "PYTHONPATH", "TOKENIZERS_PARALLELISM", "VERL_PLATFORM")


def join(settings: VerlEngineConfig) -> bool:
    """Start Ray on this machine, or join the cluster that is named; True if it was started here.

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
    started = False
    try:
        if settings.ray_address is not None:
            ray.init(address=settings.ray_address, **options)
        elif not ray.is_initialized():
            started = True
            cpus = max(os.cpu_count() or 1, 4 * settings.gpus_per_node)
            gpus = None if settings.platform == "cuda" else settings.gpus_per_node  # logical, where there are none
            ray.init(num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **options)
        _check_gpus(settings)
    except InputError:
        leave(started)
        raise
    except Exception as error:  # Ray raises a plain Exception if its processes do not come up in time
        leave(started)
        what = f"could not join {settings.ray_address}" if settings.ray_address else "could not be started here"
        raise InputError(
            f"engine.ray_address={shown(settings.ray_address)}: Ray {what} ({first_line(error)})"
        ) from None
    return started


def _check_gpus(settings: VerlEngineConfig) -> None:
    """Raise InputError unless enough nodes have enough GPUs."""
    counts = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    enough = sum(count >= settings.gpus_per_node for count in counts)
    if enough < settings.nodes:
        raise InputError(
            f"engine.nodes={settings.nodes}, engine.gpus_per_node={settings.gpus_per_node}: the Ray cluster has "
            f"{enough} nodes with that many GPUs (GPUs by node: {counts or 'none'})"
        )


def leave(started: bool) -> None:
    """End Ray if it was started here."""
    if started and ray.is_initialized():
        with suppress(Exception):
            ray.shutdown()


def results(references: Sequence[Any], what: str, timeout: float) -> list[Any]:
    """What the references become, in their order; the first that fails ends the wait.

    Raises:
        InputError: a process died, memory ran out, or `timeout` seconds have passed; ValueError and OSError as they
            were raised.
    """
    waiting, end = list(references), time.monotonic() + timeout
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, end - time.monotonic()))
        if not ready:
            raise InputError(f"{what}: no answer within engine.timeout={timeout:g} seconds")
        try:
            ray.get(ready)
        except Exception as error:
            raise translated(error, what) from error
    return list(ray.get(list(references)))


def bounded(function: Callable[[], T], what: str, timeout: float) -> T:
    """The result of a function of verl's that waits for processes without a limit of its own; errors as in `results`.

    It runs in a thread that nobody waits for if the time is over.
    """
    outcome: list[tuple[T | None, Exception | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise InputError(f"{what}: not done within engine.timeout={timeout:g} seconds")
    result, error = outcome[0]
    if error is not None:
        raise translated(error, what) from error
    return cast(T, result)


def awaited(work: Awaitable[T], what: str, timeout: float) -> T:
    """The result of a coroutine that talks to servers; errors as in `results`."""

    async def limited() -> T:
        return await asyncio.wait_for(work, timeout)

    try:
        return asyncio.run(limited())
    except TimeoutError:
        raise InputError(f"{what}: no answer within engine.timeout={timeout:g} seconds") from None
    except Exception as error:
        raise translated(error, what) from error


def translated(error: Exception, what: str) -> Exception:
    """An error of Ray or of a worker as a sentence; what is an error of ours stays as it is."""
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    said = str(cause).lower()
    memory = "out of memory" in said or "can't allocate memory" in said
    if memory or isinstance(error, exceptions.OutOfMemoryError) or isinstance(cause, MemoryError):
        return InputError(
            f"{what}: out of memory; lower engine.micro_batch_tokens, engine.score_tokens or engine.rollout_memory, or "
            "set engine.offload=all or model.gradient_checkpointing=true"
        )
    if isinstance(error, exceptions.RayActorError | exceptions.NodeDiedError | exceptions.WorkerCrashedError):
        return InputError(f"{what}: a process of the cluster died ({_death(error)})")
    if isinstance(error, exceptions.RaySystemError | exceptions.GetTimeoutError | exceptions.ObjectLostError):
        return InputError(f"{what}: the Ray cluster is gone or lost data ({first_line(error)})")
    if isinstance(cause, InputError | ValueError | OSError):
        return cause
    if isinstance(error, exceptions.RayTaskError) and _follows_a_death(cause):
        return InputError(f"{what}: a worker lost its peers ({first_line(cause)})")
    return error


def _death(error: Exception) -> str:
    """What Ray knows of a death, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "exit" in line.lower() or "died" in line.lower() or "killed" in line.lower()]
    return (told or lines or [type(error).__name__])[-1][:300]


def _follows_a_death(cause: BaseException) -> bool:
    """Is this what a collective says when a peer is gone?"""
    text = str(cause).lower()
    words = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "nccl", "gloo")
    return isinstance(cause, RuntimeError) and any(word in text for word in words)

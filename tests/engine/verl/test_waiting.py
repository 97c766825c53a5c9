"""A worker or server that dies, hangs, runs out of memory or fails otherwise ends a wait with a one-line error."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from rlcsd.engine.verl.waiting import run_with_timeout, wait_for_requests, wait_for_results
from rlcsd.errors import InputError

pytestmark = pytest.mark.slow  # Ray's own half minute to start is too short on a crowded machine


class Process:
    """An actor that fails in the ways of a worker or a server."""

    def process(self) -> int:
        return os.getpid()

    def wait(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    def allocate(self) -> None:
        import resource

        import torch

        resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))
        torch.zeros(2**33)

    def refuse(self) -> None:
        raise InputError("the state is of another model")

    def break_down(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore of it")

    def lose_peers(self) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:1234")


@pytest.fixture(scope="module")
def two(ray_on_cpu):
    import ray

    remote = ray.remote(num_cpus=0)(Process)
    return [remote.remote(), remote.remote()]


def test_results_are_in_order_and_input_errors_are_passed_on(two):
    assert wait_for_results([two[0].wait.remote(0.5), two[1].wait.remote(0.0)], "waiting", 60) == ["done", "done"]
    with pytest.raises(InputError, match=r"^the state is of another model$"):
        wait_for_results([two[0].wait.remote(0.0), two[1].refuse.remote()], "loading", 60)


def test_any_other_error_of_a_worker_or_server_is_one_line_and_a_file_with_the_traceback(two):
    words = r"^scoring: RuntimeError: CUDA error: an illegal memory access was encountered \(full traceback: (.+); logs of workers and servers: .+\)$"
    with pytest.raises(InputError, match=words) as raised:
        wait_for_results([two[0].wait.remote(0.0), two[1].break_down.remote()], "scoring", 60)
    assert "in break_down" in Path(re.match(words, str(raised.value))[1]).read_text(encoding="utf-8")

    class DeadError(Exception):
        """What vLLM's client raises when the process of its engine has died."""

    async def ask() -> None:
        raise DeadError("EngineCore encountered an issue")

    with pytest.raises(InputError, match=r"^sampling: DeadError: EngineCore encountered an issue \(full traceback: "):
        wait_for_requests([ask()], "sampling", 60)
    with pytest.raises(OSError, match="No space left"):
        run_with_timeout(lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")), "saving", 60)


def test_a_server_that_cannot_start_gives_its_reason(ray_on_cpu):
    import ray

    class Server:
        def __init__(self) -> None:
            raise ValueError("max_model_len (99) should be less than or equal to 64")

        def ask(self) -> None: ...

    server = ray.remote(num_cpus=0)(Server).remote()
    with pytest.raises(
        InputError,
        match=r"died \(ValueError: max_model_len \(99\) should be less than or equal to 64; logs of workers and servers: .+\)$",
    ):
        wait_for_results([server.ask.remote()], "starting the rollout servers", 60)


def test_many_requests_may_take_longer_than_one_may(two):
    async def slow(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    waits = [0.8 * number for number in range(1, 5)]
    assert wait_for_requests([slow(seconds) for seconds in waits], "sampling", 2.0) == waits
    assert wait_for_requests([], "sampling", 2.0) == []
    with pytest.raises(InputError, match=r"^sampling: no answer within engine\.timeout=1 seconds$"):
        wait_for_requests([slow(0.5), slow(30)], "sampling", 1.0)


def test_a_call_that_hangs_ends_in_time(two):
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^scoring: no answer within engine\.timeout=1 seconds$"):
        wait_for_results([two[0].wait.remote(5.0)], "scoring", 1.0)
    with pytest.raises(InputError, match=r"^sampling: no answer within engine\.timeout=1 seconds$"):
        wait_for_requests([asyncio.sleep(60)], "sampling", 1.0)
    with pytest.raises(InputError, match=r"^starting: not done within engine\.timeout=1 seconds$"):
        run_with_timeout(lambda: time.sleep(60), "starting", 1.0)
    assert time.monotonic() - begun < 50


def test_a_worker_that_lost_its_peers_says_so(two):
    with pytest.raises(InputError, match=r"^updating: a worker lost its peers \(.*Connection closed by peer"):
        wait_for_results([two[0].lose_peers.remote()], "updating", 60)


def test_out_of_memory_names_what_to_lower(two):
    with pytest.raises(InputError, match=r"^scoring: out of memory"):
        wait_for_results([two[0].allocate.remote()], "scoring", 120)


def test_a_death_ends_the_wait_for_the_others(two):
    import ray

    pid = ray.get(two[1].process.remote())
    references = [two[0].wait.remote(100.0), two[1].wait.remote(100.0)]
    time.sleep(1)
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^updating: a process of the cluster died \(.+\)$") as raised:
        wait_for_results(references, "updating", 90)
    assert time.monotonic() - begun < 60 and "\n" not in str(raised.value)

    async def ask() -> None:
        await two[1].wait.remote(0.0)

    with pytest.raises(InputError, match=r"^sampling: a process of the cluster died"):
        wait_for_requests([ask()], "sampling", 90)

"""A process that dies, hangs or runs out of memory ends a call with a one-line error; closing leaves no process."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from rlcsd.errors import InputError
from rlcsd.records import Pair, Sampling

PROMPTS = [(5, 6, 7, 8)] * 4
FEW = Sampling(max_tokens=8)


def pids(engine) -> list[int]:
    import ray

    workers = [worker.__ray_call__.remote(lambda self: os.getpid()) for worker in engine.policy.group.workers]
    servers = [
        server.process.remote() for replica in engine.servers.manager.get_replicas() for server in replica.servers
    ]
    return ray.get([*workers, *servers])


def alive(processes: list[int], seconds: float = 20.0) -> list[int]:
    """Those that still run after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (left := [pid for pid in processes if psutil.pid_exists(pid) and running(pid)]):
        time.sleep(0.2)
    return left


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def engine(engines):
    """Two ranks that answer within seconds, or not at all."""
    return engines("engine.gpus_per_node=2", "method=grpo", "engine.self_check=false")


@pytest.fixture(scope="module")
def processes(engine) -> list[int]:
    """Process ids of the workers, then of the servers, read while all of them answer."""
    return pids(engine)


def test_a_server_that_hangs_ends_the_call_in_time(engine):
    import ray

    assert len(engine.sample(PROMPTS, 1, FEW, 1)) == 4
    ray.get([s.hang.remote() for replica in engine.servers.manager.get_replicas() for s in replica.servers])
    engine.servers.timeout = 3.0
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^sampling: no answer within engine\.timeout=3 seconds$"):
        engine.sample(PROMPTS, 1, FEW, 1)
    assert time.monotonic() - begun < 30
    engine.servers.timeout = 900.0


def test_out_of_memory_names_what_to_lower(engine, processes):
    import ray
    import torch

    def starve(self) -> None:
        self.hook = self.mine.network.backbone.register_forward_pre_hook(lambda *_: torch.zeros(2**50) and None)

    worker = engine.policy.group.workers[0]
    ray.get(worker.__ray_call__.remote(starve))
    with pytest.raises(InputError, match=r"^scoring ran out of memory on a worker; set engine\.score_tokens="):
        engine.score([Pair((1, 2), (3, 4)), Pair((5, 6), (7, 8))], "policy")


def test_a_server_that_dies_while_it_samples_raises_a_one_line_error(engine, processes):
    engine.servers.wake(engine.version)
    os.kill(processes[-1], signal.SIGKILL)
    with pytest.raises(InputError, match=r"^sampling: a process of the cluster died \(.+\)$") as raised:
        engine.sample(PROMPTS, 8, FEW, 2)
    assert "\n" not in str(raised.value)


def test_a_worker_that_dies_raises_an_error_and_closing_leaves_no_process(engine, processes):
    os.kill(processes[1], signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"^.+: a (process of the cluster died|worker lost)"):
        engine.policy.call("square_sum", "measuring weights")
    engine.close()
    assert time.monotonic() - begun < 60
    assert alive(processes) == []


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("lm_head", "the language-model head cannot have an adapter"),
        ("embed_tokens", "(embedding and head of this model|engine=verl adapts linear layers alone)"),
    ],
)
def test_adapters_beside_those_of_linear_layers_are_refused(engines, layer, reason):
    lora = ("model.lora.rank=2", f"model.lora.target_modules=[q_proj,{layer}]")
    with pytest.raises(InputError, match=rf"^model\.lora\.target_modules=.*: {reason}"):
        engines("engine.gpus_per_node=2", "method=grpo", *lora)

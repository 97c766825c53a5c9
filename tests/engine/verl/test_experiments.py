"""All published experiments composed for the cluster and turned into verl's own config classes, which check them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.config.schema import Config
from rlcsd.engine.local.model import context_length
from rlcsd.engine.verl.compat import omega_conf_to_dataclass
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.engine.verl.servers import requests, sample_of
from rlcsd.engine.verl.settings import overrides, verl_config
from rlcsd.engine.verl.waiting import gathered
from rlcsd.errors import InputError
from tests.config.test_experiments import ALL, COMMON

from .test_memory import EIGHT_B

_COMPOSED: dict[tuple[str, ...], Any] = {}  # many experiments differ in nothing that verl is told


def composed(told: tuple[str, ...], config: Config) -> Any:
    """verl's tree of a config, and its parts as verl's classes."""
    if told not in _COMPOSED:
        tree = verl_config(config)
        parts = tree.actor_rollout_ref
        sections = (parts.actor, parts.rollout, parts.model, parts.rollout.checkpoint_engine)
        _COMPOSED[told] = (tree, *(omega_conf_to_dataclass(section) for section in sections))
    return _COMPOSED[told]


@pytest.mark.parametrize(("model", "task", "method"), ALL)
def test_an_experiment_passes_verls_own_checks(model, task, method):
    config = load([f"model={model}", f"task={task}", f"method={method}", "engine=verl", "engine.nodes=2"])
    here = config.model_copy(update={"model": config.model.model_copy(update={"path": "tiny"})})  # no hub in a test
    tree, actor, rollout, hf, sync = composed(tuple(overrides(here)), here)
    assert (actor.optim.lr, actor.optim.weight_decay) == (COMMON["learning_rate"], COMMON["weight_decay"])
    assert actor.optim.clip_grad == config.grad_norm and list(actor.optim.betas) == [0.9, 0.999]
    assert actor.engine.mixed_precision["param_dtype"] == "bf16"
    assert actor.engine.mixed_precision["reduce_dtype"] == "fp32"
    assert actor.engine.model_dtype == "fp32" and actor.engine.strategy == "fsdp2"
    room = config.max_prompt_tokens + config.evaluation.sampling.max_tokens
    assert f"actor_rollout_ref.rollout.max_model_len={room}" in overrides(config)
    assert rollout.max_model_len == context_length(here.model)  # less than the room that is asked for
    assert rollout.logprobs_mode == "processed_logprobs" and rollout.enable_prefix_caching
    assert (rollout.gpu_memory_utilization, rollout.max_num_seqs, rollout.enforce_eager) == (0.7, 256, False)
    assert hf.enable_gradient_checkpointing is config.model.gradient_checkpointing and hf.use_remove_padding
    assert sync.backend == "naive"
    assert (tree.trainer.nnodes, tree.trainer.n_gpus_per_node) == (2, 8)
    plan = gpu_plan(EIGHT_B, config, build_method(config))
    assert 0 < plan.resting < plan.peak < 80 * 2**30


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("training", {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "max_tokens": 16384}),
        ("evaluation", {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 38912}),
    ],
)
def test_servers_are_asked_to_draw_as_published(which, expected):
    config = load(["model=qwen3_8b", "task=logic_kk", "method=rlcsd", "engine=verl"])
    asked: list[dict[str, Any]] = []

    class Client:
        async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
            asked.append({"id": request_id, "prompt": prompt_ids, **sampling_params})
            return SimpleNamespace(token_ids=[5, 7], log_probs=[-0.1, -0.2])

    sampling = config.sampling if which == "training" else config.evaluation.sampling
    outputs = gathered(requests(Client(), [(1, 2), (3,)], 8, sampling.settings(), [7], seed=2**62), "sampling", 60)
    assert len(outputs) == 16 and all(sample_of(output, [7]).finished for output in outputs)
    assert [one["prompt"] for one in asked] == [[1, 2]] * 8 + [[3]] * 8
    assert all(one.items() >= {**expected, "logprobs": True, "stop_token_ids": [7]}.items() for one in asked)
    assert len({one["seed"] for one in asked}) == len({one["id"] for one in asked}) == 16
    assert all(0 <= one["seed"] < 2**31 for one in asked)


@pytest.mark.parametrize("output", [([], []), ([5, 7], None), ([5, 7], [-0.1])])
def test_a_server_that_answers_without_log_probs_is_named(output):
    with pytest.raises(InputError, match="a rollout server gave no tokens, or tokens without log-probs"):
        sample_of(SimpleNamespace(token_ids=output[0], log_probs=output[1]), [7])

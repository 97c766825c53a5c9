"""All published experiments composed for the cluster and turned into verl's own config classes, which check them."""

from __future__ import annotations

from typing import Any

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.config.schema import Config
from rlcsd.engine.local.model import context_length
from rlcsd.engine.verl.compat import omega_conf_to_dataclass
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.engine.verl.settings import overrides, verl_config
from tests.config.test_experiments import ALL, COMMON

from .test_gpu_plan import EIGHT_B

_COMPOSED: dict[tuple[str, ...], Any] = {}  # many experiments have the same overrides


def composed(options: tuple[str, ...], config: Config) -> Any:
    """verl's tree of a config, and its parts as verl's classes."""
    if options not in _COMPOSED:
        tree = verl_config(config)
        parts = tree.actor_rollout_ref
        sections = (parts.actor, parts.rollout, parts.model, parts.rollout.checkpoint_engine)
        _COMPOSED[options] = (tree, *(omega_conf_to_dataclass(section) for section in sections))
    return _COMPOSED[options]


@pytest.mark.parametrize(("model", "task", "method"), ALL)
def test_an_experiment_passes_verls_own_checks(model, task, method):
    config = load([f"model={model}", f"task={task}", f"method={method}", "engine=verl", "engine.nodes=2"])
    here = config.model_copy(update={"model": config.model.model_copy(update={"path": "tiny"})})  # no hub in a test
    tree, actor, rollout, hf, sync = composed(tuple(overrides(here)), here)
    assert (actor.optim.lr, actor.optim.weight_decay) == (COMMON["learning_rate"], COMMON["weight_decay"])
    assert actor.optim.clip_grad == config.max_grad_norm and list(actor.optim.betas) == [0.9, 0.999]
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


@pytest.mark.parametrize("alpha", ["model.lora.rank=64", "model.lora.alpha=128.0"])
def test_servers_accept_adapters(alpha):
    from verl.workers.config import HFModelConfig

    tree = verl_config(load(["model=qwen3_4b", "model.path=tiny", "model.lora.rank=64", alpha, "engine=verl"]))
    served = omega_conf_to_dataclass(tree.actor_rollout_ref.model, HFModelConfig)  # as each server builds its config
    assert (served.lora_rank, served.lora_alpha, served.lora["merge"]) == (64, 128, False)

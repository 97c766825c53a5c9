"""The memory estimate: exact where it counts tensors, monotone in what costs memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlcsd.config.load import build_method, load
from rlcsd.engine import interface
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.memory import (
    cache_bytes,
    checkpoint_bytes,
    load_shape,
    loading_bytes,
    memory_line,
    memory_plan,
    sample_slots,
)
from rlcsd.engine.local.model import load_network
from rlcsd.errors import InputError
from rlcsd.run.checkpoint import save_checkpoint

BF16 = ["model.dtype=bfloat16", "model.master_dtype=bfloat16"]


def plan(*overrides: str) -> dict[str, float]:
    config = load(list(overrides))
    return memory_plan(load_shape(config.model), config, build_method(config))


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=rlcsd"],
        ["method=grpo", "kl_coefficient=0.1"],
        ["method=rlcsd", "model.lora.rank=4"],
        ["method=rlcsd", *BF16],
    ],
)
def test_static_parts_are_those_of_the_real_engine(overrides):
    config = load(overrides)
    method = build_method(config)
    engine = LocalEngine(config, method)
    found = memory_plan(load_shape(config.model), config, method)
    trained = sum(parameter.numel() for parameter in engine.policy.trainable())
    everything = sum(parameter.numel() for parameter in engine.policy.model.parameters())
    each = {parameter.element_size() for parameter in engine.policy.trainable()}.pop()
    assert each == (2 if "model.master_dtype=bfloat16" in overrides else 4)
    assert found["gradients"] == each * trained
    assert found["weights"] == each * everything
    assert found["optimizer"] == 2 * each * trained
    assert found["teacher and reference"] == each * trained  # one twin in each of these cases


def test_it_grows_with_what_costs_memory_and_shrinks_with_what_saves_it():
    interface = plan()["peak"]
    assert plan("kl_coefficient=0.1")["peak"] > interface
    assert plan("engine.micro_batch_tokens=65536")["update"] > plan()["update"]
    assert plan("sampling.max_tokens=1024")["sampling"] > plan()["sampling"]
    assert plan("engine.sample_rows=8")["sampling"] < plan()["sampling"]
    assert plan("model.gradient_checkpointing=true")["update"] < plan()["update"]
    assert plan("engine.optimizer=adamw_8bit")["optimizer"] < plan()["optimizer"] / 3
    assert plan("model.lora.rank=2")["gradients"] < plan()["gradients"]
    assert plan("method=grpo")["teacher and reference"] == 0


def test_a_teacher_model_of_its_own_counts_with_its_own_size():
    config = load(["method=opd", "method.teacher_model=tiny"])
    method = build_method(config)
    shape = load_shape(config.model)
    large = replace(shape, parameters=8_000_000_000)
    same, other = memory_plan(shape, config, method, shape), memory_plan(shape, config, method, large)
    assert same["teacher and reference"] == 4 * shape.parameters
    assert other["teacher and reference"] == 32e9
    assert other["peak"] > 32e9
    assert "teacher and reference" in memory_line(config, method)


def test_a_run_of_few_short_rows_holds_no_more_than_these():
    """Budgets of 16,384 and 32,768 tokens, which a mini-batch of 8 responses of 48 tokens never fills."""
    few = ["model=qwen3_4b", "task=kk_tiny", "prompts_per_step=2", "prompts_per_update=2", "group_size=4"]
    few += ["engine.micro_batch_tokens=16384", "engine.score_tokens=32768", "max_prompt_tokens=32"]
    found, many = plan(*few, "sampling.max_tokens=48"), plan(*few, "sampling.max_tokens=4096")
    assert found["update"] < 3 * 2**30 < many["update"]
    assert found["scoring"] < 6 * 2**30 < many["scoring"]


@pytest.mark.parametrize(
    "overrides",
    [["method=rlcsd"], ["method=grpo"], ["method=sdpo", "model.lora.rank=4"], ["method=sdpo"], ["method=sdpo", *BF16]],
)
def test_a_checkpoint_takes_what_the_plan_says(overrides, tmp_path):
    config = load([*overrides, "engine.threads=1", "engine.self_check=false"])
    method = build_method(config)
    engine = LocalEngine(config, method)
    for parameter in engine.policy.trainable():
        parameter.grad = torch.zeros_like(parameter)
    engine.optimizer.step()
    path = save_checkpoint(tmp_path, engine, 1)
    weights = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    planned = checkpoint_bytes(load_shape(config.model), config, method)
    assert planned == pytest.approx(weights, rel=0.15 if config.model.lora else 0.05)  # headers are much of adapters


def test_topk_log_probs_count_while_a_mini_batch_is_updated():
    assert plan("method=sdpo")["top-k log-probs"] == topk_bytes_by_hand("method=sdpo")
    assert plan("method=rlcsd")["top-k log-probs"] == 0


def topk_bytes_by_hand(*overrides: str) -> float:
    """An id of 8 bytes and the teacher's log-prob of 4 for each of k ids of each response token."""
    config = load(list(overrides))
    return config.prompts_per_update * config.group_size * config.sampling.max_tokens * config.method.top_k * 12


def test_prompts_that_are_shared_count_in_the_update():
    assert plan("max_prompt_tokens=2048")["update"] > plan("max_prompt_tokens=256")["update"]


@pytest.mark.parametrize("engine", ["local", "verl"])
@pytest.mark.parametrize(
    "overrides",
    [["model.path=owner/nowhere"], ["method=opsd", "method.teacher=model", "method.teacher_model=owner/nowhere"]],
)
def test_the_model_out_of_reach_is_named_be_it_the_policy_or_the_teacher(engine, overrides):
    config = load([*overrides, f"engine={engine}"])
    line = interface.memory_line(config, build_method(config))
    assert line.startswith("not estimated: the config of owner/nowhere could not be loaded (")


def test_frozen_weights_below_adapters_are_bf16_and_adapters_float32():
    config = load(["model.lora.rank=4", "model.dtype=bfloat16"])
    network = load_network(config.model, torch.device("cpu"))
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in network.model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_moments_in_eight_bits_need_a_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    config = load(["engine.optimizer=adamw_8bit", "method=grpo"])
    with pytest.raises(InputError, match="quantization"):
        LocalEngine(config, build_method(config))


def test_the_samplers_cache_takes_what_a_gpu_has_left():
    config = load([])
    shape = load_shape(config.model)
    a_token = cache_bytes(shape, config, 1)
    assert a_token == 4 * 2 * 64 * 4  # layers, keys and values, 2 heads of 32, float32
    assert sample_slots(shape, config, 50e9, None) == 16 * 2**30 // a_token
    half = load(["engine.sample_gib=8"])
    assert sample_slots(shape, half, 0.0, None) == sample_slots(shape, half, 0.0, 80 * 2**30) == 8 * 2**30 // a_token
    few, many = (sample_slots(shape, config, static, 80 * 2**30) for static in (60 * 2**30, 20 * 2**30))
    assert (many - few) * a_token == pytest.approx(40 * 2**30 * 4 / 5, rel=1e-6)  # one of 4 layers twice at times
    assert 20 * 2**30 + many * a_token * 5 / 4 < 0.9 * 80 * 2**30
    assert sample_slots(shape, config, 80 * 2**30, 80 * 2**30) == 1  # one row at a time


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_that_fits_at_all_leaves_a_tenth_of_a_gpu(dtype, monkeypatch):
    long = [f"model.dtype={dtype}", "sampling.max_tokens=900", "max_prompt_tokens=100", "engine.sample_rows=10000"]
    needed = plan(*long, "prompts_per_step=1024", "engine.sample_gib=100")["peak"]
    for memory in (needed, needed / 2):
        monkeypatch.setattr("rlcsd.engine.local.memory.device_memory", lambda config, memory=memory: memory)
        assert 0.75 * memory < plan(*long, "prompts_per_step=1024")["peak"] <= 0.9 * memory


def test_the_plan_of_sampling_is_bounded_by_the_cache():
    long = ["sampling.max_tokens=900", "max_prompt_tokens=100", "engine.sample_rows=10000", "prompts_per_step=64"]
    assert plan(*long)["sampling"] > plan(*long, "engine.sample_gib=0.01")["sampling"] > 0.01 * 2**30


@pytest.mark.parametrize("gpus", [1, 8])
def test_one_rank_alone_reads_the_weights(gpus):
    config = load(["engine=verl", "model=qwen3_4b", f"engine.gpus_per_node={gpus}"])
    shape = load_shape(config.model)
    assert shape.tied and loading_bytes(shape, config) == 4 * shape.parameters

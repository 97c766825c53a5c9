"""Weights without a float32 master copy: steps, what they change, the teacher, files; and the share of changed weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine, optimizer
from rlcsd.engine.local.host import host_copy
from rlcsd.engine.local.optimizer import changed_counts, watched_values
from rlcsd.errors import InputError
from rlcsd.methods.base import TeacherSchedule
from rlcsd.stages.score import build_token_batch

from .test_update import rows_for

BF16 = ("model.dtype=bfloat16", "model.master_dtype=bfloat16")
_FAST = ("engine.device=cpu", "engine.threads=1", "engine.self_check=false")


def engine_of(*overrides: str) -> LocalEngine:
    config = load([*_FAST, *overrides])
    return LocalEngine(config, build_method(config))


def stepped(engine: LocalEngine, learning_rate: float, seed: int = 0):
    """One update with random rows; its metrics."""
    method = build_method(engine.config)
    rows = rows_for(engine, method, seed, count=4)
    batch = method.prepare(build_token_batch(engine, rows, method), 1)
    return engine.update([row.pair for row in rows], batch, method, learning_rate)


def adamw_by_hand(weight, grad, rate: float, decay: float):
    """The first step of AdamW, every result rounded to the format of the weights."""
    first = torch.zeros_like(weight).lerp_(grad, 0.1)
    second = torch.zeros_like(weight).mul_(0.999).addcmul_(grad, grad, value=0.001)
    scale = (second.sqrt() / (1 - 0.999) ** 0.5).add_(1e-8)
    return (weight * (1 - rate * decay)).addcdiv_(first, scale, value=-rate / (1 - 0.9))


@pytest.mark.parametrize("lora", [(), ("model.lora.rank=4",)])
def test_a_step_without_a_master_copy_is_that_of_adamw_in_bfloat16(lora):
    engine = engine_of("method=grpo", "max_grad_norm=1e9", *BF16, *lora)
    named = engine.policy.named_trainable()
    assert named and {parameter.dtype for parameter in named.values()} == {torch.bfloat16}
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    grads = {}
    for name, parameter in named.items():
        parameter.register_hook(lambda grad, name=name: grads.__setitem__(name, grads.get(name, 0) + grad))
    share = stepped(engine, 1e-4)["update/changed_share"]
    expected = {n: adamw_by_hand(before[n], grad, 1e-4, engine.config.weight_decay) for n, grad in grads.items()}
    for name, weight in expected.items():
        torch.testing.assert_close(named[name].detach(), weight, rtol=2**-8, atol=0)
        assert float((named[name] == weight).float().mean()) > 0.999
    changed = sum(int((named[name] != before[name]).sum()) for name in named)
    total = sum(parameter.numel() for parameter in named.values())
    assert share.value == pytest.approx(changed / total) and share.weight == total
    assert {s.dtype for state in engine.optimizer.state.values() for s in state.values() if s.ndim} == {torch.bfloat16}


def test_a_step_of_the_published_size_changes_the_smallest_of_bfloat16_weights_alone():
    """A weight near 0.02 is 1.2e-4 from its neighbour in bfloat16, so a step of 1e-6 moves only those near 0."""
    wide, half = engine_of("method=grpo"), engine_of("method=grpo", *BF16)
    size = torch.cat([parameter.detach().float().flatten() for parameter in half.policy.trainable()]).abs()
    spacing = 2 ** (size.clamp(min=1e-30).log2().floor() - 7)
    reachable = float((spacing / 2 <= 1e-6).float().mean())  # at the first step, AdamW moves each weight by the rate
    share = stepped(half, 1e-6)["update/changed_share"].value
    assert share == pytest.approx(reachable, rel=0.1) and share < 0.05
    assert stepped(wide, 1e-6)["update/changed_share"].value > 0.5


def test_the_figures_that_docs_as_run_gives_of_bfloat16():
    every = torch.arange(2**7).add(2**7).div(2**7).bfloat16()  # all significands
    binades = torch.cat([every * 2.0**exponent for exponent in range(-20, 4)])
    assert torch.equal(binades * 0.999, binades) and torch.equal(binades * (1 - 1e-8), binades)  # neither decays
    near = torch.tensor(0.02).bfloat16()
    assert float(torch.nextafter(near, torch.ones_like(near)) - near) == pytest.approx(1.2e-4, rel=0.02)
    moved = binades[(binades + 1e-6) != binades]
    assert 4e-4 < float(moved.max()) < 5e-4  # of a step of 1e-6


def test_the_watched_weights_of_a_large_model_are_spread_over_all_columns(monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.optimizer._WATCHED", 100)
    weights = [torch.zeros(64, 32), torch.zeros(32)]
    before = watched_values(weights)
    weights[0][:, :8] += 1  # a quarter
    changed, watched = changed_counts(before, weights)
    assert 90 <= watched <= 110 and changed / watched == pytest.approx(0.25, abs=0.05)
    assert changed_counts(watched_values(weights), weights)[0] == 0


def test_a_teacher_in_bfloat16_follows_as_the_published_one():
    """Decay and sum are rounded one after the other, so that some weights follow a policy one spacing away."""
    policy = torch.linspace(0.5, 1, 65, dtype=torch.float64)[:-1].bfloat16()
    teacher = torch.nextafter(policy, torch.zeros_like(policy))
    expected = (teacher.double() * 0.95).bfloat16().double() + 0.05 * policy.double()
    TeacherSchedule("ema", 0.05).move(teacher, policy)
    assert torch.equal(teacher, expected.bfloat16())
    assert 0 < float((teacher == policy).float().mean()) < 1


@pytest.mark.parametrize("lora", [(), ("model.lora.rank=4",)])
def test_moments_in_eight_bits_resume(lora, tmp_path):
    pytest.importorskip("bitsandbytes")
    overrides = ("method=grpo", "engine.optimizer=adamw_8bit", *lora)
    engine, resumed = engine_of(*overrides), engine_of(*overrides)
    assert type(engine.optimizer).__name__ == "AdamW8bit"
    for seed in range(2):  # the weights of adapters' first factors move from the second step on
        stepped(engine, 1e-3, seed)
    if lora:
        engine.save_state(tmp_path)
    else:  # what is copied first and written in the background
        optimizer.save_training_state(tmp_path, *host_copy(engine._state()))
    resumed.load_state(tmp_path)
    states = load_file(tmp_path / "optimizer.safetensors").values()
    assert any(state.dtype == torch.uint8 for state in states) or lora  # small tensors keep float32
    for one in (engine, resumed):
        stepped(one, 1e-3, seed=2)
    pairs = zip(engine.policy.trainable(), resumed.policy.trainable(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_run_without_a_master_copy_resumes_and_its_files_are_bfloat16(tmp_path):
    overrides = ("method=sdpo", "method.top_k=9", *BF16)
    engine = engine_of(*overrides)
    stepped(engine, 1e-3)
    engine.save(tmp_path / "model")
    (tmp_path / "state").mkdir()
    engine.save_state(tmp_path / "state")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    resumed = engine_of(*overrides)
    resumed.load_state(tmp_path / "state")
    teacher, other = (one.teacher.state() for one in (engine, resumed))
    assert teacher and {tensor.dtype for tensor in teacher.values()} == {torch.bfloat16}
    assert all(torch.equal(teacher[name], other[name]) for name in teacher)
    for one in (engine, resumed):
        stepped(one, 1e-3, seed=1)
    pairs = zip(engine.policy.trainable(), resumed.policy.trainable(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    again = engine_of("method=grpo", *BF16, f"model.path={tmp_path / 'model'}")
    assert {parameter.dtype for parameter in again.policy.trainable()} == {torch.bfloat16}


def test_weights_in_bfloat16_are_computed_with_in_bfloat16():
    with pytest.raises(InputError, match=r"model\.master_dtype=bfloat16: model\.dtype=float32 .*set model\.dtype=bf"):
        load(["model.master_dtype=bfloat16"])

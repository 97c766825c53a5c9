"""The gradient of a mini-batch through the real engine, for all methods and cuts; the teacher's three kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rlcsd.config.schema import Config, LocalEngineConfig, LoraConfig, ModelConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import Network, load_network
from rlcsd.layout import Layout
from rlcsd.methods import METHODS
from rlcsd.records import Pair, Rollout, Sample, TrainingExample, Verdict
from rlcsd.stages.correction import RolloutCorrection
from rlcsd.stages.normalisation import normalised_in_parts
from rlcsd.stages.score import build_token_batch
from tests.conftest import random_model
from tests.methods.catalogue import EIGHT, RELATIVES

TRUNCATED = RolloutCorrection("token_truncate")


def built(name: str):
    fields = {"top_k": 9} if METHODS[name].topk_from != "none" else {}
    return METHODS[name].from_fields(**fields)


def engine_for(method, tokenizer, *, dtype=torch.float32, micro=10**6, model=None, **fields) -> LocalEngine:
    config = Config(engine=LocalEngineConfig(device="cpu", micro_batch_tokens=micro, score_tokens=64), **fields)
    network = model or Network(random_model(vocab=len(tokenizer), dtype=dtype))
    return LocalEngine(config, method, network, tokenizer)


def rows_for(engine: LocalEngine, method, seed: int = 0, count: int = 7) -> list[TrainingExample]:
    g = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        size = int(torch.randint(low, high, (1,), generator=g))
        return tuple(torch.randint(3, 80, (size,), generator=g).tolist())

    rows = []
    for index in range(count):
        prompt, response = tokens(2, 12), tokens(1, 15)
        scores = engine.score([Pair(prompt, response)], "policy")
        old = scores.log_prob.tolist()
        noisy = torch.tensor([value + 0.1 * ((7 * i) % 5 - 2) for i, value in enumerate(old)])
        sample = Sample(response, noisy, noisy - 0.05, True, scores.entropy.cpu().float())
        advantage = [1.2, -0.7, 0.4, 0.0][index % 4]
        hints = (tokens(5, 20), tuple(tokens(5, 20) for _ in range(1 + index % 3))) if method.hinted else (None, ())
        rows.append(
            TrainingExample(
                prompt,
                Rollout(sample, "", Verdict(advantage > 0, max(advantage, 0.0)), None),
                advantage,
                hints[0],
                hints[1] if method.needs_contrast else (),
            )
        )
    return rows


def gradient(engine: LocalEngine, rows, method, batch) -> torch.Tensor:
    engine.optimizer.zero_grad(set_to_none=True)
    engine.gradient([row.pair for row in rows], batch, method)
    return torch.cat([p.grad.flatten() for p in engine.policy.trainable() if p.grad is not None])


@pytest.mark.parametrize("name", [*EIGHT, *RELATIVES, "gspo"])
def test_the_gradient_does_not_depend_on_the_micro_batches(name, tokenizer):
    method = built(name)
    model = Network(random_model(vocab=len(tokenizer), dtype=torch.float64))
    whole = engine_for(method, tokenizer, model=model, kl_coefficient=0.01, entropy_coefficient=0.02)
    rows = rows_for(whole, method)
    batch = method.prepare(build_token_batch(whole, rows, method, TRUNCATED), 2)
    expected = gradient(whole, rows, method, batch)
    assert float(expected.norm()) > 0
    for micro in (1, 30, 60):  # one by one, and two cuts by tokens
        cut = engine_for(method, tokenizer, model=model, micro=micro, kl_coefficient=0.01, entropy_coefficient=0.02)
        cut.topk = whole.topk
        found = gradient(cut, rows, method, batch)
        assert float((found - expected).norm() / expected.norm()) < 1e-10


@pytest.mark.parametrize("name", [*EIGHT, *RELATIVES])
def test_the_gradient_is_that_of_whole_logits_written_plainly(name, tokenizer):
    method = built(name)
    engine = engine_for(method, tokenizer, dtype=torch.float64)
    rows = rows_for(engine, method)
    batch = method.prepare(build_token_batch(engine, rows, method), 1)
    found = gradient(engine, rows, method, batch)
    from rlcsd.methods import StudentLogProbs

    engine.optimizer.zero_grad(set_to_none=True)
    full = []
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.rollout.sample.ids]])
        full.append(engine.policy.model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1))
    log_probs = torch.cat(full)
    ids = torch.tensor([token for row in rows for token in row.rollout.sample.ids])
    batch = engine.topk.columns(batch, torch.arange(len(batch)))
    at_support = None if batch.topk_ids is None else log_probs.gather(-1, batch.topk_ids)
    method.token_loss(StudentLogProbs(log_probs.gather(-1, ids[:, None])[:, 0], at_support), batch).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in engine.policy.trainable() if p.grad is not None])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["rlsd_ectr", "sdpo"])
def test_means_over_micro_batches_are_the_sum_of_each_alone_with_its_regularisers(name, tokenizer):
    """By the engine itself: each part as a mini-batch of its own, weighed by its rows, however the engine cuts."""
    method = built(name)
    extra = {"kl_coefficient": 0.3, "entropy_coefficient": 0.2}
    engine = engine_for(method, tokenizer, dtype=torch.float64, micro=30, **extra)
    rows = rows_for(engine, method)
    with torch.no_grad():
        for parameter in engine.policy.trainable():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    layout, parts = Layout(tuple(len(row.rollout.sample) for row in rows)), [[0, 4], [1, 2, 6], [3], [5]]
    batch = build_token_batch(engine, rows, method, TRUNCATED)
    batch = normalised_in_parts(method, batch, [layout.tokens(part) for part in parts], 1)
    found = gradient(engine, rows, method, batch)
    expected = torch.zeros_like(found)
    for part in parts:
        some = [rows[row] for row in part]
        alone = method.prepare(build_token_batch(engine, some, method, TRUNCATED), 1)
        expected += len(part) / len(rows) * gradient(engine, some, method, alone)
    plain = gradient(engine, rows, method, method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 1))
    assert float((found - expected).norm() / expected.norm()) < 1e-5  # the scores are in float32
    assert float((found - plain).norm() / expected.norm()) > 1e-2


def test_rows_without_gradient_are_not_computed_but_count(tokenizer):
    method = METHODS["grpo"].from_fields()
    engine = engine_for(method, tokenizer)
    rows = rows_for(engine, method, count=4)
    batch = method.prepare(build_token_batch(engine, rows, method), 1)
    metrics = engine.gradient([row.pair for row in rows], batch, method)
    assert metrics["actor/updated_share"].value == 0.75
    assert float(batch.weight.sum()) == pytest.approx(1.0)


def test_a_mini_batch_without_any_gradient_moves_nothing(tokenizer):
    method = METHODS["grpo"].from_fields()
    engine = engine_for(method, tokenizer)
    rows = [TrainingExample(row.prompt, row.rollout, 0.0) for row in rows_for(engine, method)]
    before = [p.clone() for p in engine.policy.trainable()]
    engine.update([row.pair for row in rows], method.prepare(build_token_batch(engine, rows, method), 1), method, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, engine.policy.trainable(), strict=True))
    assert engine.optimizer_steps == 0


# ---------------------------------------------------------------- teachers


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["fixed", "ema", "snapshot"])
def test_the_teacher_follows_as_its_kind_says_through_real_optimizer_steps(kind, lora, tokenizer):
    method = METHODS["rlsd"].from_fields(teacher=kind, snapshot_every=3, ema_rate=0.1)
    model = Network(random_model(vocab=len(tokenizer)))
    if lora:
        peft = pytest.importorskip("peft")
        settings = LoraConfig(rank=4, alpha=8)
        adapted = peft.get_peft_model(
            model.model,
            peft.LoraConfig(
                r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        model = Network(adapted)
    engine = engine_for(method, tokenizer, model=model)
    rows = rows_for(engine, method)

    def policy():
        return torch.cat([p.detach().flatten().clone() for p in engine.policy.trainable()])

    def teacher():
        named = dict(engine.teacher.network.model.named_parameters())
        return torch.cat(
            [named[n].flatten().clone() for n, p in engine.policy.model.named_parameters() if p.requires_grad]
        )

    start = policy()
    history, expected = [start], start.double()
    for step in range(1, 8):
        batch = method.prepare(build_token_batch(engine, rows, method), 1)
        engine.update([row.pair for row in rows], batch, method, 1e-2)
        history.append(policy())
        assert not torch.equal(history[-1], history[-2])
        expected = 0.9 * expected + 0.1 * history[-1].double()
        if kind == "fixed":
            assert torch.equal(teacher(), start)
        elif kind == "snapshot":
            assert torch.equal(teacher(), history[step - step % 3])
        else:
            torch.testing.assert_close(teacher().double(), expected, rtol=1e-5, atol=1e-6)


def test_teacher_and_policy_share_no_trained_tensor_and_all_frozen_ones(tokenizer):
    peft = pytest.importorskip("peft")
    base = random_model(vocab=len(tokenizer))
    adapted = Network(
        peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    )
    twin = adapted.twin()
    theirs = dict(twin.model.named_parameters())
    for name, parameter in adapted.model.named_parameters():
        assert (theirs[name] is parameter) == (not parameter.requires_grad), name
    assert not any(p.requires_grad for p in theirs.values())


def test_a_checkpoint_carries_policy_optimizer_and_teacher(tokenizer, tmp_path):
    method = METHODS["sdpo"].from_fields(top_k=5)
    engine = engine_for(method, tokenizer)
    rows = rows_for(engine, method)

    def advance(some: LocalEngine) -> None:
        batch = method.prepare(build_token_batch(some, rows, method), 1)
        some.update([row.pair for row in rows], batch, method, 1e-2)

    advance(engine)
    engine.save_state(tmp_path)
    advance(engine)
    other = engine_for(method, tokenizer, model=Network(random_model(vocab=len(tokenizer), seed=9)))
    other.load_state(tmp_path)
    advance(other)
    for name, tensor in engine.policy.model.state_dict().items():
        assert torch.equal(tensor, other.policy.model.state_dict()[name]), name
    assert all(
        torch.equal(a, b) for a, b in zip(engine.teacher.state().values(), other.teacher.state().values(), strict=True)
    )


def test_model_config_accepts_lora():
    assert ModelConfig(lora=LoraConfig(rank=2)).lora.rank == 2


@pytest.mark.parametrize("name", ["grpo", "sdpo"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_prompts_computed_once_give_the_gradient_of_prompts_computed_for_each_row(
    name, architecture, tokenizer, monkeypatch
):
    method = built(name)
    model = Network(random_model(architecture, vocab=len(tokenizer), dtype=torch.float64))
    engine = engine_for(method, tokenizer, model=model, micro=40, kl_coefficient=0.01)
    rows = rows_for(engine, method, count=9)
    prompts = [tuple(range(5, 15)), tuple(range(20, 27))]
    rows = [replace(row, prompt=prompts[place % 2]) for place, row in enumerate(rows)]
    batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 1)
    shared = gradient(engine, rows, method, batch)
    monkeypatch.setattr("rlcsd.engine.local.update.prompts_to_share", lambda *arguments: None)
    plain = gradient(engine, rows, method, batch)
    assert float(plain.norm()) > 0
    assert float((shared - plain).norm() / plain.norm()) < 1e-6  # norms and rotations are float32 inside


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["k_proj"], ["o_proj"], ["gate_proj"]])
def test_adapters_of_some_layers_alone_get_the_gradient_of_prompts_computed_for_each_row(
    targets, tokenizer, monkeypatch
):
    """Below the first of them nothing is trained, and what was computed there has no gradient to take."""
    pytest.importorskip("peft")
    method = built("grpo")
    model = load_network(ModelConfig(lora=LoraConfig(rank=2, target_modules=targets)), torch.device("cpu"))
    for name, parameter in model.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    engine = engine_for(method, tokenizer, model=model, micro=40)
    rows = [replace(row, prompt=tuple(range(5, 15))) for row in rows_for(engine, method, count=4)]
    batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 1)
    shared = gradient(engine, rows, method, batch)
    monkeypatch.setattr("rlcsd.engine.local.update.prompts_to_share", lambda *arguments: None)
    plain = gradient(engine, rows, method, batch)
    assert float((shared - plain).norm() / plain.norm()) < 1e-4


@pytest.mark.parametrize("budget", [24, 60, 10**6])
def test_no_forward_with_gradient_is_larger_than_the_budget(budget, tokenizer, monkeypatch):
    method = built("grpo")
    model = Network(random_model("qwen3", vocab=len(tokenizer), dtype=torch.float64))
    engine = engine_for(method, tokenizer, model=model, micro=budget)
    prompts = [tuple(range(5 + i, 15 + i)) for i in range(6)]
    rows = rows_for(engine, method, count=24)
    rows = [replace(row, prompt=prompts[place // 4]) for place, row in enumerate(rows)]
    batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 1)
    sizes: list[int] = []
    forward = Network.hidden

    def counted(self, *cache, **inputs):
        if torch.is_grad_enabled():
            sizes.append(inputs["input_ids"].numel())
        return forward(self, *cache, **inputs)

    monkeypatch.setattr(Network, "hidden", counted)
    gradient(engine, rows, method, batch)
    assert sum(sizes) >= 6 * 9 + sum(len(row.pair.response) for row in rows if row.advantage)  # prompts once
    assert max(sizes) <= budget

"""CEPO, SDAR, OPSA and position weights against slow literal versions: loops over tokens, and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlcsd.config.load import load
from rlcsd.methods import METHODS, StudentLogProbs
from rlcsd.methods.opsd import position_weights
from rlcsd.run import Run
from tests.methods.batches import policy_of, random_batch

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def gradients(loss, logits):
    whole = loss + 0 * logits.sum()  # where all is clipped, nothing else has a gradient
    return torch.autograd.grad(whole, logits, retain_graph=True)[0]


def clipped_surrogate(ratio, advantage, low, high):
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cepo", {"teacher": "policy", "hint_source": "answer_pair", "exclude_self": False, "unusable": "plain", "k_max": 1,
                  "lam": 0.5, "lam_decay_steps": 25, "epsilon_weight": 0.5, "epsilon": 0.2, "epsilon_high": 0.28, "reduction": "token"}),
        ("sdar", {"teacher": "policy", "coefficient": 0.01, "gate_beta": 5.0, "reduction": "token"}),
        ("opsa", {"share": 0.2, "advantage": -0.5, "reduction": "sequence"}),
    ],
)  # fmt: skip
def test_published_hyper_parameters_are_the_defaults(name, expected):
    config = METHODS[name].from_fields()
    assert {key: getattr(config.config, key) for key in expected} == expected


# ------------------------------------------------------------------ cepo


@given(lengths=sizes, seed=st.integers(0, 99), step=st.integers(1, 30))
def test_cepo_is_its_formula_token_by_token(lengths, seed, step):
    method = METHODS["cepo"].from_fields()
    logits, ids, batch = random_batch(method, lengths, seed, wrong=1)
    prepared = method.prepare(batch, step)
    policy = policy_of(logits, ids, prepared)
    lam = 0.5 * max(0.0, 1 - (step - 1) / 25)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(len(batch)):
        advantage = float(batch.advantage[t])
        delta = float(batch.teacher_log_prob[t] - batch.contrast_log_prob[t, 0])
        weight = min(max(math.exp(math.copysign(1, advantage) * delta), 0.5), 1.5)
        shaped = advantage * ((1 - lam) + lam * weight)
        ratio = (policy.log_prob[t] - batch.old_log_prob[t]).exp()
        total = total + clipped_surrogate(ratio, shaped, 0.2, 0.28) * batch.correction[t]
    total = total / len(batch)
    loss = method.token_loss(policy, prepared).sum()
    torch.testing.assert_close(loss, total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(loss, logits), gradients(total, logits), rtol=1e-9, atol=1e-13)


def test_cepo_without_a_wrong_answer_or_after_25_steps_is_grpo():
    cepo = METHODS["cepo"].from_fields()
    _, _, batch = random_batch(cepo, [4, 6], 1, wrong=1)
    unhinted = batch.with_columns(hinted=torch.zeros_like(batch.hinted))
    for columns, step in ((unhinted, 1), (batch, 26)):
        prepared = cepo.prepare(columns, step)
        torch.testing.assert_close(prepared.credit, batch.advantage, rtol=1e-12, atol=0)
    assert [cepo.asks_teacher(step) for step in (1, 25, 26, 400)] == [True, True, False, False]
    rlsd = METHODS["rlsd"].from_fields()
    assert [rlsd.asks_teacher(step) for step in (50, 51)] == [True, False]
    assert METHODS["rlsd"].from_fields(lam_decay_steps=0).asks_teacher(10**6)
    assert METHODS["sdpo"].from_fields().asks_teacher(10**6) and not METHODS["grpo"].from_fields().asks_teacher(1)


def test_a_run_scores_under_bare_answers_until_lambda_is_zero_and_not_once_after(tiny_config, monkeypatch):
    run = Run(tiny_config("method=cepo", "method.lam_decay_steps=1", "sampling.max_tokens=144"))
    assert run.engine.teacher is None  # the policy itself: no second copy of its weights
    asked, score = [], run.engine.score
    monkeypatch.setattr(
        run.engine, "score", lambda pairs, *who, **more: asked.append(pairs) or score(pairs, *who, **more)
    )
    result = run.trainer.step(1)
    for examples, batch in zip(result.examples, result.token_batches, strict=True):
        assert bool((batch.hinted == (batch.teacher_log_prob != 0)).all())
        for one in examples:
            for prompt in (one.teacher_prompt, *one.contrast_prompts) if one.teacher_prompt else ():
                assert prompt[: len(one.prompt)] == one.prompt and len(one.prompt) < len(prompt)
    assert asked
    asked.clear()
    second = run.trainer.step(2)
    assert asked == []
    assert second.metrics["update/count"] > 0 and second.metrics["hints/usable_share"] > 0
    assert all(torch.equal(batch.credit, batch.advantage) for batch in second.token_batches)


# ------------------------------------------------------------------ sdar


@given(lengths=sizes, seed=st.integers(0, 99), beta=st.floats(0, 10), coefficient=st.floats(0, 1))
def test_sdar_is_grpo_and_a_gated_gap_token_by_token(lengths, seed, beta, coefficient):
    method = METHODS["sdar"].from_fields(gate_beta=beta, coefficient=coefficient)
    logits, ids, batch = random_batch(method, lengths, seed)
    batch = batch.with_columns(hinted=batch.rollout % 2 == 0)
    prepared = method.prepare(batch, 1)
    policy = policy_of(logits, ids, prepared)
    rewarded, distilled = (torch.zeros((), dtype=torch.float64) for _ in range(2))
    for t in range(len(batch)):
        advantage, own = float(batch.advantage[t]), policy.log_prob[t]
        ratio = (own - batch.old_log_prob[t]).exp()
        loss = clipped_surrogate(ratio, advantage, 0.2, 0.2)
        if advantage < 0 and float(torch.as_tensor(loss).detach()) > -3 * advantage:
            loss = torch.tensor(-3 * advantage, dtype=torch.float64)  # dual clip
        rewarded = rewarded + loss * batch.correction[t]
        if batch.hinted[t]:
            gap = batch.teacher_log_prob[t] - own
            distilled = distilled + 1 / (1 + math.exp(-beta * float(gap.detach()))) * gap
    total = (rewarded + coefficient * distilled) / len(batch)
    loss = method.token_loss(policy, prepared).sum()
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients(loss, logits), gradients(total, logits), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("reduction", ["token", "sequence", "constant"])
def test_sdars_second_term_raises_every_hinted_token_by_its_gate(reduction):
    """Its mean is over tokens, whatever the first term's is."""
    method = METHODS["sdar"].from_fields(coefficient=1.0, reduction=reduction, constant_length=4)
    _, _, batch = random_batch(method, [2, 4], 3)
    prepared = method.prepare(batch.with_columns(advantage=torch.zeros_like(batch.advantage)), 1)
    own = prepared.old_log_prob.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(method.token_loss(StudentLogProbs(own), prepared).sum(), own)
    gate = torch.sigmoid(5 * (batch.teacher_log_prob - batch.old_log_prob))
    torch.testing.assert_close(gradient, -gate / 6)


# ------------------------------------------------------------------ opsa


@given(lengths=sizes, seed=st.integers(0, 99), share=st.sampled_from([0.01, 0.2, 0.5, 1.0]))
def test_opsa_is_its_formula_token_by_token(lengths, seed, share):
    method = METHODS["opsa"].from_fields(share=share)
    logits, ids, batch = random_batch(method, lengths, seed)
    policy, n = policy_of(logits, ids, batch), len(batch)
    least_likely = sorted(range(n), key=lambda t: float(batch.old_log_prob[t]))[: max(1, math.floor(share * n))]
    entropies = [float(batch.entropy[t]) for t in least_likely]
    span = max(entropies) - min(entropies)
    total = torch.zeros((), dtype=torch.float64)
    for rollout in range(len(lengths)):
        mine = [t for t in least_likely if int(batch.rollout[t]) == rollout]
        for t in mine:
            scaled = (float(batch.entropy[t]) - min(entropies)) / span if span > 0 else 1.0
            ratio = (policy.log_prob[t] - batch.old_log_prob[t]).exp()
            loss = clipped_surrogate(ratio, -0.5 - 0.5 * scaled, 0.2, 0.2) * batch.correction[t]
            total = total + loss / len(mine) / len(lengths)
    prepared = method.prepare(batch, 1)
    loss = method.token_loss(policy, prepared).sum()
    torch.testing.assert_close(loss, total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(loss, logits), gradients(total, logits), rtol=1e-9, atol=1e-13)
    assert sorted(prepared.selected.nonzero()[:, 0].tolist()) == sorted(least_likely)
    assert torch.equal(method.needs_update(prepared), prepared.selected)


def test_opsa_reads_neither_reward_nor_teacher_and_says_that_it_needs_the_whole_mini_batch():
    method = METHODS["opsa"].from_fields()
    logits, ids, batch = random_batch(method, [10, 10], 4)
    other = batch.with_columns(advantage=-batch.advantage, teacher_log_prob=None, contrast_log_prob=None)
    losses = [method.token_loss(policy_of(logits, ids, b), method.prepare(b, 1)) for b in (batch, other)]
    assert torch.equal(*losses)
    assert method.whole_minibatch and not method.hinted
    halves = [method.assign(batch[part], 1).selected for part in (slice(0, 10), slice(10, 20))]
    assert not torch.equal(torch.cat(halves), method.assign(batch, 1).selected)
    equal = method.prepare(batch.with_columns(entropy=torch.ones_like(batch.entropy)), 1)
    assert equal.credit[equal.selected].tolist() == [-1.0] * 4


# ------------------------------------------------------------------ position weights and temperature of opsd


def test_position_weights_are_those_of_the_paper():
    rollout = torch.tensor([0, 0, 0, 0, 1, 3, 3])
    found = position_weights(rollout, 0.25, 0.3, 0.1).tolist()
    places = [(1, 4), (2, 4), (3, 4), (4, 4), (1, 1), (1, 2), (2, 2)]
    expected = [0.25 + 0.75 / (1 + math.exp(-((k - 0.5) / n - 0.3) / 0.1)) for k, n in places]
    assert found == pytest.approx(expected, rel=1e-12)
    assert position_weights(rollout, 1.0, 0.3, 0.1).tolist() == [1.0] * 7


@given(lengths=sizes, seed=st.integers(0, 99))
def test_pw_opsd_on_the_whole_vocabulary_is_its_formula(lengths, seed):
    """With all 30 tokens as the top-k tokens, nothing is renormalised away."""
    method = METHODS["opsd"].from_fields(
        top_k=30, add_tail=False, temperature=1.1, position_floor=0.25, reduction="sequence"
    )
    logits, ids, batch = random_batch(method, lengths, seed, k=30)
    batch = batch.with_columns(correction=torch.ones_like(batch.correction))
    teacher = torch.empty_like(logits).scatter_(-1, batch.topk_ids, batch.teacher_topk)
    total, t = torch.zeros((), dtype=torch.float64), 0
    for n in lengths:
        for k in range(n):
            weight = 0.25 + 0.75 / (1 + math.exp(-((k + 0.5) / n - 0.3) / 0.1))
            p, q = (teacher[t] / 1.1).log_softmax(-1), (logits[t] / 1.1).log_softmax(-1)
            total = total + weight * (p.exp() * (p - q)).clamp(max=0.05).sum() / n / len(lengths)
            t += 1
    prepared = method.prepare(batch, 1)
    loss = method.token_loss(policy_of(logits, ids, prepared), prepared).sum()
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients(loss, logits), gradients(total, logits), rtol=1e-8, atol=1e-13)


def test_a_tail_has_no_other_temperature():
    with pytest.raises(ValidationError, match=r"method.temperature=1.1: .* set method.add_tail=false"):
        METHODS["opsd"].from_fields(temperature=1.1)


# ------------------------------------------------------------------ variants


def test_the_variants_of_other_papers():
    sdft = load(["method=sdpo", "variant=sdft"]).method
    assert (sdft.teacher, sdft.add_tail, sdft.reduction, sdft.template) == ("fixed", False, "sequence", "bare")
    assert (sdft.alpha, sdft.top_k, sdft.ratio_cap) == (0.5, 100, 2.0)
    weighted = load(["method=opsd", "variant=pw_opsd", "task=logic_kk"])
    found = weighted.method
    assert (found.position_floor, found.position_midpoint, found.position_width) == (0.25, 0.3, 0.1)
    assert (found.temperature, found.add_tail, found.clip, found.teacher) == (1.1, False, 0.05, "fixed")
    assert (weighted.learning_rate, weighted.model.lora.rank, weighted.max_grad_norm) == (5e-6, 64, 0.1)


def test_opsa_of_a_mini_batch_of_which_nothing_is_left_has_no_loss():
    method = METHODS["opsa"].from_fields()
    _, _, batch = random_batch(method, [3], 0)
    none = method.prepare(batch[:0], 1)
    assert len(none) == 0 and method.metrics(none) == {}

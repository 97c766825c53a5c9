"""The switches beyond the paper against a slow implementation, one token at a time in plain floats."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from rlcsd.experiments.rlcsd_extended import RLCSDExtended, RLCSDExtendedConfig
from rlcsd.methods import METHODS
from tests.methods.batches import policy_of, random_batch

LENGTHS = [7, 4, 9, 5]


def slow(config: RLCSDExtendedConfig, batch, log_prob) -> tuple[list[float], list[float], float]:
    """Credit and weight of each token, and the loss."""
    n = len(batch.rollout)
    rollout = batch.rollout.tolist()
    credit, selected = [], []
    for t in range(n):
        a, teacher = float(batch.advantage[t]), float(batch.teacher_log_prob[t])
        wrong = [
            math.exp(float(w))
            for w, ok in zip(batch.contrast_log_prob[t], batch.contrast_valid[t], strict=True)
            if bool(ok)
        ]
        mean_wrong = sum(wrong) / len(wrong)
        e = teacher - (math.log(mean_wrong) if config.evidence == "contrast" else float(batch.old_log_prob[t]))
        if not bool(batch.hinted[t]):
            e = 0.0
        r = min(max(config.beta * config.lam * math.tanh(e / config.tau), config.residual_low), config.residual_high)
        selected.append(abs(r) > config.delta)
        moved = a + r if selected[t] and config.shift else a
        if config.anchor:
            moved = max(moved, 0.0) if a > 0 else min(moved, 0.0) if a < 0 else 0.0
        spared = config.spare is not None and min(math.exp(teacher), mean_wrong) >= config.spare
        if spared and a < 0 and bool(batch.hinted[t]):
            moved = 0.0
        credit.append(moved)
    weight = []
    for t in range(n):
        if not config.two_path:
            weight.append(1 / n)
            continue
        mine = [u for u in range(n) if config.path_norm == "minibatch" or rollout[u] == rollout[t]]
        rollouts = 1 if config.path_norm == "minibatch" else len(set(rollout))
        others, chosen = (sum(selected[u] == which for u in mine) for which in (False, True))
        if not selected[t]:
            weight.append(1 / others / rollouts)
            continue
        own = config.eta / chosen / rollouts
        if config.weight_cap is not None and others:
            own = min(own, config.weight_cap / others / rollouts)
        weight.append(own)
    loss = 0.0
    for t in range(n):
        rho = math.exp(float(log_prob[t]) - float(batch.old_log_prob[t]))
        clip = min(max(rho, 1 - config.epsilon), 1 + config.epsilon)
        loss -= min(rho * credit[t], clip * credit[t]) * float(batch.correction[t]) * weight[t]
    return credit, weight, loss


CASES = [
    dict(zip(("evidence", "shift", "weight_cap", "spare", "path_norm"), values, strict=True))
    for values in itertools.product(
        ("contrast", "one_sided"), (True, False), (None, 1.0, 3.0), (None, 0.02, 0.2), ("minibatch", "rollout")
    )
    if not (values[0] == "one_sided" and values[3] is not None)
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_credit_weight_and_loss_agree_with_the_slow_implementation(case, seed):
    method = RLCSDExtended.from_fields(tau=0.8, delta=0.3, eta=1.3, **case)
    logits, ids, batch = random_batch(method, LENGTHS, seed, vocab=12)
    batch = batch.with_columns(hinted=batch.rollout != 2)  # a rollout that is kept without a hint
    prepared = method.prepare(batch, 1)
    policy = policy_of(logits, ids, prepared)
    credit, weight, loss = slow(method.config, batch, policy.log_prob.detach())
    torch.testing.assert_close(prepared.credit, torch.tensor(credit, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(prepared.weight, torch.tensor(weight, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert math.isclose(method.token_loss(policy, prepared).sum().item(), loss, rel_tol=1e-9, abs_tol=1e-12)


def test_every_switch_changes_something_here():
    """So that the comparison above is not one of equal things."""
    plain = RLCSDExtended.from_fields(tau=0.8, delta=0.3)
    _, _, batch = random_batch(plain, LENGTHS, 0, vocab=12)
    before = plain.prepare(batch, 1)
    for change in ({"evidence": "one_sided"}, {"shift": False}, {"weight_cap": 1.0}, {"spare": 0.02}):
        after = RLCSDExtended.from_fields(tau=0.8, delta=0.3, **change).prepare(batch, 1)
        assert not (torch.equal(after.credit, before.credit) and torch.equal(after.weight, before.weight)), change


def test_the_defaults_are_the_published_method_bit_for_bit():
    plain = METHODS["rlcsd"].from_fields()
    named = RLCSDExtended.from_fields(evidence="contrast", shift=True, weight_cap=None, spare=None)
    _, _, batch = random_batch(plain, LENGTHS, 3)
    one, other = plain.prepare(batch, 1), named.prepare(batch, 1)
    assert torch.equal(one.credit, other.credit)
    assert torch.equal(one.weight, other.weight)


def test_a_wrong_rollout_alone_is_spared_and_never_pushed_up():
    method = RLCSDExtended.from_fields(spare=0.01)
    _, _, batch = random_batch(method, LENGTHS, 5, vocab=8)
    before = RLCSDExtended.from_fields().prepare(batch, 1)
    after = method.prepare(batch, 1)
    right = batch.advantage > 0
    assert torch.equal(after.credit[right], before.credit[right])
    assert bool((after.credit[~right] <= 0).all())
    assert bool((after.credit[~right] == 0).any())
    assert torch.equal(after.weight, before.weight)  # a spared token still counts in its path


def test_all_tokens_selected_leaves_nothing_to_bound_by():
    for norm in ("minibatch", "rollout"):
        method = RLCSDExtended.from_fields(tau=1e-6, delta=0.0, weight_cap=1.0, path_norm=norm)
        _, _, batch = random_batch(method, LENGTHS, 1)
        weight = method.prepare(batch, 1).weight
        assert math.isclose(float(weight.sum()), 1.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"spare": 0.5, "evidence": "one_sided"}, "method.spare"),
        ({"weight_cap": 2.0, "two_path": False}, "method.weight_cap"),
        ({"weight_cap": 0.5}, "weight_cap"),
        ({"spare": 1.0}, "spare"),
        ({"evidence": "policy"}, "evidence"),
        ({"k_correct": 2, "hint_source": "gt_cot"}, "method.k_correct"),
        ({"k_correct": 2, "evidence": "one_sided"}, "method.k_correct"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        RLCSDExtended.from_fields(**fields)

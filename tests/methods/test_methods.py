"""Properties of the methods: cutting, folding, switches, the registry."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.errors import InputError
from rlcsd.methods import METHODS, method_class
from rlcsd.methods.contrast import contrast, marginal_log_prob
from rlcsd.methods.losses import clipped_kl, generalised_jsd, ppo_loss, ratio, with_tail
from rlcsd.methods.rlsd import decayed
from tests.methods.batches import policy_of, random_batch
from tests.methods.catalogue import method_of

lengths_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@pytest.mark.parametrize("name", METHODS)
@given(lengths=lengths_strategy, seed=st.integers(0, 99), data=st.data())
def test_the_loss_does_not_depend_on_the_cut(name, lengths, seed, data):
    method = method_of(name)
    logits, ids, batch = random_batch(method, lengths, seed)
    prepared = method.prepare(batch, 3)
    whole = method.token_loss(policy_of(logits, ids, prepared), prepared).sum()
    (expected,) = torch.autograd.grad(whole, logits)
    anywhere = st.integers(0, len(ids))
    if name == "gspo":  # its ratio is that of the whole rollout
        anywhere = st.sampled_from([sum(lengths[:count]) for count in range(len(lengths) + 1)])
    cuts = sorted({0, len(ids), *data.draw(st.lists(anywhere, max_size=5))})
    total = torch.zeros_like(expected)
    for start, end in pairwise(cuts):
        part = prepared[slice(start, end)]
        loss = method.token_loss(policy_of(logits[start:end], ids[start:end], part), part).sum()
        total += torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-14)


@given(lengths=lengths_strategy, seed=st.integers(0, 99), eta=st.floats(0, 3))
def test_rlcsd_folds_two_paths_into_one_mean(lengths, seed, eta):
    """The unfolded form, written from the paper: two means with their own token counts."""
    method = METHODS["rlcsd"].from_fields(eta=eta, tau=0.7, delta=0.2)
    logits, ids, batch = random_batch(method, lengths, seed)
    prepared = method.prepare(batch, 1)
    policy = policy_of(logits, ids, prepared)
    e = batch.teacher_log_prob - torch.stack(
        [
            torch.log(torch.stack([w.exp() for w, v in zip(row, ok, strict=True) if v]).mean())
            for row, ok in zip(batch.contrast_log_prob, batch.contrast_valid, strict=True)
        ]
    )
    r = (0.5 * torch.tanh(e / 0.7)).clamp(-2, 2)
    chosen = r.abs() > 0.2
    a = batch.advantage
    shifted = torch.where(a > 0, (a + r).clamp(min=0), torch.where(a < 0, (a + r).clamp(max=0), torch.zeros_like(a)))
    rho = (policy.log_prob - batch.old_log_prob).exp()
    plain, shaped = ppo_loss(rho, a, 0.2) * batch.correction, ppo_loss(rho, shifted, 0.2) * batch.correction
    unfolded = torch.zeros((), dtype=torch.float64)
    if (~chosen).any():
        unfolded = unfolded + plain[~chosen].mean()
    if chosen.any():
        unfolded = unfolded + eta * shaped[chosen].mean()
    assert math.isclose(method.token_loss(policy, prepared).sum().item(), unfolded.item(), rel_tol=1e-10, abs_tol=1e-12)
    # and into advantages alone, for engines that know nothing else
    folded = method.folded_advantages(policy.log_prob.detach(), prepared)
    one_mean = (ppo_loss(rho, folded, 0.2) * batch.correction).mean()
    assert math.isclose(one_mean.item(), unfolded.item(), rel_tol=1e-10, abs_tol=1e-12)


@given(a=st.floats(-5, 5), scale=st.floats(0, 10), gap=st.floats(-2, 2))
def test_the_surrogate_is_positively_homogeneous(a, scale, gap):
    rho, advantage = torch.tensor(gap, dtype=torch.float64).exp(), torch.tensor(a, dtype=torch.float64)
    for dual in (None, 3.0):
        scaled = ppo_loss(rho, scale * advantage, 0.2, dual)
        assert math.isclose(
            float(scaled), scale * float(ppo_loss(rho, advantage, 0.2, dual)), rel_tol=1e-9, abs_tol=1e-12
        )


def test_the_verifier_decides_the_sign_unless_the_anchor_is_lifted():
    anchored = METHODS["rlcsd"].from_fields(lam=50.0, residual_low=-9, residual_high=9)
    free = METHODS["rlcsd"].from_fields(lam=50.0, residual_low=-9, residual_high=9, anchor=False)
    logits, ids, batch = random_batch(anchored, [40, 40], 1)
    log_prob = policy_of(logits, ids, batch).log_prob.detach()
    kept = anchored.advantages(log_prob, anchored.prepare(batch, 1))
    assert bool((kept * batch.advantage >= 0).all())
    assert bool((free.advantages(log_prob, free.prepare(batch, 1)) * batch.advantage < 0).any())


def test_one_path_is_the_plain_mean():
    method = METHODS["rlcsd"].from_fields(two_path=False)
    _, _, batch = random_batch(method, [4, 6], 2)
    weight = method.prepare(batch, 1).weight
    torch.testing.assert_close(weight, torch.full((10,), 0.1, dtype=torch.float64))


def test_rollout_normalised_paths_average_per_rollout_first():
    method = METHODS["rlcsd"].from_fields(path_norm="rollout", tau=1.0, delta=0.1, eta=2.0)
    _, _, batch = random_batch(method, [5, 9], 3)
    prepared = method.prepare(batch, 1)
    for rollout in (0, 1):
        mine = batch.rollout == rollout
        for path, eta in ((~prepared.selected, 1.0), (prepared.selected, 2.0)):
            if bool((mine & path).any()):
                assert math.isclose(float(prepared.weight[mine & path].sum()), eta / 2, rel_tol=1e-12)


def test_sequence_reduction_weighs_rollouts_alike():
    method = METHODS["grpo"].from_fields(reduction="sequence")
    _, _, batch = random_batch(method, [2, 8], 4)
    weight = method.prepare(batch, 1).weight
    assert math.isclose(float(weight[:2].sum()), 0.5)
    assert math.isclose(float(weight[2:].sum()), 0.5)


def test_k_marginalisation_is_a_mean_of_probabilities_over_valid_hints():
    wrong = torch.tensor([[0.5, 0.1, 0.9], [0.2, 0.3, 0.4]], dtype=torch.float64).log()
    valid = torch.tensor([[True, True, False], [False, False, False]])
    found = marginal_log_prob(wrong, valid)
    assert math.isclose(float(found[0]), math.log(0.3), rel_tol=1e-12)
    assert float(found[1]) == 0.0


def test_tokens_without_a_usable_pair_stay_on_the_plain_path():
    method = METHODS["rlcsd"].from_fields(unusable="plain")
    logits, ids, batch = random_batch(method, [4, 4], 5)
    batch = batch.with_columns(
        hinted=batch.rollout == 0, contrast_valid=batch.contrast_valid & (batch.rollout == 0)[:, None]
    )
    assert bool((contrast(batch)[batch.rollout == 1] == 0).all())
    prepared = method.prepare(batch, 1)
    assert not bool(prepared.selected[batch.rollout == 1].any())
    kept = method.advantages(policy_of(logits, ids, batch).log_prob.detach(), prepared)
    torch.testing.assert_close(kept[batch.rollout == 1], batch.advantage[batch.rollout == 1])


def test_jsd_has_its_limits_and_its_symmetry():
    g = torch.Generator().manual_seed(0)
    s, t = (torch.randn(5, 7, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    torch.testing.assert_close(generalised_jsd(s, t, 0.0), (t.exp() * (t - s)).sum(-1))
    torch.testing.assert_close(generalised_jsd(s, t, 1.0), (s.exp() * (s - t)).sum(-1))
    torch.testing.assert_close(generalised_jsd(s, t, 0.5), generalised_jsd(t, s, 0.5))
    assert bool((clipped_kl(t, s, 0.05) <= clipped_kl(t, s) + 1e-12).all())


@given(st.integers(1, 30), st.integers(0, 50))
def test_support_and_tail_hold_all_the_mass(k, seed):
    full = torch.randn(4, 30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(-1)
    closed = with_tail(full.topk(k).values)
    torch.testing.assert_close(closed.exp().sum(-1), torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    assert bool(torch.isfinite(closed).all())


def test_the_mixing_weight_decays_from_step_one_to_nothing():
    assert [decayed(0.5, step, 50) for step in (1, 26, 51, 400)] == [0.5, 0.25, 0.0, 0.0]
    assert decayed(0.5, 99, 0) == 0.5


def test_the_ratio_is_clamped_only_where_asked():
    far = torch.tensor([30.0], dtype=torch.float64)
    assert float(ratio(far, torch.zeros(1))) == pytest.approx(math.exp(20))
    assert float(ratio(far, torch.zeros(1), None)) == pytest.approx(math.exp(30))


def test_srpo_routes_by_advantage_or_by_reward():
    by_advantage, by_reward = METHODS["srpo"].from_fields(), METHODS["srpo"].from_fields(route="reward")
    _, _, batch = random_batch(by_advantage, [3, 3], 6)
    batch = batch.with_columns(
        advantage=torch.zeros(6, dtype=torch.float64), is_correct=torch.ones(6, dtype=torch.bool)
    )
    assert bool(by_advantage.prepare(batch, 1).selected.all())  # an all-correct group goes to distillation
    assert not bool(by_reward.prepare(batch, 1).selected.any())


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'rlcsd'"):
        method_class("rlcds")
    with pytest.raises(InputError, match="no file"):
        method_class("nowhere.py:Mine")


def test_a_method_of_ones_own_comes_from_one_file(tmp_path):
    (tmp_path / "mine.py").write_text("class NotOne:\n    pass\n")
    with pytest.raises(InputError, match="derived from"):
        method_class(f"{tmp_path}/mine.py:NotOne")

"""Each objective with each kind of credit, against loops over padded rows that follow the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.errors import InputError
from rlcsd.methods import METHODS, OBJECTIVES, CreditMethod, MethodConfig, ObjectiveConfig
from tests.methods.batches import policy_of, random_batch
from tests.methods.catalogue import BASELINES, method_of

L_MAX = 9  # of Dr. GRPO
CREDIT = {"grpo": {}, "rlsd": {"lam": 0.7}, "rlcsd": {"tau": 0.7, "delta": 0.2, "eta": 1.5}}
LENGTHS = [5, 2, 8, 3]


def near(objective: str, batch, log_prob, seed: int = 3):
    """`batch` with old log-probs so near the policy's that some ratios are within the clip range and some are not."""
    size = 6e-4 if objective == "gspo" else 0.4
    noise = torch.randn(len(batch), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if objective == "gspo":  # a mean over n tokens is smaller by √n
        noise = noise * torch.bincount(batch.rollout).sqrt()[batch.rollout]
    return batch.with_columns(old_log_prob=log_prob.detach() - size * noise)


# ------------------------------------------------------------------ the slow versions


def literal_credit(kind: str, fields, batch, log_prob, t: int) -> tuple[float, bool]:
    """A'_t and whether the token is on rlcsd's selected path, in Python's floats."""
    a, teacher = float(batch.advantage[t]), float(batch.teacher_log_prob[t])
    if kind == "rlsd":
        lam = fields["lam"] * (1 - (3 - 1) / 50)  # at step 3
        weight = min(max(math.exp(math.copysign(1, a) * (teacher - float(log_prob[t].detach()))), 0.8), 1.2)
        return a * ((1 - lam) + lam * weight), False
    if kind == "rlcsd":
        wrong = [math.exp(w) for w, ok in zip(batch.contrast_log_prob[t], batch.contrast_valid[t], strict=True) if ok]
        residual = 0.5 * math.tanh((teacher - math.log(sum(wrong) / len(wrong))) / fields["tau"])
        if abs(residual) <= fields["delta"]:
            return a, False
        return (max(a + residual, 0.0) if a > 0 else min(a + residual, 0.0)), True
    return a, False


def literal_token(objective: str, kind: str, rho, old_ratio_mean, a: float, ell):
    """The loss of one token, before the mean; `rho` and `ell` are scalars with gradient."""
    if objective == "gspo":
        s = torch.exp(old_ratio_mean + ell - ell.detach())
        return -torch.min(s * a, s.clamp(1 - 3e-4, 1 + 4e-4) * a)
    if objective == "cispo":
        return -min(float(rho.detach()), 1.2) * a * ell
    high = 1.28 if objective == "dapo" else 1.2
    loss = -torch.min(rho * a, rho.clamp(0.8, high) * a)
    dual = kind == "grpo" and objective in ("grpo", "rloo")  # what the published code has, and the papers have not
    return torch.min(loss, -3.0 * loss.new_tensor(a)) if dual and a < 0 else loss


def literal_loss(objective: str, kind: str, fields, batch, log_prob):
    """The loss of the mini-batch, rollout by rollout and token by token of padded rows."""
    rows = [(batch.rollout == r).nonzero()[:, 0].tolist() for r in range(int(batch.rollout.max()) + 1)]
    width = max(map(len, rows))
    losses, mask, selected = [], [], []
    for row in rows:
        mean = sum(float(log_prob[t].detach() - batch.old_log_prob[t]) for t in row) / len(row)
        for place in range(width):
            mask.append(place < len(row))
            if not mask[-1]:
                losses.append(log_prob.new_zeros(()))
                selected.append(False)
                continue
            t = row[place]
            a, on_path = literal_credit(kind, fields, batch, log_prob, t)
            rho = torch.exp(log_prob[t] - batch.old_log_prob[t])
            losses.append(literal_token(objective, kind, rho, mean, a, log_prob[t]) * batch.correction[t])
            selected.append(on_path)
    count, tokens = len(rows), sum(mask)

    def mean_over(wanted) -> torch.Tensor:
        """The objective's mean over the tokens for which `wanted` is true."""
        if objective == "gspo":
            by_row = [
                [losses[i] for i in range(r * width, (r + 1) * width) if mask[i] and wanted[i]] for r in range(count)
            ]
            return sum(sum(some) / len(some) for some in by_row if some) / count
        some = [losses[i] for i in range(len(losses)) if mask[i] and wanted[i]]
        plain = sum(some) / len(some)
        # Dr. GRPO divides the sum over all tokens by B · L_max, which is this factor on their mean.
        return plain * tokens / (count * L_MAX) if objective == "dr_grpo" else plain

    if kind == "rlcsd":
        assert any(selected) and not all(selected)
        return mean_over([not one for one in selected]) + fields["eta"] * mean_over(selected)
    return mean_over([True] * len(losses))


@pytest.mark.parametrize("kind", CREDIT)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_formulas(objective, kind):
    fields = CREDIT[kind]
    method = METHODS[kind].from_fields(objective=objective, constant_length=L_MAX, **fields)
    logits, ids, batch = random_batch(method, LENGTHS, 5)
    log_prob = policy_of(logits, ids, batch).log_prob
    batch = near(objective, batch, log_prob)
    prepared = method.prepare(batch, 3)
    low, high = method.objective.clipped(log_prob, method.advantages(log_prob.detach(), prepared), prepared)
    assert 0 < int((low | high).sum()) < sum(LENGTHS)  # the clip range is met, and not by all
    loss = method.token_loss(policy_of(logits, ids, prepared), prepared).sum()
    expected = literal_loss(objective, kind, fields, batch, log_prob)
    assert math.isclose(float(loss.detach()), float(expected.detach()), rel_tol=1e-11, abs_tol=1e-13)
    found, wanted = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)
    assert float(wanted.norm()) > 0


@pytest.mark.parametrize("name", BASELINES)
def test_a_named_baseline_is_grpo_with_its_objective(name):
    named, composed = method_of(name), METHODS["grpo"].from_fields(objective=name, constant_length=16)
    assert named.config.model_dump() == {**composed.config.model_dump(), "name": name}


# ------------------------------------------------------------------ what follows from the formulas


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_at_the_policy_that_sampled_gspo_is_grpo_with_a_mean_per_rollout(lengths, seed):
    gspo, grpo = METHODS["gspo"].from_fields(), METHODS["grpo"].from_fields(reduction="sequence", dual_clip=None)
    logits, ids, batch = random_batch(grpo, lengths, seed)
    batch = batch.with_columns(old_log_prob=policy_of(logits, ids, batch).log_prob.detach())
    found, expected = (
        method.token_loss(policy_of(logits, ids, batch), method.prepare(batch, 1)).sum() for method in (gspo, grpo)
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


def test_its_token_form_has_the_gradient_of_the_sequence_form():
    """Of one ratio per rollout, the exponential of the mean log-ratio, through which the gradient goes."""
    method = METHODS["gspo"].from_fields(epsilon=0.9, epsilon_high=9.0)
    logits, ids, batch = random_batch(method, LENGTHS, 1)
    log_prob = policy_of(logits, ids, batch).log_prob
    batch = near("grpo", batch, log_prob).with_columns(correction=torch.ones(sum(LENGTHS), dtype=torch.float64))
    found = method.token_loss(policy_of(logits, ids, batch), method.prepare(batch, 1)).sum()
    rows = torch.split(log_prob - batch.old_log_prob, LENGTHS)
    advantages = [float(part[0]) for part in torch.split(batch.advantage, LENGTHS)]
    expected = sum(-row.mean().exp() * a for row, a in zip(rows, advantages, strict=True)) / len(rows)
    assert math.isclose(float(found.detach()), float(expected.detach()), rel_tol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits, retain_graph=True), torch.autograd.grad(expected, logits)
    )


@pytest.mark.parametrize("kind", CREDIT)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_folded_into_advantages_it_is_one_plain_mean(objective, kind):
    method = METHODS[kind].from_fields(objective=objective, constant_length=L_MAX, **CREDIT[kind])
    logits, ids, batch = random_batch(method, LENGTHS, 2)
    log_prob = policy_of(logits, ids, batch).log_prob.detach()
    prepared = method.prepare(near(objective, batch, log_prob), 1)
    folded = method.folded_advantages(log_prob, prepared)
    one_mean = (method.objective.token_loss(log_prob, folded, prepared) * prepared.correction).mean()
    loss = method.token_loss(policy_of(logits.detach(), ids, prepared), prepared).sum()
    assert math.isclose(float(one_mean), float(loss), rel_tol=1e-11)


@pytest.mark.parametrize("objective", ["dapo", "dr_grpo", "cispo"])
def test_the_two_paths_keep_their_weights(objective):
    plain = METHODS["rlcsd"].from_fields(**CREDIT["rlcsd"])
    other = METHODS["rlcsd"].from_fields(objective=objective, constant_length=L_MAX, **CREDIT["rlcsd"])
    _, _, batch = random_batch(plain, LENGTHS, 4)
    expected, found = plain.prepare(batch, 1).weight, other.prepare(batch, 1).weight
    factor = sum(LENGTHS) / (len(LENGTHS) * L_MAX) if objective == "dr_grpo" else 1.0
    torch.testing.assert_close(found, expected * factor)
    assert len(set(found.tolist())) == 2


def test_a_constant_mean_weighs_a_token_alike_in_every_mini_batch():
    method = METHODS["dr_grpo"].from_fields(constant_length=50)
    for lengths in ([4, 6], [1, 40]):
        _, _, batch = random_batch(method, lengths)
        assert set(method.prepare(batch, 1).weight.tolist()) == {1 / (2 * 50)}
    with pytest.raises(InputError, match=r"method\.constant_length: a number of tokens is needed"):
        METHODS["dr_grpo"].from_fields()


def test_cispo_caps_a_ratio_and_keeps_its_gradient():
    """Log-probs −1 and −2, ratios 2 and 1/2, A = 1: L = −(1.2 · −1 + 0.5 · −2) / 2 = 1.1, gradients −0.6 and −0.25."""
    method = METHODS["cispo"].from_fields()
    log_prob = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    _, _, batch = random_batch(method, [2])
    ones = torch.ones(2, dtype=torch.float64)
    old = log_prob.detach() - torch.tensor([2.0, 0.5], dtype=torch.float64).log()
    batch = method.prepare(batch.with_columns(advantage=ones, correction=ones, old_log_prob=old), 1)
    loss = method.objective.token_loss(log_prob, ones, batch) @ batch.weight
    assert float(loss.detach()) == pytest.approx(1.1)
    assert torch.autograd.grad(loss, log_prob)[0].tolist() == pytest.approx([-0.6, -0.25])
    sums = method.update_sums(0.0, log_prob.detach(), batch)
    assert [sums[f"actor/clip_fraction{end}"] for end in ("_low", "_high", "")] == [0.0, 1.0, 1.0]
    capped = METHODS["cispo"].from_fields(epsilon=0.3)  # with a floor: 0.7 instead of 0.5
    assert capped.objective.token_loss(log_prob, ones, batch).tolist() == pytest.approx([1.2, 1.4])


def test_the_clip_fractions_count_what_has_no_gradient():
    """Ratios 0.7, 0.9, 1.25, 1.3 with a range of 0.8 to 1.28."""
    method = METHODS["dapo"].from_fields()
    _, _, batch = random_batch(method, [4, 4])
    rho = torch.tensor([0.7, 0.9, 1.25, 1.3] * 2, dtype=torch.float64)
    sign = torch.tensor([1.0] * 4 + [-1.0] * 4, dtype=torch.float64)
    log_prob = torch.full((8,), -1.0, dtype=torch.float64, requires_grad=True)
    batch = method.prepare(batch.with_columns(old_log_prob=log_prob.detach() - rho.log(), advantage=sign), 1)
    (gradient,) = torch.autograd.grad(method.objective.token_loss(log_prob, sign, batch).sum(), log_prob)
    assert (gradient == 0).nonzero()[:, 0].tolist() == [3, 4]
    sums = method.update_sums(0.0, log_prob.detach(), batch)
    assert [sums[f"actor/clip_fraction{end}"] for end in ("_low", "_high", "")] == [1.0, 1.0, 2.0]


# ------------------------------------------------------------------ configs


def test_what_is_given_wins_over_the_objective():
    config = METHODS["rlcsd"].from_fields(objective="gspo", epsilon=0.1, path_norm="minibatch").config
    assert (config.ratio, config.epsilon, config.epsilon_high, config.path_norm) == ("sequence", 0.1, 4e-4, "minibatch")
    assert METHODS["rlcsd"].from_fields(objective="gspo").config.path_norm == "rollout"


def test_a_method_of_ones_own_composes_or_has_ppos_loss():
    class MineConfig(ObjectiveConfig, MethodConfig):
        pass

    class PlainConfig(MethodConfig):
        epsilon: float = 0.1

    class Mine(CreditMethod):
        Config = MineConfig
        loss_columns = ("weight", "credit")

        def advantages(self, log_prob, batch):
            return batch.advantage * (1 + batch.rollout)

    class Plain(Mine):
        Config = PlainConfig

    assert Mine.from_fields(objective="cispo").objective.surrogate == "cispo"
    assert Plain.from_fields().objective.bounds == (0.9, 1.1)


def test_srpos_rewarded_rollouts_take_the_objective():
    """Where nothing is distilled its loss is grpo's, whatever the objective."""
    for objective in OBJECTIVES:
        srpo, grpo = (method_of(name, objective=objective) for name in ("srpo", "grpo"))
        logits, ids, batch = random_batch(srpo, LENGTHS, 7)
        batch = near(objective, batch, policy_of(logits, ids, batch).log_prob)
        batch = batch.with_columns(hinted=torch.zeros(len(ids), dtype=torch.bool))
        found, expected = (
            method.token_loss(policy_of(logits, ids, batch), method.prepare(batch, 1)) for method in (srpo, grpo)
        )
        torch.testing.assert_close(found, expected)

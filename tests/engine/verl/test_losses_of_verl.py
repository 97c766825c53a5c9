"""The objectives beside verl's own loss functions, on the same padded rows: loss and gradient."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("verl")

from rlcsd.engine.verl import compat  # noqa: F401  (what verl needs before it is imported)
from rlcsd.layout import Layout
from rlcsd.methods import METHODS
from tests.methods.batches import policy_of, random_batch

LENGTHS = (5, 2, 8, 3)
# Ours; then verl's loss, its mean, what it is configured with, and the size of log ratios that its clip range divides.
CASES = {
    "dapo": ({"dual_clip": 3.0}, "vanilla", "token-mean", {"clip_ratio_high": 0.28}, 0.6),  # verl's default dual clip
    "gspo": ({}, "gspo", "seq-mean-token-mean", {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}, 1e-3),
    "cispo": ({}, "cispo", "token-mean", {"clip_ratio_low": 10.0, "clip_ratio_high": 0.2}, 0.4),
    "dr_grpo": ({"constant_length": 11}, "vanilla", "seq-mean-token-sum-norm", {"clip_ratio_c": 1e9}, 0.4),
}


@pytest.mark.parametrize("name", CASES)
def test_an_objective_is_verls(name):
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig

    fields, loss_name, mean, settings, size = CASES[name]
    method = METHODS[name].from_fields(**fields)
    logits, ids, batch = random_batch(method, list(LENGTHS), 4)
    noise = size * torch.randn(len(ids), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_prob = policy_of(logits, ids, batch).log_prob
    batch = batch.with_columns(old_log_prob=log_prob.detach() - noise)
    ours = method.token_loss(policy_of(logits, ids, batch), method.prepare(batch, 1)).sum()
    (expected,) = torch.autograd.grad(ours, logits)

    layout = Layout(LENGTHS, torch.device("cpu"))
    padded = {n: layout.padded(c) for n, c in (("old_log_prob", batch.old_log_prob), ("advantages", batch.advantage))}
    config = FSDPActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        ppo_mini_batch_size=4,
        loss_agg_mode=mean,
        **settings,
    )
    config.global_batch_info.update(loss_scale_factor=fields.get("constant_length"), dp_size=1)
    theirs, _ = get_policy_loss_fn(loss_name)(
        log_prob=layout.padded(policy_of(logits, ids, batch).log_prob),
        response_mask=layout.padded(torch.ones_like(batch.advantage)),
        loss_agg_mode=mean,
        config=config,
        rollout_is_weights=layout.padded(batch.correction),
        **padded,
    )
    (found,) = torch.autograd.grad(theirs, logits)
    assert float(theirs.detach()) == pytest.approx(float(ours.detach()), rel=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    low, high = method.objective.clipped(log_prob.detach(), batch.advantage, batch)
    assert 0 < int((low | high).sum()) < len(ids)

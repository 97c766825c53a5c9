"""OPSA (arXiv 2608.31046): push down the least likely tokens of the policy's own samples; no teacher and no reward."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import TokenBatch
from .base import CreditMethod, MethodConfig, Reduction, Sums, mean_sums, mean_weights
from .objective import ObjectiveConfig


class OPSAConfig(ObjectiveConfig, MethodConfig):
    reduction: Reduction = Field(
        "sequence", description="mean over selected tokens, or per rollout and then over rollouts"
    )
    share: float = Field(0.2, gt=0, le=1, description="share of the mini-batch's tokens that is selected")
    advantage: float = Field(
        -0.5, description="that of the selected token with the least entropy; twice as much at the most"
    )


class OPSA(CreditMethod):
    """PPO on the ⌊share · N⌋ tokens (at least one) with the lowest log π_old, with A = advantage · (1 + h).

    h is the entropy of the policy at the token, scaled to [0, 1] over the selected tokens; 1 if all are equal. The mean
    is that of the selected tokens of each rollout, then over all rollouts.
    """

    name = "opsa"
    Config = OPSAConfig
    loss_columns = ("weight", "credit", "selected")
    needs_entropy = True
    uses_advantage = "never"
    whole_minibatch: ClassVar[bool] = True  # which tokens are the least likely is no sum over parts

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        assert batch.entropy is not None
        count = max(1, int(self.config.share * len(batch)))
        selected = torch.zeros_like(batch.hinted)
        selected[batch.old_log_prob.argsort(stable=True)[:count]] = True
        if not len(batch):  # nothing of the mini-batch is left, as may be with TRL
            return super().assign(batch.with_columns(selected=selected, credit=batch.entropy), step)
        least, most = batch.entropy[selected].aminmax()
        scale = (batch.entropy - least) / (most - least) if most > least else torch.ones_like(batch.entropy)
        credit = torch.where(selected, self.config.advantage * (1 + scale), 0.0)
        return super().assign(batch.with_columns(selected=selected, credit=credit), step)

    def sums(self, batch: TokenBatch) -> Sums:
        return mean_sums("selected", batch.rollout, self.config.reduction, batch.selected)

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        c = self.config
        weight = mean_weights(
            *(batch.rollout, c.reduction, batch.selected),
            sums=sums,
            name="selected",
            constant_length=c.constant_length,
        )
        return batch.with_columns(weight=weight)

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.credit is not None
        return batch.credit  # it does not depend on the policy

    def needs_update(self, batch: TokenBatch) -> Tensor:
        assert batch.selected is not None
        return batch.selected

    def metrics(self, batch: TokenBatch) -> Metrics:
        """Log-prob and entropy of the selected tokens, in nats."""
        assert batch.entropy is not None and batch.selected is not None
        selected = batch.selected
        figures = {"opsa/log_prob": batch.old_log_prob[selected], "opsa/entropy": batch.entropy[selected]}
        return {
            name: Mean(float(values.double().mean()), len(values)) for name, values in figures.items() if len(values)
        }

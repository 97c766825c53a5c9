"""SRPO (arXiv 2604.02288): correct rollouts learn from the reward, others from a teacher, weighted by its certainty."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import StudentLogProbs, TokenBatch
from .base import Method, Sums
from .objective import Objective, ObjectiveConfig
from .sdpo import DivergenceConfig, distillation_loss


class SRPOConfig(ObjectiveConfig, DivergenceConfig):
    dual_clip: float | None = Field(3.0, gt=1, description="bound of the loss for A < 0, in |A|; null: none")
    entropy_beta: float = Field(1.0, ge=0, description="how strongly an unsure teacher is discounted")
    route: Literal["advantage", "reward"] = Field(
        "advantage", description="to distillation go: rollouts with A ≤ 0, or the incorrect ones that have a teacher"
    )


class SRPO(Method):
    """Each rollout takes one of two losses; both share the denominator of all tokens.

    `credit` is d_t = exp(−βH_t) / mean(exp(−βH)) over the distilled (`selected`) tokens, H the teacher's entropy.
    """

    name = "srpo"
    Config = SRPOConfig
    loss_columns = ("weight", "credit", "selected")
    topk_from = "student"

    @property
    def objective(self) -> Objective:
        """The loss of the rollouts that the reward trains."""
        return Objective.of(self.config, ratio_clamp=20.0)

    def distilled(self, batch: TokenBatch) -> Tensor:
        if self.config.route == "advantage":
            return (batch.advantage <= 0) & batch.hinted
        return ~batch.is_correct & batch.hinted

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        assert batch.teacher_entropy is not None
        routed = self.distilled(batch)
        certainty = torch.exp(-self.config.entropy_beta * batch.teacher_entropy)
        return super().assign(batch.with_columns(selected=routed, credit=torch.where(routed, certainty, 0.0)), step)

    def sums(self, batch: TokenBatch) -> Sums:
        assert batch.selected is not None and batch.credit is not None
        routed = {"routed": batch.selected.double().sum(), "certainty": batch.credit.double().sum()}
        return {**super().sums(batch), **routed}

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        assert batch.credit is not None
        mean = sums["certainty"] / sums["routed"].clamp(min=1)
        scale = torch.where(sums["routed"] > 0, 1 / mean, 0.0).to(batch.credit.dtype)
        return super().normalise(batch, sums).with_columns(credit=batch.credit * scale)

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.credit is not None and batch.selected is not None and batch.weight is not None
        rewarded = self.objective.token_loss(student.log_prob, batch.advantage, batch) * batch.correction
        distilled = distillation_loss(student, batch, self.config, batch.selected) * batch.credit
        return torch.where(batch.selected, distilled, rewarded) * batch.weight.to(rewarded.dtype)

    def clipped_advantage(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.selected is not None
        return torch.where(batch.selected, 0.0, batch.advantage)

    def metrics(self, batch: TokenBatch) -> Metrics:
        assert batch.selected is not None
        share = float(batch.selected.double().mean())
        return {**super().metrics(batch), "srpo/distilled_share": Mean(share, len(batch))}

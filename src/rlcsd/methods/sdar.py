"""SDAR (arXiv 2605.15155): GRPO, and beside it a pull towards the tokens that the teacher gives more probability."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import StudentLogProbs, TokenBatch
from .base import TEACHER, UNUSABLE, HintedConfig, Method, Sums, TeacherKind, mean_sums
from .contrast import teacher_gap
from .objective import Objective, ObjectiveConfig


class SDARConfig(ObjectiveConfig, HintedConfig):
    teacher: TeacherKind = Field("policy", description=TEACHER)
    unusable: Literal["drop", "plain"] = Field("plain", description=UNUSABLE)
    dual_clip: float | None = Field(3.0, gt=1, description="bound of the loss for A < 0, in |A|; null: none")
    coefficient: float = Field(0.01, ge=0, description="weight of the gated term beside GRPO's")
    gate_beta: float = Field(5.0, ge=0, description="slope of the gate, per nat of the gap")


class SDAR(Method):
    """PPO(A) + c · g_t (log π_T(y_t|h) − log π(y_t)), g_t = σ(β (log π_T(y_t|h) − log π(y_t))) without gradient.

    The gradient of the second term is −c g_t ∇ log π(y_t): every sampled token is raised, one that the teacher gives
    less probability only less so. Tokens without a teacher have the first term alone. The objective's reduction is that
    of the first term; the second is a mean over all tokens (`mean_tokens`), without the rollout correction.
    """

    name = "sdar"
    Config = SDARConfig
    loss_columns = ("weight", "teacher_log_prob")

    @property
    def objective(self) -> Objective:
        """The loss of the first term."""
        return Objective.of(self.config, ratio_clamp=20.0)

    def gate(self, gap: Tensor) -> Tensor:
        """g of the gap log π_T − log π, any shape."""
        return torch.sigmoid(self.config.gate_beta * gap)

    def sums(self, batch: TokenBatch) -> Sums:
        return {**super().sums(batch), **mean_sums("tokens", batch.rollout)}

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        batch = super().normalise(batch, sums)
        assert batch.weight is not None
        return batch.with_columns(mean_tokens=torch.full_like(batch.weight, float(sums["tokens"])))

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.weight is not None and batch.mean_tokens is not None and batch.teacher_log_prob is not None
        rewarded = self.objective.token_loss(student.log_prob, batch.advantage, batch) * batch.correction
        gap = batch.teacher_log_prob - student.log_prob
        distilled = torch.where(batch.hinted, self.gate(gap.detach()) * gap, 0.0)
        weight, tokens = (column.to(rewarded.dtype) for column in (batch.weight, batch.mean_tokens))
        return rewarded * weight + self.config.coefficient * distilled / tokens

    def clipped_advantage(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        return batch.advantage

    def needs_update(self, batch: TokenBatch) -> Tensor:
        return (batch.advantage != 0) | batch.hinted

    def metrics(self, batch: TokenBatch) -> Metrics:
        """Mean of the gate at the policy that sampled, over hinted tokens."""
        gate = self.gate(teacher_gap(batch)[batch.hinted])
        return {**super().metrics(batch), **({"sdar/gate": Mean(float(gate.mean()), len(gate))} if len(gate) else {})}

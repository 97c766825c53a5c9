"""RLSD and its contrastive form: the teacher scales the advantage of each token, and the verifier decides its sign."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ..records import TokenBatch
from .base import TEACHER, ContrastConfig, CreditMethod, HintedConfig, TeacherKind
from .contrast import ContrastiveMethod
from .objective import ObjectiveConfig


class RLSDConfig(ObjectiveConfig, HintedConfig):
    teacher: TeacherKind = Field("snapshot", description=TEACHER)
    epsilon_weight: float = Field(0.2, gt=0, lt=1, description="clip range of the teacher's weight")
    lam: float = Field(0.5, ge=0, le=1, description="λ at step 1: share of the modulated advantage")
    lam_decay_steps: int = Field(50, ge=0, description="steps until λ reaches 0 linearly; 0 keeps it constant")


def decayed(start: float, step: int, decay_steps: int) -> float:
    """λ at `step` (from 1): `start` at step 1, falling linearly to 0 over `decay_steps` steps."""
    return start if decay_steps == 0 else start * max(0.0, 1.0 - (step - 1) / decay_steps)


def modulated(advantage: Tensor, log_weight: Tensor, lam: Tensor | float, epsilon_weight: float) -> Tensor:
    """A ((1−λ) + λ clip(exp(sign(A)·log_weight), 1−ε_w, 1+ε_w)), any common shape."""
    weight = torch.exp(advantage.sign() * log_weight).clamp(1 - epsilon_weight, 1 + epsilon_weight)
    return advantage * ((1 - lam) + lam * weight)


class RLSD(CreditMethod):
    """RLSD (arXiv 2604.03128): the log-weight of a token is log π_T(y|h) − log π(y), without gradient.

    λ falls from step to step, so `assign` writes it into the column `lam`.
    """

    name = "rlsd"
    Config = RLSDConfig
    loss_columns = ("weight", "teacher_log_prob", "lam")
    scores_zero_advantage = False

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        lam = decayed(self.config.lam, step, self.config.lam_decay_steps)
        column = torch.full_like(batch.advantage, lam, dtype=torch.float64)  # λ is not exact in float32
        return super().assign(batch.with_columns(lam=column), step)

    def asks_teacher(self, step: int) -> bool:
        return decayed(self.config.lam, step, self.config.lam_decay_steps) > 0

    def log_weight(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.teacher_log_prob is not None
        return batch.teacher_log_prob - log_prob

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.lam is not None
        log_weight = torch.where(batch.hinted, self.log_weight(log_prob, batch), 0.0)
        return modulated(batch.advantage, log_weight, batch.lam, self.config.epsilon_weight)


class RLSDContrastConfig(ContrastConfig, RLSDConfig):
    """Fields of `rlsd_ectr`."""


class RLSDContrast(ContrastiveMethod, RLSD):
    """RLSD with a contrast (arXiv 2606.11709): the log-weight is log π_T(y|h_c) − log π_T(y|h_w), clamped to ±60."""

    name = "rlsd_ectr"
    Config = RLSDContrastConfig
    loss_columns = ("weight", "contrast", "lam")

    def log_weight(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.contrast is not None
        return batch.contrast.clamp(-60, 60)

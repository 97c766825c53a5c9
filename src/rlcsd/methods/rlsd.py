"""RLSD (arXiv 2604.03128): the teacher scales the advantage of each token, and the verifier decides its sign."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ..records import Evidence
from .base import TEACHER, HintedConfig
from .ppo import CreditMethod
from .teacher import TeacherKind


class RLSDConfig(HintedConfig):
    teacher: TeacherKind = Field("snapshot", description=TEACHER)
    epsilon: float = Field(0.2, gt=0, lt=1, description="PPO clip range")
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
    """The log-weight is the teacher's gap to the current policy, log π_T(y|h) − log π(y), without gradient.

    λ falls from step to step, so `prepare` writes it into the column `lam`.
    """

    name = "rlsd"
    Config = RLSDConfig
    loss_columns = ("weight", "teacher", "lam")
    scores_zero_advantage = False

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        lam = decayed(self.config.lam, step, self.config.lam_decay_steps)
        column = torch.full_like(evidence.advantage, lam, dtype=torch.float64)  # λ is no multiple of a float32
        return super().assign(evidence.with_columns(lam=column), step)

    def log_weight(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.teacher is not None
        return evidence.teacher - log_prob

    def advantages(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.lam is not None
        log_weight = torch.where(evidence.hinted, self.log_weight(log_prob, evidence), 0.0)
        return modulated(evidence.advantage, log_weight, evidence.lam, self.config.epsilon_weight)

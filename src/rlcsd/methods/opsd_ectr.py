"""OPSD with contrastive evidence: distil away from what wrong hints make likely, where hints differ."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..records import Evidence, Policy
from .base import TEACHER, UNUSABLE, ContrastConfig
from .contrast import Contrastive
from .divergence import as_distribution, clipped_kl
from .opsd import OPSD, OPSDConfig
from .teacher import TeacherKind


class OPSDContrastConfig(ContrastConfig, OPSDConfig):
    # pydantic takes a field from the first base that has it, so what OPSDConfig changed is said again
    teacher: TeacherKind = Field("fixed", description=TEACHER)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)
    alpha: float = Field(0.5, ge=0, description="strength of the extrapolation away from the wrong hint")
    log_wrong_floor: float = Field(-5.0, lt=0, description="lower bound of log T_w in the target")
    weight_tau: float = Field(1.0, gt=0, description="divergence between the hints at which a token weighs one half")


def contrastive_target(correct: Tensor, wrong: Tensor, alpha: float, floor: float) -> Tensor:
    """log q `[…, k]`, q ∝ exp((1+α) log T_c − α max(log T_w, floor)), normalised over the support."""
    return torch.log_softmax((1 + alpha) * correct - alpha * wrong.clamp(min=floor), dim=-1)


class OPSDContrast(Contrastive, OPSD):
    """c_t · KL_clip(q‖S) on T_c's top-k and tail, c_t = κ/(κ+τ_w) with κ = KL(T_c‖T_w); no reward term."""

    name = "opsd_ectr"
    Config = OPSDContrastConfig

    def divergence(self, policy: Policy, evidence: Evidence) -> Tensor:
        assert policy.support_log_prob is not None
        assert evidence.teacher_support is not None and evidence.wrong_support is not None
        c = self.config
        correct = as_distribution(evidence.teacher_support, c.add_tail)
        wrong = as_distribution(evidence.wrong_support, c.add_tail)
        kappa = clipped_kl(correct, wrong)
        target = contrastive_target(correct, wrong, c.alpha, c.log_wrong_floor)
        return (
            clipped_kl(target, as_distribution(policy.support_log_prob, c.add_tail), c.clip)
            * kappa
            / (kappa + c.weight_tau)
        )

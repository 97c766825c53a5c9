"""SDPO, self-distillation policy optimisation (arXiv 2601.20802): a symmetric divergence, off-policy corrected."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..records import Evidence, Policy
from .base import TEACHER, UNUSABLE, HintedConfig, Method
from .divergence import as_distribution, generalised_jsd, only, scattered
from .ppo import ratio
from .teacher import TeacherKind


class DivergenceConfig(HintedConfig):
    """What sdpo and the distilled part of srpo share."""

    teacher: TeacherKind = Field("ema", description=TEACHER)
    alpha: float = Field(0.5, ge=0, le=1, description="0: forward KL, 1: reverse KL, between: generalised JSD")
    ratio_cap: float = Field(2.0, gt=0, description="upper bound of the importance ratio")
    top_k: int = Field(100, ge=1, description="tokens of the support")
    add_tail: bool = Field(
        True, description="one bucket for the rest of the vocabulary; otherwise the support is rescaled"
    )


class SDPOConfig(DivergenceConfig):
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)  # there is no reward path to keep them on


def distillation_loss(policy: Policy, evidence: Evidence, config: DivergenceConfig, where: Tensor) -> Tensor:
    """JSD_α(S, T) · min(ρ, cap) · w per token `[n]`, 0 off `where` (bool `[n]`); the ratio carries no gradient."""
    policy, evidence = only(policy, evidence, where)
    if not len(evidence):
        return scattered(policy.log_prob, where)
    assert policy.support_log_prob is not None and evidence.teacher_support is not None
    student = as_distribution(policy.support_log_prob, config.add_tail)
    teacher = as_distribution(evidence.teacher_support, config.add_tail)
    rho = ratio(policy.log_prob.detach(), evidence.old_log_prob).clamp(max=config.ratio_cap)
    return scattered(generalised_jsd(student, teacher, config.alpha) * rho * evidence.correction, where)


class SDPO(Method):
    """JSD_0.5 on the student's own top-k and tail."""

    name = "sdpo"
    Config = SDPOConfig
    support = "student"

    def token_loss(self, policy: Policy, evidence: Evidence) -> Tensor:
        assert evidence.weight is not None
        loss = distillation_loss(policy, evidence, self.config, evidence.hinted)
        return loss * evidence.weight.to(loss.dtype)

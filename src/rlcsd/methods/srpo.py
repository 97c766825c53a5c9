"""SRPO (arXiv 2604.02288): the reward trains correct rollouts, distillation the others, weighted by the teacher's
certainty."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Evidence, Policy
from .base import Method, Sums
from .ppo import ppo_loss, ratio
from .sdpo import DivergenceConfig, distillation_loss


class SRPOConfig(DivergenceConfig):
    epsilon: float = Field(0.2, gt=0, lt=1, description="PPO clip range")
    dual_clip: float = Field(3.0, gt=1, description="bound of the loss for A < 0")
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
    support = "student"

    def distilled(self, evidence: Evidence) -> Tensor:
        if self.config.route == "advantage":
            return (evidence.advantage <= 0) & evidence.hinted
        return ~evidence.solved & evidence.hinted

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        assert evidence.teacher_entropy is not None
        routed = self.distilled(evidence)
        certainty = torch.exp(-self.config.entropy_beta * evidence.teacher_entropy)
        return super().assign(evidence.with_columns(selected=routed, credit=torch.where(routed, certainty, 0.0)), step)

    def sums(self, evidence: Evidence) -> Sums:
        assert evidence.selected is not None and evidence.credit is not None
        routed = {"routed": evidence.selected.double().sum(), "certainty": evidence.credit.double().sum()}
        return {**super().sums(evidence), **routed}

    def normalise(self, evidence: Evidence, sums: Sums) -> Evidence:
        assert evidence.credit is not None
        mean = sums["certainty"] / sums["routed"].clamp(min=1)
        scale = torch.where(sums["routed"] > 0, 1 / mean, 0.0).to(evidence.credit.dtype)
        return super().normalise(evidence, sums).with_columns(credit=evidence.credit * scale)

    def token_loss(self, policy: Policy, evidence: Evidence) -> Tensor:
        assert evidence.credit is not None and evidence.selected is not None and evidence.weight is not None
        c = self.config
        rho = ratio(policy.log_prob, evidence.old_log_prob)
        rewarded = ppo_loss(rho, evidence.advantage, c.epsilon, c.dual_clip) * evidence.correction
        distilled = distillation_loss(policy, evidence, c, evidence.selected) * evidence.credit
        return torch.where(evidence.selected, distilled, rewarded) * evidence.weight.to(rho.dtype)

    def clipped_advantage(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.selected is not None
        return torch.where(evidence.selected, 0.0, evidence.advantage)

    def metrics(self, evidence: Evidence) -> Metrics:
        assert evidence.selected is not None
        share = float(evidence.selected.double().mean())
        return {**super().metrics(evidence), "srpo/distilled_share": Mean(share, len(evidence))}

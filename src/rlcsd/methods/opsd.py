"""OPSD, on-policy self-distillation (arXiv 2601.18734): imitate the hinted model on the policy's own samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..records import Evidence, Policy
from .base import TEACHER, UNUSABLE, HintedConfig, Method
from .divergence import as_distribution, generalised_jsd, only, scattered
from .teacher import TeacherKind


class OPSDConfig(HintedConfig):
    teacher: TeacherKind = Field("fixed", description=TEACHER)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)  # there is no reward path to keep them on
    alpha: float = Field(0.0, ge=0, le=1, description="0: forward KL(T‖S), 1: reverse KL, between: generalised JSD")
    clip: float = Field(0.05, ge=0, description="upper bound of each vocabulary entry's term; 0 switches it off")
    top_k: int = Field(100, ge=1, description="tokens of the support")
    add_tail: bool = Field(
        True, description="one bucket for the rest of the vocabulary; otherwise the support is rescaled"
    )


class OPSD(Method):
    """KL_clip(T‖S) on the teacher's top-k and tail; no reward term."""

    name = "opsd"
    Config = OPSDConfig
    support = "teacher"

    def token_loss(self, policy: Policy, evidence: Evidence) -> Tensor:
        assert evidence.weight is not None
        loss = scattered(self.divergence(*only(policy, evidence, evidence.hinted)), evidence.hinted)
        return loss * evidence.correction * evidence.weight.to(loss.dtype)

    def divergence(self, policy: Policy, evidence: Evidence) -> Tensor:
        """Per token `[n]`, all of them hinted."""
        assert policy.support_log_prob is not None and evidence.teacher_support is not None
        c = self.config
        student = as_distribution(policy.support_log_prob, c.add_tail)
        return generalised_jsd(student, as_distribution(evidence.teacher_support, c.add_tail), c.alpha, c.clip)

"""OPD, on-policy distillation from another model, and its contrastive form. Neither is in the RLCSD paper.

The teacher is a separate, usually larger model with the same vocabulary (`method.teacher_model`). The paper's
argument about style applies to it as well: a plain gap also rewards sounding like the teacher.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..records import TokenBatch
from .base import HINT_SOURCE, TEACHER, UNUSABLE, ContrastConfig, CreditMethod, HintedConfig, TeacherKind
from .contrast import ContrastiveMethod
from .objective import ObjectiveConfig


class OPDConfig(ObjectiveConfig, HintedConfig):
    teacher: TeacherKind = Field("model", description=TEACHER)
    hint_source: Literal["none", "gt_cot", "answer_only", "own_rollout"] = Field("none", description=HINT_SOURCE)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)  # there is no reward to train them with
    bound: float = Field(5.0, gt=0, description="advantages are clamped to ±bound, in nats")


class OPD(CreditMethod):
    """Reverse KL(S‖T) on sampled tokens (GKD, arXiv 2306.13649, α = 1): A_t = log π_T(y_t) − log π(y_t)."""

    name = "opd"
    Config = OPDConfig
    uses_advantage = "never"
    loss_columns = ("weight", "teacher_log_prob")

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.teacher_log_prob is not None
        gap = (batch.teacher_log_prob - log_prob).clamp(-self.config.bound, self.config.bound)
        return gap * batch.hinted

    def needs_update(self, batch: TokenBatch) -> Tensor:
        return batch.hinted


class OPDContrastConfig(ObjectiveConfig, ContrastConfig):
    teacher: TeacherKind = Field("model", description=TEACHER)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)
    bound: float = Field(5.0, gt=0, description="advantages are clamped to ±bound, in nats")
    k_max: int = Field(4, ge=1, description="most wrong hints marginalised over")


class OPDContrast(ContrastiveMethod, CreditMethod):
    """The other model's contrast between a correct and wrong hints as the advantage: A_t = e_t."""

    name = "opd_ectr"
    Config = OPDContrastConfig
    uses_advantage = "never"
    loss_columns = ("weight", "contrast")

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.contrast is not None
        return batch.contrast.clamp(-self.config.bound, self.config.bound)

    def needs_update(self, batch: TokenBatch) -> Tensor:
        return batch.hinted

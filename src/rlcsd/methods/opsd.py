"""OPSD and its contrastive form: imitate the model that was shown a hint, on the policy's own samples."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..records import StudentLogProbs, TokenBatch
from .base import ADD_TAIL, TEACHER, TOP_K, UNUSABLE, ContrastConfig, HintedConfig, Method, TeacherKind
from .contrast import ContrastiveMethod
from .losses import as_distribution, clipped_kl, generalised_jsd
from .sdpo import at_tokens, scattered


class OPSDConfig(HintedConfig):
    teacher: TeacherKind = Field("fixed", description=TEACHER)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)  # there is no reward to train them with
    alpha: float = Field(0.0, ge=0, le=1, description="0: forward KL(T‖S), 1: reverse KL, between: generalised JSD")
    clip: float = Field(0.05, ge=0, description="upper bound of each vocabulary entry's term; 0 switches it off")
    top_k: int = Field(100, ge=1, description=TOP_K)
    add_tail: bool = Field(True, description=ADD_TAIL)


class OPSD(Method):
    """On-policy self-distillation (arXiv 2601.18734): KL_clip(T‖S) on the teacher's top-k tokens, without a reward."""

    name = "opsd"
    Config = OPSDConfig
    topk_from = "teacher"

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.weight is not None
        loss = scattered(self.divergence(*at_tokens(student, batch, batch.hinted)), batch.hinted)
        return loss * batch.correction * batch.weight.to(loss.dtype)

    def divergence(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        """Per token `[n]`; all tokens are hinted."""
        assert student.topk_log_prob is not None and batch.teacher_topk is not None
        c = self.config
        target = as_distribution(batch.teacher_topk, c.add_tail)
        return generalised_jsd(as_distribution(student.topk_log_prob, c.add_tail), target, c.alpha, c.clip)


class OPSDContrastConfig(ContrastConfig, OPSDConfig):
    # pydantic takes a field from the first base that has it, so what OPSDConfig changed is repeated
    teacher: TeacherKind = Field("fixed", description=TEACHER)
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)
    alpha: float = Field(0.5, ge=0, description="strength of the extrapolation away from the wrong hint")
    log_wrong_floor: float = Field(-5.0, lt=0, description="lower bound of log T_w in the target")
    weight_tau: float = Field(1.0, gt=0, description="divergence between the hints at which a token weighs one half")


def contrastive_target(correct: Tensor, wrong: Tensor, alpha: float, floor: float) -> Tensor:
    """log q `[…, k]`, q ∝ exp((1+α) log T_c − α max(log T_w, floor)), normalised over the k entries."""
    return torch.log_softmax((1 + alpha) * correct - alpha * wrong.clamp(min=floor), dim=-1)


class OPSDContrast(ContrastiveMethod, OPSD):
    """OPSD towards a contrastive target (arXiv 2606.11709): c_t · KL_clip(q‖S) on T_c's top-k tokens.

    c_t = κ/(κ+τ_w) with κ = KL(T_c‖T_w), so tokens on which the hints agree count little.
    """

    name = "opsd_ectr"
    Config = OPSDContrastConfig

    def divergence(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert student.topk_log_prob is not None
        assert batch.teacher_topk is not None and batch.contrast_topk is not None
        c = self.config
        correct = as_distribution(batch.teacher_topk, c.add_tail)
        wrong = as_distribution(batch.contrast_topk, c.add_tail)
        kappa = clipped_kl(correct, wrong)
        target = contrastive_target(correct, wrong, c.alpha, c.log_wrong_floor)
        divergence = clipped_kl(target, as_distribution(student.topk_log_prob, c.add_tail), c.clip)
        return divergence * kappa / (kappa + c.weight_tau)

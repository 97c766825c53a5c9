"""SDPO, self-distillation policy optimisation (arXiv 2601.20802): a symmetric divergence, off-policy corrected."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..records import StudentLogProbs, TokenBatch
from .base import ADD_TAIL, TEACHER, TOP_K, UNUSABLE, HintedConfig, Method, TeacherKind
from .losses import as_distribution, generalised_jsd, ratio


class DivergenceConfig(HintedConfig):
    """Fields of sdpo and of the distilled part of srpo."""

    teacher: TeacherKind = Field("ema", description=TEACHER)
    alpha: float = Field(0.5, ge=0, le=1, description="0: forward KL, 1: reverse KL, between: generalised JSD")
    ratio_cap: float = Field(2.0, gt=0, description="upper bound of the importance ratio")
    top_k: int = Field(100, ge=1, description=TOP_K)
    add_tail: bool = Field(True, description=ADD_TAIL)


class SDPOConfig(DivergenceConfig):
    unusable: Literal["drop"] = Field("drop", description=UNUSABLE)  # there is no reward to train them with


def at_tokens(student: StudentLogProbs, batch: TokenBatch, where: Tensor) -> tuple[StudentLogProbs, TokenBatch]:
    """Both records at the tokens where `where` (bool `[n]`) holds: a divergence exists only where there is a target."""
    tokens = where.nonzero()[:, 0]  # once for all columns: to know how many there are, the host waits for a GPU
    topk = None if student.topk_log_prob is None else student.topk_log_prob[tokens]
    return StudentLogProbs(student.log_prob[tokens], topk), batch[tokens]


def scattered(values: Tensor, where: Tensor) -> Tensor:
    """`values` at the tokens where `where` (bool `[n]`) holds, 0 elsewhere, `[n]`."""
    return values.new_zeros(len(where)).masked_scatter(where, values)


def distillation_loss(student: StudentLogProbs, batch: TokenBatch, config: DivergenceConfig, where: Tensor) -> Tensor:
    """JSD_α(S, T) · min(ρ, cap) · w per token `[n]`, 0 off `where` (bool `[n]`); the ratio carries no gradient."""
    student, batch = at_tokens(student, batch, where)
    if not len(batch):
        return scattered(student.log_prob, where)
    assert student.topk_log_prob is not None and batch.teacher_topk is not None
    own = as_distribution(student.topk_log_prob, config.add_tail)
    target = as_distribution(batch.teacher_topk, config.add_tail)
    rho = ratio(student.log_prob.detach(), batch.old_log_prob).clamp(max=config.ratio_cap)
    return scattered(generalised_jsd(own, target, config.alpha) * rho * batch.correction, where)


class SDPO(Method):
    """JSD_0.5 on the student's own top-k tokens and a tail bucket."""

    name = "sdpo"
    Config = SDPOConfig
    uses_advantage = "never"
    topk_from = "student"

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.weight is not None
        loss = distillation_loss(student, batch, self.config, batch.hinted)
        return loss * batch.weight.to(loss.dtype)

"""OPSD and its contrastive form: imitate the model that was shown a hint, on the policy's own samples."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..records import StudentLogProbs, TokenBatch
from .base import ADD_TAIL, TEACHER, TOP_K, UNUSABLE, ContrastConfig, HintedConfig, Method, Sums, TeacherKind
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
    temperature: float = Field(
        1.0, gt=0, description="the logits of student and teacher are divided by it; other than 1 needs add_tail=false"
    )
    position_floor: float = Field(
        1.0, ge=0, le=1, description="weight of the first tokens of a response; 1: all positions weigh alike"
    )
    position_midpoint: float = Field(0.3, ge=0, le=1, description="position at which the weight is half-way to 1")
    position_width: float = Field(0.1, gt=0, description="share of the response over which the weight rises")

    @model_validator(mode="after")
    def _tail_has_no_temperature(self) -> Self:
        if self.temperature != 1 and self.add_tail:
            raise ValueError(
                f"method.temperature={self.temperature:g}: the mass beside the top-k tokens is known at temperature 1 "
                "alone; set method.add_tail=false"
            )
        return self


def position_weights(rollout: Tensor, floor: float, midpoint: float, width: float) -> Tensor:
    """`[N]`, float64: floor + (1 − floor) σ((f − midpoint) / width), f = (k − ½)/n at the k-th of a rollout's n tokens.

    Later tokens weigh more, because early ones follow the hint's words (PW-OPSD, arXiv 2605.21606).
    """
    lengths = torch.bincount(rollout)
    first = lengths.cumsum(0) - lengths
    index = torch.arange(len(rollout), device=rollout.device) - first[rollout]
    position = (index.double() + 0.5) / lengths[rollout]
    return floor + (1 - floor) * torch.sigmoid((position - midpoint) / width)


class OPSD(Method):
    """On-policy self-distillation (arXiv 2601.18734): KL_clip(T‖S) on the teacher's top-k tokens, without a reward.

    With `position_floor` below 1, each token is weighted by its position in the response; the weights are not divided
    by their mean.
    """

    name = "opsd"
    Config = OPSDConfig
    uses_advantage = "never"
    topk_from = "teacher"

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        batch, c = super().normalise(batch, sums), self.config
        assert batch.weight is not None
        by_position = position_weights(batch.rollout, c.position_floor, c.position_midpoint, c.position_width)
        return batch.with_columns(weight=batch.weight * by_position)

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.weight is not None
        loss = scattered(self.divergence(*at_tokens(student, batch, batch.hinted)), batch.hinted)
        return loss * batch.correction * batch.weight.to(loss.dtype)

    def divergence(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        """Per token `[n]`; all tokens are hinted."""
        assert student.topk_log_prob is not None and batch.teacher_topk is not None
        target, c = self.distribution(batch.teacher_topk), self.config
        return generalised_jsd(self.distribution(student.topk_log_prob), target, c.alpha, c.clip)

    def distribution(self, log_probs: Tensor) -> Tensor:
        """`[…, k]` log-probs at temperature 1 as the distribution that the divergence compares."""
        return as_distribution(log_probs / self.config.temperature, self.config.add_tail)


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
        correct, wrong = self.distribution(batch.teacher_topk), self.distribution(batch.contrast_topk)
        kappa = clipped_kl(correct, wrong)
        target = contrastive_target(correct, wrong, c.alpha, c.log_wrong_floor)
        divergence = clipped_kl(target, self.distribution(student.topk_log_prob), c.clip)
        return divergence * kappa / (kappa + c.weight_tau)

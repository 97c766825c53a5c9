"""RLCSD with switches that are not in the paper, for our studies of what each part of its update does.

`method=rlcsd_extended` with all switches at their defaults is `method=rlcsd`.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..methods.base import Reduction, Sums
from ..methods.contrast import full_teacher_log_prob, marginal_log_prob, teacher_gap
from ..methods.rlcsd import RLCSD, RLCSDConfig
from ..records import TokenBatch


class RLCSDExtendedConfig(RLCSDConfig):
    evidence: Literal["contrast", "one_sided"] = Field(
        "contrast", description="correct against wrong hints, or the correct hint alone against the policy that sampled"
    )
    k_correct: int = Field(1, ge=1, description="most correct hints marginalised over; the paper has one")
    shift: bool = Field(
        True, description="selected tokens take A + r_t; false: they keep A, and only their path differs"
    )
    weight_cap: float | None = Field(
        None, ge=1, description="most times the weight of an unselected token that a selected one may have; null: none"
    )
    spare: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="in a wrong rollout, tokens that the correct and the wrong hints both give at least this "
        "probability are not pushed down; null: none is spared",
    )

    @property
    def max_correct_hints(self) -> int:
        return self.k_correct

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.k_correct > 1 and (self.hint_source != "self_rollout" or self.evidence == "one_sided"):
            raise ValueError(
                "method.k_correct: several correct hints need method.hint_source=self_rollout and "
                "method.evidence=contrast"
            )
        if self.spare is not None and self.evidence == "one_sided":
            raise ValueError("method.spare: needs wrong hints, so method.evidence=contrast")
        if self.weight_cap is not None and not self.two_path:
            raise ValueError("method.weight_cap: there is nothing to bound with method.two_path=false")
        return self


class RLCSDExtended(RLCSD):
    """RLCSD whose signal, shift, weights and negative advantages can each be switched."""

    name = "rlcsd_extended"
    Config = RLCSDExtendedConfig

    def __init__(self, config: RLCSDExtendedConfig) -> None:
        super().__init__(config)
        self.needs_contrast = config.evidence == "contrast"

    def signal(self, batch: TokenBatch) -> Tensor:
        return super().signal(batch) if self.needs_contrast else teacher_gap(batch)

    def shifted(self, advantage: Tensor, residual: Tensor) -> Tensor:
        return super().shifted(advantage, residual if self.config.shift else torch.zeros_like(residual))

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        batch = super().assign(batch, step)
        if self.config.spare is None:
            return batch
        assert batch.credit is not None
        unharmed = agreed(batch, self.config.spare) & (batch.advantage < 0)
        return batch.with_columns(credit=torch.where(unharmed, 0.0, batch.credit))

    def path_weights(self, batch: TokenBatch, sums: Sums) -> tuple[Tensor, Tensor]:
        others, selected = super().path_weights(batch, sums)
        if self.config.weight_cap is not None:
            unselected = unselected_weight(others, batch.rollout, self.path_reduction, sums)
            selected = torch.minimum(selected, self.config.weight_cap * unselected)
        return others, selected


def agreed(batch: TokenBatch, probability: float) -> Tensor:
    """`[N]` bool: tokens that the correct hint and the wrong hints together both give at least this probability.

    Siblings that disagree about the answer agree on these tokens, so such a token is unlikely to be what made a wrong
    rollout wrong.
    """
    assert batch.contrast_log_prob is not None and batch.contrast_valid is not None
    wrong = marginal_log_prob(batch.contrast_log_prob, batch.contrast_valid)
    return batch.hinted & (torch.minimum(full_teacher_log_prob(batch), wrong) >= math.log(probability))


def unselected_weight(others: Tensor, rollout: Tensor, kind: Reduction, sums: Sums) -> Tensor:
    """`[N]`: weight of an unselected token in the same normalisation group, infinite if the group has none.

    `others` `[N]` has that weight at unselected tokens and 0 elsewhere. The group is the mini-batch for paths that are
    normalised per token, the rollout for paths that are normalised per rollout.
    """
    if kind == "token":
        return torch.full_like(others, 1 / float(sums["others"])) if sums["others"] > 0 else others + torch.inf
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    count = others.new_zeros(rollouts).index_add_(0, rollout, (others > 0).to(others.dtype))
    return (1 / count / sums["others"])[rollout]  # 1 / 0 is infinite

"""RLCSD (arXiv 2606.11709): shift GRPO's advantage on tokens where correct and wrong hints disagree."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import TokenBatch
from .base import TEACHER, ContrastConfig, CreditMethod, Reduction, Sums, TeacherKind, mean_sums, mean_weights
from .contrast import ContrastiveMethod
from .objective import ObjectiveConfig


class RLCSDConfig(ObjectiveConfig, ContrastConfig):
    teacher: TeacherKind = Field("snapshot", description=TEACHER)
    k_max: int = Field(4, ge=1, description="most wrong hints marginalised over")
    tau: float = Field(0.02, gt=0, description="contrast at which the residual saturates, in nats")
    beta: float = Field(1.0, gt=0, description="scale of the residual")
    lam: float = Field(0.5, ge=0, description="λ: size of a saturated residual, against advantages of about 1")
    residual_low: float = Field(-2.0, le=0, description="lower bound of the residual")
    residual_high: float = Field(2.0, ge=0, description="upper bound of the residual")
    delta: float = Field(0.02, ge=0, description="residuals above this select their token")
    eta: float = Field(1.0, ge=0, description="weight of the selected path")
    path_norm: Literal["minibatch", "rollout"] = Field(
        "minibatch",
        description="each path is a mean over all its tokens, or per rollout and then over rollouts; rollout if not "
        "given with reduction=sequence",
    )
    anchor: bool = Field(True, description="the verifier decides the advantage's sign")
    two_path: bool = Field(True, description="average selected and other tokens separately")

    @classmethod
    def with_parts(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = super().with_parts(values)
        return {"path_norm": "rollout", **values} if values.get("reduction") == "sequence" else values


class RLCSD(ContrastiveMethod, CreditMethod):
    """Two paths, each the mean of its own tokens: PPO(A) on the others + η · PPO(A + r_t) on the selected ones.

    The residual is r_t = clamp(βλ tanh(e_t/τ)) of the contrast e_t; tokens with |r_t| > δ are `selected`; `credit` is
    A'_t = A + r_t, clamped to the sign of A.
    """

    name = "rlcsd"
    Config: type[RLCSDConfig] = RLCSDConfig
    loss_columns = ("weight", "credit")

    def __init__(self, config: RLCSDConfig) -> None:
        super().__init__(config)
        if not config.anchor:
            self.uses_advantage = "partly"  # free of the verifier's sign, the residual alone is an advantage

    def residual(self, contrast: Tensor) -> Tensor:
        """r_t of the contrast e_t, any shape."""
        c = self.config
        return (c.beta * c.lam * torch.tanh(contrast / c.tau)).clamp(c.residual_low, c.residual_high)

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        batch = super().assign(batch, step)
        assert batch.contrast is not None
        residual = self.residual(batch.contrast)
        selected = residual.abs() > self.config.delta
        credit = self.shifted(batch.advantage, torch.where(selected, residual, 0.0))
        return batch.with_columns(selected=selected, credit=credit)

    def shifted(self, advantage: Tensor, residual: Tensor) -> Tensor:
        """A + r_t, clamped to the sign of A if the verifier anchors it (A = 0 then stays 0)."""
        shifted = advantage + residual
        if not self.config.anchor:
            return shifted
        return torch.where(advantage > 0, shifted.clamp(min=0), torch.where(advantage < 0, shifted.clamp(max=0), 0.0))

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        assert batch.credit is not None
        return batch.credit  # it does not depend on the policy

    @property
    def path_reduction(self) -> Reduction:
        return "token" if self.config.path_norm == "minibatch" else "sequence"

    def sums(self, batch: TokenBatch) -> Sums:
        assert batch.selected is not None
        others = mean_sums("others", batch.rollout, self.path_reduction, ~batch.selected)
        selected = mean_sums("selected", batch.rollout, self.path_reduction, batch.selected)
        return {**super().sums(batch), **others, **selected, **mean_sums("tokens", batch.rollout)}

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        batch = super().normalise(batch, sums)
        if not self.config.two_path:
            return batch
        others, selected = self.path_weights(batch, sums)
        return batch.with_columns(weight=(others + selected) * self.path_scale(sums))

    def path_scale(self, sums: Sums) -> Tensor | float:
        """Factor of both paths: with reduction=constant, what it makes of the mean over all N tokens, N/(B·L_max)."""
        if self.config.reduction != "constant":
            return 1.0
        return sums["tokens"] / (sums["all"] * self.config.constant_length)

    def path_weights(self, batch: TokenBatch, sums: Sums) -> tuple[Tensor, Tensor]:
        """Weights `[N]` of the unselected and of the selected path, each 0 on the other's tokens."""
        assert batch.selected is not None
        kind, rollout, selected = self.path_reduction, batch.rollout, batch.selected
        others = mean_weights(rollout, kind, ~selected, sums=sums, name="others")
        return others, self.config.eta * mean_weights(rollout, kind, selected, sums=sums, name="selected")

    def metrics(self, batch: TokenBatch) -> Metrics:
        assert batch.contrast is not None and batch.selected is not None and batch.weight is not None
        selected, weight = batch.selected, batch.weight
        share = Mean(float(selected.double().mean()), len(batch))
        figures = {**super().metrics(batch), "rlcsd/selected_share": share}
        if bool(selected.any()):
            mean_other = weight[~selected].mean() if bool((~selected).any()) else weight.new_ones(())
            agree = (batch.contrast.sign() == batch.advantage.sign())[selected]
            figures["rlcsd/selected_weight"] = Mean(float(weight[selected].mean() / mean_other))
            figures["rlcsd/residual_agrees"] = Mean(float(agree.double().mean()), int(selected.sum()))
        return figures

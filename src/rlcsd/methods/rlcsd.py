"""RLCSD (arXiv 2606.11709): shifts GRPO's advantage on the tokens where correct and wrong hints disagree."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Evidence
from .base import TEACHER, ContrastConfig, Reduction, Sums, mean_sums, mean_weights
from .contrast import Contrastive
from .ppo import CreditMethod
from .teacher import TeacherKind


class RLCSDConfig(ContrastConfig):
    teacher: TeacherKind = Field("snapshot", description=TEACHER)
    k_max: int = Field(4, ge=1, description="most wrong hints marginalised over")
    epsilon: float = Field(0.2, gt=0, lt=1, description="PPO clip range")
    tau: float = Field(0.02, gt=0, description="evidence at which the residual saturates, in nats")
    beta: float = Field(1.0, gt=0, description="scale of the residual")
    lam: float = Field(0.5, ge=0, description="λ: size of a saturated residual, against advantages of about 1")
    residual_low: float = Field(-2.0, le=0, description="lower bound of the residual")
    residual_high: float = Field(2.0, ge=0, description="upper bound of the residual")
    delta: float = Field(0.02, ge=0, description="residuals above this select their token")
    eta: float = Field(1.0, ge=0, description="weight of the selected path")
    path_norm: Literal["minibatch", "rollout"] = Field(
        "minibatch", description="each path is a mean over all its tokens, or per rollout and then over rollouts"
    )
    anchor: bool = Field(True, description="the verifier decides the advantage's sign")
    two_path: bool = Field(True, description="average selected and other tokens separately")


class RLCSD(Contrastive, CreditMethod):
    """Two paths, each the mean of its own tokens: PPO(A) on the others + η · PPO(A + r_t) on the selected.

    The residual is r_t = clamp(βλ tanh(e_t/τ)); `selected` are the tokens with |r_t| > δ; `credit` is A'_t.
    """

    name = "rlcsd"
    Config = RLCSDConfig
    loss_columns = ("weight", "credit")

    def residual(self, contrast: Tensor) -> Tensor:
        """r_t of the contrast e_t, any shape."""
        c = self.config
        return (c.beta * c.lam * torch.tanh(contrast / c.tau)).clamp(c.residual_low, c.residual_high)

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        evidence = super().assign(evidence, step)
        assert evidence.contrast is not None
        residual = self.residual(evidence.contrast)
        selected = residual.abs() > self.config.delta
        return evidence.with_columns(
            selected=selected, credit=self.shifted(evidence.advantage, torch.where(selected, residual, 0.0))
        )

    def shifted(self, advantage: Tensor, residual: Tensor) -> Tensor:
        """A + r_t, clamped to the sign of A if the verifier anchors it (A = 0 then stays 0)."""
        shifted = advantage + residual
        if not self.config.anchor:
            return shifted
        return torch.where(advantage > 0, shifted.clamp(min=0), torch.where(advantage < 0, shifted.clamp(max=0), 0.0))

    def advantages(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.credit is not None
        return evidence.credit  # it does not depend on the policy

    @property
    def _path_reduction(self) -> Reduction:
        return "token" if self.config.path_norm == "minibatch" else "sequence"

    def sums(self, evidence: Evidence) -> Sums:
        assert evidence.selected is not None
        rollout, kind, selected = evidence.rollout, self._path_reduction, evidence.selected
        paths = mean_sums("others", rollout, kind, ~selected) | mean_sums("selected", rollout, kind, selected)
        return {**super().sums(evidence), **paths}

    def normalise(self, evidence: Evidence, sums: Sums) -> Evidence:
        evidence = super().normalise(evidence, sums)
        if not self.config.two_path:
            return evidence
        assert evidence.selected is not None
        rollout, kind = evidence.rollout, self._path_reduction
        weight = mean_weights(rollout, kind, ~evidence.selected, sums=sums, name="others")
        weight = weight + self.config.eta * mean_weights(rollout, kind, evidence.selected, sums=sums, name="selected")
        return evidence.with_columns(weight=weight)

    def needs_update(self, evidence: Evidence) -> Tensor:
        if self.config.anchor:
            return super().needs_update(evidence)
        return torch.ones_like(evidence.hinted)

    def metrics(self, evidence: Evidence) -> Metrics:
        assert evidence.contrast is not None and evidence.selected is not None and evidence.weight is not None
        selected, weight = evidence.selected, evidence.weight
        figures = {
            **super().metrics(evidence),
            "rlcsd/selected_share": Mean(float(selected.double().mean()), len(evidence)),
        }
        if bool(selected.any()):
            mean_other = weight[~selected].mean() if bool((~selected).any()) else weight.new_ones(())
            agree = (evidence.contrast.sign() == evidence.advantage.sign())[selected]
            figures["rlcsd/selected_weight"] = Mean(float(weight[selected].mean() / mean_other))
            figures["rlcsd/residual_agrees"] = Mean(float(agree.double().mean()), int(selected.sum()))
        return figures

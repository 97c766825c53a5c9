"""RLCSD (arXiv 2606.11709): shifts GRPO's advantage on the tokens where correct and wrong hints disagree."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Evidence
from .base import TEACHER, ContrastConfig, Reduction, Sums, mean_sums, mean_weights
from .contrast import Contrastive, marginal_log_prob, one_sided
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
    k_correct: int = Field(1, ge=1, description="most correct hints marginalised over; the paper has one")
    # Beyond the paper: parts of the update by themselves. The defaults leave the published method as it is.
    evidence: Literal["contrast", "one_sided"] = Field(
        "contrast", description="correct against wrong hints, or the correct hint alone against the policy that sampled"
    )
    shift: bool = Field(
        True, description="selected tokens take A + r_t; false: they keep A, and only their path differs"
    )
    weight_cap: float | None = Field(
        None, ge=1, description="most times the weight of another token that a selected one may have; null: unbounded"
    )
    spare: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="in a wrong rollout, tokens that the correct and the wrong hints both give at least this "
        "probability are not pushed down; null: none is spared",
    )

    @property
    def most_correct(self) -> int:
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


def spared(evidence: Evidence, probability: float) -> Tensor:
    """`[N]` bool: tokens that the correct hint and the wrong hints together both find at least so probable.

    Siblings that disagree about the answer agree on these tokens. That is evidence, without a label, that such a token
    is not what made a wrong rollout wrong.
    """
    assert evidence.teacher is not None and evidence.wrong is not None and evidence.wrong_valid is not None
    wrong = marginal_log_prob(evidence.wrong, evidence.wrong_valid)
    return evidence.hinted & (torch.minimum(evidence.teacher, wrong) >= math.log(probability))


def _beside(others: Tensor, rollout: Tensor, kind: Reduction, sums: Sums) -> Tensor:
    """`[N]`: the weight of an unselected token beside each token, infinite where there is none.

    `others` `[N]` has that weight at the unselected tokens and 0 elsewhere. Paths normalised per mini-batch have one
    such weight, those normalised per rollout one for each rollout.
    """
    if kind == "token":
        return torch.full_like(others, 1 / float(sums["others"])) if sums["others"] > 0 else others + torch.inf
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    count = others.new_zeros(rollouts).index_add_(0, rollout, (others > 0).to(others.dtype))
    return (1 / count / sums["others"])[rollout]  # 1 / 0 is infinite


class RLCSD(Contrastive, CreditMethod):
    """Two paths, each the mean of its own tokens: PPO(A) on the others + η · PPO(A + r_t) on the selected.

    The residual is r_t = clamp(βλ tanh(e_t/τ)); `selected` are the tokens with |r_t| > δ; `credit` is A'_t.
    """

    name = "rlcsd"
    Config = RLCSDConfig
    loss_columns = ("weight", "credit")

    def __init__(self, config: RLCSDConfig) -> None:
        super().__init__(config)
        self.contrast = config.evidence == "contrast"

    def evidence(self, evidence: Evidence) -> Tensor:
        """e_t `[N]`."""
        return super().evidence(evidence) if self.contrast else one_sided(evidence)

    def residual(self, contrast: Tensor) -> Tensor:
        """r_t of the contrast e_t, any shape."""
        c = self.config
        return (c.beta * c.lam * torch.tanh(contrast / c.tau)).clamp(c.residual_low, c.residual_high)

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        evidence = super().assign(evidence, step)
        assert evidence.contrast is not None
        residual = self.residual(evidence.contrast)
        selected = residual.abs() > self.config.delta
        shift = torch.where(selected, residual, 0.0) if self.config.shift else torch.zeros_like(residual)
        credit = self.shifted(evidence.advantage, shift)
        if self.config.spare is not None:
            credit = torch.where(spared(evidence, self.config.spare) & (evidence.advantage < 0), 0.0, credit)
        return evidence.with_columns(selected=selected, credit=credit)

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
        others = mean_weights(rollout, kind, ~evidence.selected, sums=sums, name="others")
        selected = self.config.eta * mean_weights(rollout, kind, evidence.selected, sums=sums, name="selected")
        if self.config.weight_cap is not None:
            selected = torch.minimum(selected, self.config.weight_cap * _beside(others, rollout, kind, sums))
        return evidence.with_columns(weight=others + selected)

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

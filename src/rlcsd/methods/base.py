"""What a method declares, and the pure functions it consists of.

All tensors are flat over the N response tokens of one optimizer mini-batch, rollout after rollout, so a mean over
the mini-batch is a sum divided by N and there is no padding. A method has no state: whatever its loss reads stands
in the `Evidence` that it is given, so an instance that was rebuilt elsewhere (a worker) computes the same.

    assign     what belongs to each token alone: contrast, credit, selection         any part of the mini-batch
    sums       what has to be added up over the whole mini-batch: token counts       added over the parts
    normalise  the weight of each token, from the sums of the whole mini-batch       any part
    token_loss the weighted loss of each token, with gradient                        any part

A part consists of whole rollouts (for `token_loss` of any tokens). The sum of the token losses of all parts is the
loss, however the mini-batch was cut into micro-batches or spread over ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Evidence, Policy
from .teacher import TeacherKind

Reduction = Literal["token", "sequence"]
Sums = Mapping[str, Tensor]


class MethodConfig(BaseModel):
    """Fields that every method has."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the method, or path/to/file.py:ClassName")
    reduction: Literal["token", "sequence"] = Field(
        "token", description="mean over all tokens, or per rollout and then over rollouts"
    )
    advantage_std: bool = Field(True, description="divide the group advantage by its standard deviation")


TEACHER = "weights of the teacher: those of step 0, a moving average or a snapshot of the policy, or another model"
HINT_SOURCE = (
    "the correct hint: the data set's solution (gt_cot) or its answer, "
    "a correct sibling (own_rollout, self_rollout), what the verifier said of the rollout (feedback), or none"
)
UNUSABLE = "rollouts without a usable hint: leave out, or keep unmodulated"


class HintedConfig(MethodConfig):
    """Fields of a method that asks a teacher."""

    teacher: TeacherKind = Field("snapshot", description=TEACHER)
    teacher_model: str | None = Field(None, description="hub name or folder of the teacher, for teacher=model")
    ema_rate: float = Field(0.05, gt=0, le=1, description="share of the policy taken in after each optimizer step")
    snapshot_every: int = Field(10, ge=1, description="optimizer steps between snapshots")
    hint_source: Literal["gt_cot", "answer_only", "own_rollout", "self_rollout", "feedback", "none"] = Field(
        "gt_cot", description=HINT_SOURCE
    )
    template: Literal["neutral", "verbose", "terse"] = Field("neutral", description="wording around the hint")
    strip_thinking: bool = Field(False, description="leave out a sibling's <think> part when it is shown as a hint")
    unusable: Literal["drop", "plain"] = Field("drop", description=UNUSABLE)

    @model_validator(mode="before")
    @classmethod
    def _without_feedback(cls, values: Any) -> Any:
        """Verifiers say nothing of what is right: a method with a reward path keeps such rollouts on it by default."""
        paths = get_args(cls.model_fields["unusable"].annotation)
        if isinstance(values, dict) and values.get("hint_source") == "feedback" and "plain" in paths:
            return {"unusable": "plain", **values}
        return values

    @model_validator(mode="after")
    def _teacher_named(self) -> Self:
        if (self.teacher == "model") != (self.teacher_model is not None):
            raise ValueError("method.teacher_model: needed with method.teacher=model, and only there")
        return self


class ContrastConfig(HintedConfig):
    """Fields of a method that contrasts a correct hint with wrong ones."""

    hint_source: Literal["self_rollout", "gt_cot"] = Field("self_rollout", description=HINT_SOURCE)
    k_max: int = Field(1, ge=1, description="most wrong hints for one rollout")
    exclude_self: bool = Field(True, description="a rollout is never its own hint")

    @property
    def most_correct(self) -> int:
        """Correct hints for one rollout, at most."""
        return 1


class Method(ABC):
    """One training method: a declaration of what it needs, and pure functions of the evidence.

    `name` is its key in the config. `contrast` says that wrong hints are needed beside the correct one, `support`
    whose top-k tokens carry the distillation target, and `loss_columns` which optional columns of `Evidence` are read
    by `token_loss`, `clipped_advantage` and `needs_update`. A method without hints has a `Config` derived from
    `MethodConfig` alone.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[Any]] = MethodConfig
    contrast: bool = False  # rlcsd's own depends on its config
    support: ClassVar[Literal["none", "student", "teacher"]] = "none"
    loss_columns: ClassVar[tuple[str, ...]] = ("weight",)
    scores_zero_advantage: ClassVar[bool] = True  # False: a token with A = 0 needs no teacher, for its loss stays 0

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def from_fields(cls, **values: Any) -> Self:
        """Built from keyword hyper-parameters. Raises pydantic.ValidationError on a bad one."""
        return cls(cls.Config(**{"name": cls.name or cls.__name__.lower(), **values}))

    @property
    def hinted(self) -> bool:
        """Does the method ask a teacher at all?"""
        return isinstance(self.config, HintedConfig)

    @property
    def top_k(self) -> int:
        """Size of the support, 0 without one."""
        return getattr(self.config, "top_k", 0) if self.support != "none" else 0

    def prepare(self, evidence: Evidence, step: int) -> Evidence:
        """The whole mini-batch with all of the method's columns filled in; `step` counts from 1."""
        assigned = self.assign(evidence, step)
        return self.normalise(assigned, self.sums(assigned))

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        """The columns that depend on each token alone (`contrast`, `credit`, `selected` …)."""
        return evidence

    def sums(self, evidence: Evidence) -> Sums:
        """Scalars in float64 that add up over the parts of a mini-batch, for `normalise`."""
        return mean_sums("all", evidence.rollout, self.config.reduction)

    def normalise(self, evidence: Evidence, sums: Sums) -> Evidence:
        """`weight` (and what else depends on `sums`, those of the whole mini-batch)."""
        return evidence.with_columns(weight=mean_weights(evidence.rollout, self.config.reduction, sums=sums))

    @abstractmethod
    def token_loss(self, policy: Policy, evidence: Evidence) -> Tensor:
        """`[n]`, weighted, so that the sum over the mini-batch is the loss."""

    def clipped_advantage(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        """`[n]`: the advantage that the clipped surrogate sees, 0 where another loss is used; for the clip fraction."""
        return torch.zeros_like(log_prob)

    def needs_update(self, evidence: Evidence) -> Tensor:
        """`[N]` bool: tokens whose loss can have a gradient. The others still count in the normalisers."""
        return torch.ones_like(evidence.hinted)

    def metrics(self, evidence: Evidence) -> Metrics:
        """Figures of a prepared mini-batch for the log."""
        return teacher_metrics(evidence)


def mean_sums(
    name: str, rollout: Tensor, reduction: Reduction = "token", among: Tensor | None = None
) -> dict[str, Tensor]:
    """What `mean_weights` needs of the whole mini-batch: the number of tokens of the mean, or of rollouts.

    A rollout counts whether or not it has a token in `among` (bool `[N]`, default all).
    """
    if reduction == "sequence":
        return {name: torch.tensor(float(torch.unique(rollout).numel()), dtype=torch.float64, device=rollout.device)}
    if among is None:
        among = torch.ones_like(rollout, dtype=torch.bool)
    return {name: among.double().sum()}


def mean_weights(
    rollout: Tensor,
    reduction: Reduction = "token",
    among: Tensor | None = None,
    *,
    sums: Sums | None = None,
    name: str = "all",
) -> Tensor:
    """`[N]` weights of a mean over `among` (bool `[N]`, default all), float64.

    `token`: 1 over the number of such tokens. `sequence`: the mean of each rollout's own such tokens, averaged over
    *all* rollouts of the mini-batch; a rollout without such a token contributes nothing. `sums[name]` is the number of
    tokens or rollouts in the whole mini-batch; without `sums`, `rollout` is the whole mini-batch.
    """
    if among is None:
        among = torch.ones_like(rollout, dtype=torch.bool)
    total = (sums or mean_sums(name, rollout, reduction, among))[name].clamp(min=1)
    share = among.double()
    if reduction == "token":
        return share / total
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    counts = torch.zeros(rollouts, dtype=share.dtype, device=share.device).index_add_(0, rollout, share)
    return share / counts.clamp(min=1)[rollout] / total


def teacher_metrics(evidence: Evidence) -> Metrics:
    """Mean log-prob gap between the teacher and the policy that sampled, over hinted tokens."""
    if evidence.teacher is None or not bool(evidence.hinted.any()):
        return {}
    hinted = evidence.hinted
    gap = (evidence.teacher - evidence.old_log_prob)[hinted]
    values = {"teacher/gap": gap.mean(), "teacher/gap_abs": gap.abs().mean()}
    if evidence.teacher_entropy is not None:
        values["teacher/entropy"] = evidence.teacher_entropy[hinted].mean()
    return {name: Mean(float(value), len(gap)) for name, value in values.items()}

"""Base classes of the methods: what a method declares, and the pure functions that it consists of.

All tensors are flat over the N response tokens of one optimizer mini-batch, rollout after rollout, so a mean over
the mini-batch is a sum divided by N and there is no padding. A method has no state: everything that its loss reads is
in the `TokenBatch`, so a worker that rebuilds the method from its config computes the same.

    function    computes                                                      from
    assign      columns that depend on each token alone: contrast, credit     any rollouts of the mini-batch
    sums        scalars of the whole mini-batch: token counts                 any rollouts; the parts' sums are added
    normalise   the weight of each token                                      any rollouts, and the added sums
    token_loss  the weighted loss of each token, with gradient                any tokens; whole rollouts if their
                                                                              ratio is that of the sequence

The sum of all token losses is the loss of the mini-batch, however it was cut into micro-batches or spread over ranks;
engines cut it between rollouts only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from ..errors import InputError
from ..metrics import Max, Mean, Metrics, Sum
from ..records import StudentLogProbs, TokenBatch
from .objective import Objective

Estimator = Literal["group", "mean", "leave_one_out"]
Reduction = Literal["token", "sequence", "constant"]
Sums = Mapping[str, Tensor]
TeacherKind = Literal["fixed", "ema", "snapshot", "policy", "model"]


@dataclass(frozen=True)
class TeacherSchedule:
    """When the teacher's weights follow the policy's.

    `fixed` keeps the weights of step 0 and `model` those of another model; `ema` takes in a share of the policy
    after each optimizer step (SDPO, arXiv 2601.20802); `snapshot` copies the policy every
    `snapshot_every` steps (RLSD); `policy` is the policy itself, without weights of its own (CEPO).
    """

    kind: TeacherKind
    ema_rate: float = 0.05
    snapshot_every: int = 10

    @property
    def copies(self) -> bool:
        """Has the teacher weights of its own that were the policy's?"""
        return self.kind in ("fixed", "ema", "snapshot")

    @property
    def moves(self) -> bool:
        """Does the teacher ever follow the policy?"""
        return self.kind in ("ema", "snapshot")

    def due(self, optimizer_step: int) -> bool:
        """Does the teacher move after optimizer step number `optimizer_step` (from 1)?"""
        return self.kind == "ema" or (self.kind == "snapshot" and optimizer_step % self.snapshot_every == 0)

    @torch.no_grad()
    def move(self, teacher: Tensor, policy: Tensor) -> None:
        """Update one tensor of the teacher in place: θ_T ← (1 − rate) θ_T + rate θ, or θ_T ← θ."""
        if self.kind == "ema" and teacher.dtype.itemsize == 2:
            # Rounded twice, as verl-based code does it. Rounded once, no weight would follow a policy that is less than
            # 1 / (2 rate) spacings away.
            teacher.mul_(1 - self.ema_rate).add_(policy, alpha=self.ema_rate)
        elif self.kind == "ema":
            teacher.lerp_(policy, self.ema_rate)
        else:
            teacher.copy_(policy)


# ------------------------------------------------------------------ hyper-parameters


class MethodConfig(BaseModel):
    """Fields that every method has."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the method, or path/to/file.py:ClassName")
    reduction: Reduction = Field(
        "token",
        description="mean over all tokens, per rollout and then over rollouts, or the sum over rollouts × a constant",
    )
    constant_length: int | None = Field(
        None, ge=1, description="that constant, in tokens, for reduction=constant; null: sampling.max_tokens"
    )
    estimator: Estimator = Field(
        "group",
        description="advantage of a reward: minus the group's mean and over its standard deviation, minus the mean "
        "alone, or minus the mean of the other rollouts",
    )


TEACHER = (
    "weights of the teacher: those of step 0, a moving average or a snapshot of the policy, the policy itself, "
    "or another model"
)
HINT_SOURCE = (
    "the correct hint: the data set's solution (gt_cot) or its answer, "
    "a correct sibling (own_rollout, self_rollout), the verifier's feedback on the rollout, or none; "
    "answer_pair: bare answers, the data set's and those of the worst wrong siblings"
)
TOP_K = "how many top-k tokens carry the divergence"
ADD_TAIL = "one bucket for the rest of the vocabulary; otherwise the top-k log-probs are renormalised"
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
    template: Literal["neutral", "verbose", "terse", "bare"] = Field(
        "neutral", description="wording around the hint; bare: none"
    )
    strip_thinking: bool = Field(False, description="leave out a sibling's <think> part when it is shown as a hint")
    unusable: Literal["drop", "plain"] = Field("drop", description=UNUSABLE)

    @property
    def schedule(self) -> TeacherSchedule:
        """When the teacher's weights follow the policy's."""
        return TeacherSchedule(self.teacher, self.ema_rate, self.snapshot_every)

    @model_validator(mode="before")
    @classmethod
    def _without_feedback(cls, values: Any) -> Any:
        """Verifiers say nothing of what is right: a method with a reward path keeps such rollouts on it by default."""
        if isinstance(values, dict) and values.get("hint_source") == "feedback" and cls.has_plain_path():
            return {"unusable": "plain", **values}
        return values

    @classmethod
    def has_plain_path(cls) -> bool:
        """Whether a rollout without a usable hint may stay in the update (`unusable=plain`)."""
        return "plain" in get_args(cls.model_fields["unusable"].annotation)

    @model_validator(mode="after")
    def _teacher_named(self) -> Self:
        if (self.teacher == "model") != (self.teacher_model is not None):
            raise ValueError("method.teacher_model: needed with method.teacher=model, and only there")
        return self


class ContrastConfig(HintedConfig):
    """Fields of a method that contrasts a correct hint with wrong ones."""

    hint_source: Literal["self_rollout", "gt_cot", "answer_pair"] = Field(  # type: ignore[assignment]
        "self_rollout", description=HINT_SOURCE
    )
    k_max: int = Field(1, ge=1, description="most wrong hints for one rollout")
    exclude_self: bool = Field(True, description="a rollout is never its own hint")

    @property
    def max_correct_hints(self) -> int:
        """Most correct hints for one rollout; more than one are averaged."""
        return 1


# ------------------------------------------------------------------ methods


class Method(ABC):
    """One training method: class attributes that declare what it needs, and pure functions of a `TokenBatch`.

    `name` is its key in the config. `needs_contrast`: wrong hints are needed beside the correct one. `topk_from`: whose
    top-k tokens carry a distillation target. `loss_columns`: the optional columns of `TokenBatch` that `token_loss`,
    `clipped_advantage` and `needs_update` read. `needs_entropy`: the column `entropy` is read. `uses_advantage`: never;
    for a part of the loss; or always, so that a token with A = 0 has no gradient. `whole_minibatch`: `assign` must see
    all rollouts of the mini-batch, because it compares their tokens. A method whose `Config` does not derive from
    `HintedConfig` has no teacher.
    """

    name: ClassVar[str] = ""
    Config: type[Any] = MethodConfig
    needs_contrast: bool = False
    needs_entropy: ClassVar[bool] = False
    uses_advantage: Literal["never", "partly", "always"] = "partly"
    whole_minibatch: ClassVar[bool] = False
    topk_from: ClassVar[Literal["none", "student", "teacher"]] = "none"
    loss_columns: ClassVar[tuple[str, ...]] = ("weight",)
    scores_zero_advantage: ClassVar[bool] = True  # False: a token with A = 0 needs no teacher, since its loss is 0

    def __init__(self, config: Any) -> None:
        if config.reduction == "constant" and config.constant_length is None:
            raise InputError("method.constant_length: a number of tokens is needed with method.reduction=constant")
        self.config = config

    @classmethod
    def from_fields(cls, **values: Any) -> Self:
        """Built from keyword hyper-parameters. Raises pydantic.ValidationError on a bad one."""
        return cls(cls.Config(**{"name": cls.name or cls.__name__.lower(), **values}))

    @property
    def hinted(self) -> bool:
        """Has the method a teacher?"""
        return isinstance(self.config, HintedConfig)

    def asks_teacher(self, step: int) -> bool:
        """Does training step `step` (from 1) read the teacher's log-probs? Where not, none are computed."""
        return self.hinted

    @property
    def objective(self) -> Objective | None:
        """How advantages become a loss; None for a method without a policy-gradient loss."""
        return None

    @property
    def top_k(self) -> int:
        """How many top-k tokens carry the distillation target, 0 without one."""
        return getattr(self.config, "top_k", 0) if self.topk_from != "none" else 0

    def prepare(self, batch: TokenBatch, step: int) -> TokenBatch:
        """The whole mini-batch with all of the method's columns filled in; `step` counts from 1."""
        assigned = self.assign(batch, step)
        return self.normalise(assigned, self.sums(assigned))

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        """The columns that depend on each token alone (`contrast`, `credit`, `selected` …)."""
        return batch

    def sums(self, batch: TokenBatch) -> Sums:
        """Scalars in float64 that add up over the parts of a mini-batch, for `normalise`."""
        return mean_sums("all", batch.rollout, self.config.reduction)

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        """`weight` (and what else depends on `sums`, those of the whole mini-batch)."""
        c = self.config
        return batch.with_columns(
            weight=mean_weights(batch.rollout, c.reduction, sums=sums, constant_length=c.constant_length)
        )

    @abstractmethod
    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        """`[n]`, weighted, so that the sum over the mini-batch is the loss."""

    def clipped_advantage(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        """`[n]`: the advantage in the clipped surrogate, 0 for tokens with another loss; for the clip fraction."""
        return torch.zeros_like(log_prob)

    def needs_update(self, batch: TokenBatch) -> Tensor:
        """`[N]` bool: tokens whose loss can have a gradient. The others still count in the means."""
        return torch.ones_like(batch.hinted)

    def metrics(self, batch: TokenBatch) -> Metrics:
        """Figures of a prepared mini-batch for the log."""
        return teacher_metrics(batch)

    def update_sums(self, loss: float, log_prob: Tensor, part: TokenBatch) -> dict[str, float]:
        """Figures of an update as sums over the tokens of `part`, which add up over micro-batches and ranks.

        `loss` is the part's loss, `log_prob [n]` the current policy's, without gradient. `update_metrics` turns the
        added sums into metrics.
        """
        columns = {"actor/kl_to_old": part.old_log_prob - log_prob}
        if self.objective is not None:
            low, high = self.objective.clipped(log_prob, self.clipped_advantage(log_prob, part), part)
            columns |= {"actor/clip_fraction_low": low, "actor/clip_fraction_high": high}
            columns["actor/clip_fraction"] = low | high
        totals = torch.stack([column.double().sum() for column in columns.values()]).tolist()  # one wait for a GPU
        return {"tokens": float(len(part)), "loss": loss, **dict(zip(columns, totals, strict=True))}


class CreditMethod(Method):
    """A method that turns group advantages and the teacher's signal into per-token advantages.

    Its loss is the policy-gradient objective of its config, so it also runs on engines that only accept `(B, T)`
    advantages: those of `folded_advantages`. Its `Config` derives from `ObjectiveConfig` as well, or has at least
    `epsilon`; then its objective is PPO's.
    """

    uses_advantage: Literal["never", "partly", "always"] = "always"
    ratio_clamp: float | None = None

    @property
    def objective(self) -> Objective:
        return Objective.of(self.config, self.ratio_clamp)

    @abstractmethod
    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        """A'_t `[n]`; `log_prob [n]` is the current policy's, without gradient."""

    def normalise(self, batch: TokenBatch, sums: Sums) -> TokenBatch:
        """`weight`, and `credit`: A'_t at the policy that sampled."""
        batch = super().normalise(batch, sums)
        return batch.with_columns(credit=self.advantages(batch.old_log_prob, batch))

    def token_loss(self, student: StudentLogProbs, batch: TokenBatch) -> Tensor:
        assert batch.weight is not None
        advantage = self.advantages(student.log_prob.detach(), batch)
        loss = self.objective.token_loss(student.log_prob, advantage, batch)
        return loss * batch.correction * batch.weight.to(loss.dtype)

    def folded_advantages(self, log_prob: Tensor, batch: TokenBatch, tokens: int | None = None) -> Tensor:
        """Advantages `[n]` whose *plain token mean* of the objective over the mini-batch is this method's loss.

        The surrogate is positively homogeneous in A, so a token's weight moves into its advantage; for rlcsd the
        factors are N/(N−N_s) off the selected path and η·N/N_s on it. `tokens` is N if `batch` is only a part.
        """
        assert batch.weight is not None
        count = len(batch) if tokens is None else tokens
        return self.advantages(log_prob, batch) * batch.weight.to(log_prob.dtype) * count

    def clipped_advantage(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        return self.advantages(log_prob, batch)

    def needs_update(self, batch: TokenBatch) -> Tensor:
        return batch.advantage != 0 if self.uses_advantage == "always" else torch.ones_like(batch.hinted)

    def metrics(self, batch: TokenBatch) -> Metrics:
        share = float((batch.advantage == 0).double().mean())
        return {**super().metrics(batch), "credit/zero_advantage": Mean(share, len(batch))}


# ------------------------------------------------------------------ means over a mini-batch


def mean_sums(
    name: str, rollout: Tensor, reduction: Reduction = "token", among: Tensor | None = None
) -> dict[str, Tensor]:
    """What `mean_weights` needs of the whole mini-batch: the number of tokens of the mean, or of rollouts.

    A rollout counts whether or not it has a token in `among` (bool `[N]`, default all).
    """
    if reduction != "token":
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
    constant_length: int | None = None,
) -> Tensor:
    """`[N]` weights of a mean over `among` (bool `[N]`, default all), float64.

    `token`: 1 over the number of such tokens. `sequence`: the mean of each rollout's own such tokens, averaged over
    *all* rollouts of the mini-batch; a rollout without such a token contributes nothing. `constant`: 1 over the
    number of rollouts times `constant_length` (Dr. GRPO, arXiv 2503.20783). `sums[name]` is the number of tokens or
    rollouts in the whole mini-batch; without `sums`, `rollout` is the whole mini-batch.
    """
    if among is None:
        among = torch.ones_like(rollout, dtype=torch.bool)
    total = (sums or mean_sums(name, rollout, reduction, among))[name].clamp(min=1)
    share = among.double()
    if reduction == "token":
        return share / total
    if reduction == "constant":
        assert constant_length is not None
        return share / (total * constant_length)
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    counts = torch.zeros(rollouts, dtype=share.dtype, device=share.device).index_add_(0, rollout, share)
    return share / counts.clamp(min=1)[rollout] / total


# ------------------------------------------------------------------ metrics

NO_STEP: Metrics = {"update/skipped": Sum(0), "update/empty": Sum(1)}  # of a mini-batch with nothing to learn from


def teacher_metrics(batch: TokenBatch) -> Metrics:
    """Mean log-prob gap between the teacher and the policy that sampled, over hinted tokens."""
    if batch.teacher_log_prob is None or not bool(batch.hinted.any()):
        return {}
    hinted = batch.hinted
    gap = (batch.teacher_log_prob - batch.old_log_prob)[hinted]
    values = {"teacher/gap": gap.mean(), "teacher/gap_abs": gap.abs().mean()}
    if batch.teacher_entropy is not None:
        values["teacher/entropy"] = batch.teacher_entropy[hinted].mean()
    return {name: Mean(float(value), len(gap)) for name, value in values.items()}


def step_metrics(
    growth: float, norm: float, learning_rate: float, stepped: bool, changed: tuple[float, float] = (0, 0)
) -> Metrics:
    """Metrics of one optimizer step, which is skipped if the gradient is not finite.

    `growth` is the norm of the weights over their norm at the start of the run, `norm` that of the gradient. `changed`
    are the weights whose stored value the step changed, and those that were looked at.
    """
    return {
        "actor/weight_growth": Max(growth if math.isfinite(growth) else math.inf),
        "actor/grad_norm": Mean(norm),
        "actor/learning_rate": Mean(learning_rate),
        "update/skipped": Sum(not stepped),
        "update/empty": Sum(0),
        "update/changed_share": Mean(changed[0] / max(changed[1], 1), changed[1]),
    }


def update_metrics(sums: Mapping[str, float], updated: int, rows: int) -> Metrics:
    """Metrics of a mini-batch from its added `Method.update_sums`; `updated` of its `rows` rollouts had a gradient."""
    tokens = sums.get("tokens", 0.0)
    means = {name: Mean(value / max(tokens, 1.0), tokens) for name, value in sums.items() if "/" in name}
    return {
        **means,
        "actor/loss": Mean(sums.get("loss", 0.0)),
        "actor/updated_share": Mean(updated / max(rows, 1), rows),
    }

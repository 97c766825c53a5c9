"""The policy-gradient objective: how a method's per-token advantages become a loss.

A credit method computes the advantage A'_t of each token, an objective the loss of a token at that advantage. So each
objective composes with each credit method. `OBJECTIVES` has the named ones as values of the config's parts:

    part          values                                     what it decides
    estimator     group | mean | leave_one_out               the advantage of a rollout within its group
    ratio         token | sequence                           whose importance ratio a token has
    surrogate     ppo | cispo                                what happens to a ratio outside [1 − ε, 1 + ε_high]
    reduction     token | sequence | constant                the mean over the mini-batch

`estimator` and `reduction` are fields of every method (`base.MethodConfig`); `stages.grade` computes the first. What
a named objective needs beside the loss (refilled groups, a length penalty) is in `config/groups/objective`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from ..records import TokenBatch
from .losses import clipped, ppo_loss, ratio, rollout_mean

# What each objective sets of the fields that were not given; docs/methods/baselines.md has papers and conventions.
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {},  # the method's own fields
    "dapo": {"epsilon_high": 0.28, "dual_clip": None, "reduction": "token"},
    "dr_grpo": {"estimator": "mean", "dual_clip": None, "reduction": "constant"},
    "gspo": {"ratio": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4, "dual_clip": None, "reduction": "sequence"},
    "cispo": {"surrogate": "cispo", "epsilon": 1.0, "epsilon_high": 0.2, "dual_clip": None, "reduction": "token"},
    "rloo": {"estimator": "leave_one_out"},
}

OBJECTIVE = "named values for the parts of the loss that are not given; grpo: the method's own"


class ObjectiveConfig(BaseModel):
    """Fields of a method with a policy-gradient loss, to derive its config from beside `MethodConfig` or a subclass."""

    objective: Literal["grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo"] = Field("grpo", description=OBJECTIVE)
    ratio: Literal["token", "sequence"] = Field(
        "token", description="importance ratio of each token, or the geometric mean over its rollout (GSPO)"
    )
    surrogate: Literal["ppo", "cispo"] = Field(
        "ppo", description="ppo: no gradient beyond the clip range; cispo: the ratio is capped and keeps its gradient"
    )
    epsilon: float = Field(0.2, gt=0, le=1, description="clip range below 1; 1: no lower bound")
    epsilon_high: float | None = Field(None, gt=0, description="clip range above 1; null: epsilon")
    dual_clip: float | None = Field(None, gt=1, description="bound of the loss for A < 0, in |A|; null: none")

    @classmethod
    def with_parts(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`values`, and what their objective sets where they say nothing."""
        name = values.get("objective", cls.model_fields["objective"].default)
        return {**(OBJECTIVES.get(name, {}) if isinstance(name, str) else {}), **values}

    @model_validator(mode="before")
    @classmethod
    def _with_parts(cls, values: Any) -> Any:
        return cls.with_parts(values) if isinstance(values, dict) else values


@dataclass(frozen=True)
class Objective:
    """The loss of a token as a function of its log-prob and advantage; see `ObjectiveConfig` for the fields.

    `ratio_clamp` bounds |log ratio|, None: not at all.
    """

    ratio: Literal["token", "sequence"] = "token"
    surrogate: Literal["ppo", "cispo"] = "ppo"
    epsilon: float = 0.2
    epsilon_high: float | None = None
    dual_clip: float | None = None
    ratio_clamp: float | None = None

    @classmethod
    def of(cls, config: Any, ratio_clamp: float | None = None) -> Self:
        """The objective of a method's config; fields that it lacks have the defaults above."""
        names = ("ratio", "surrogate", "epsilon", "epsilon_high", "dual_clip")
        return cls(**{name: getattr(config, name) for name in names if hasattr(config, name)}, ratio_clamp=ratio_clamp)

    @property
    def bounds(self) -> tuple[float, float]:
        """The clip range of the ratio."""
        return 1 - self.epsilon, 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)

    def ratios(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        """Importance ratios `[n]` of `batch`'s tokens, with the gradient of `log_prob [n]`.

        `sequence` is GSPO-token (arXiv 2507.18071, section 4.3): s_t = exp(sg(m) + ℓ_t − sg(ℓ_t)), m the mean log-ratio
        of the token's rollout, all of whose tokens must be in `batch`. Its value is the same for all of them, and each
        token has its own gradient, so advantages may differ between tokens.
        """
        if self.ratio == "token":
            return ratio(log_prob, batch.old_log_prob, self.ratio_clamp)
        fixed = log_prob.detach()
        mean = rollout_mean(fixed - batch.old_log_prob, batch.rollout)
        return ratio(mean + log_prob, fixed, self.ratio_clamp)

    def token_loss(self, log_prob: Tensor, advantage: Tensor, batch: TokenBatch) -> Tensor:
        """`[n]`, unweighted; `log_prob [n]` has a gradient, `advantage [n]` has none.

        `cispo` is −sg(clip(ρ, 1−ε, 1+ε_high)) A ℓ (MiniMax-M1, arXiv 2506.13585, eq. 4). Both surrogates are positively
        homogeneous in the advantage.
        """
        rho = self.ratios(log_prob, batch)
        if self.surrogate == "cispo":
            return -rho.detach().clamp(*self.bounds) * advantage * log_prob
        return ppo_loss(rho, advantage, self.epsilon, self.dual_clip, self.epsilon_high)

    def clipped(self, log_prob: Tensor, advantage: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Bool `[n]` twice: tokens whose ratio the clip range bounds from below, and from above.

        With `ppo` such a token has no gradient, and only a lower bound for A < 0 and an upper one for A > 0 do that;
        with `cispo` its ratio is capped, whatever the sign of A ≠ 0.
        """
        rho = self.ratios(log_prob.detach(), batch)
        low, high = self.bounds
        if self.surrogate == "cispo":
            return (rho < low) & (advantage != 0), (rho > high) & (advantage != 0)
        return clipped(advantage, rho, low, high)

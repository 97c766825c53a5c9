"""The clipped policy-gradient surrogate that all credit methods share, and what such a method is."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Evidence, Policy
from .base import Method, Sums


def ratio(log_prob: Tensor, old_log_prob: Tensor, clamp: float | None = 20.0) -> Tensor:
    """ρ_t = π / π_old, the log-ratio clamped to ±`clamp` (None: not at all). Any common shape."""
    log_ratio = log_prob - old_log_prob
    return (log_ratio if clamp is None else log_ratio.clamp(-clamp, clamp)).exp()


def ppo_loss(rho: Tensor, advantage: Tensor, epsilon: float, dual_clip: float | None = None) -> Tensor:
    """−min(ρA, clip(ρ, 1−ε, 1+ε) A) per token (PPO, arXiv 1707.06347, eq. 7).

    With `dual_clip` c, tokens with A < 0 lose at most −cA (dual-clip PPO, arXiv 1912.09729, eq. 5).
    Positively homogeneous in the advantage: scaling A scales the loss.
    """
    loss = -torch.minimum(rho * advantage, rho.clamp(1 - epsilon, 1 + epsilon) * advantage)
    if dual_clip is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)
    return loss


def clipped(advantage: Tensor, log_ratio: Tensor, epsilon: float) -> Tensor:
    """Bool: where the clip takes the gradient away. Any common shape."""
    rho = log_ratio.exp()
    return ((advantage > 0) & (rho > 1 + epsilon)) | ((advantage < 0) & (rho < 1 - epsilon))


class CreditMethod(Method):
    """A method that turns group advantages and teacher evidence into per-token advantages.

    Its loss is the plain surrogate, so it runs on any engine that accepts `(B, T)` advantages: those of
    `folded_advantages`.
    """

    ratio_clamp: float | None = None
    dual_clip: float | None = None

    @abstractmethod
    def advantages(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        """A'_t `[n]`; `log_prob [n]` is the current policy's, without gradient."""

    def normalise(self, evidence: Evidence, sums: Sums) -> Evidence:
        """Beside `weight`: `credit`, which is A'_t at the policy that sampled."""
        evidence = super().normalise(evidence, sums)
        return evidence.with_columns(credit=self.advantages(evidence.old_log_prob, evidence))

    def token_loss(self, policy: Policy, evidence: Evidence) -> Tensor:
        assert evidence.weight is not None
        advantage = self.advantages(policy.log_prob.detach(), evidence)
        rho = ratio(policy.log_prob, evidence.old_log_prob, self.ratio_clamp)
        return (
            ppo_loss(rho, advantage, self.config.epsilon, self.dual_clip)
            * evidence.correction
            * evidence.weight.to(rho.dtype)
        )

    def folded_advantages(self, log_prob: Tensor, evidence: Evidence, tokens: int | None = None) -> Tensor:
        """Advantages `[n]` whose *plain token mean* of PPO losses over the mini-batch is this method's loss.

        `tokens` are those of the whole mini-batch if `evidence` is a part of it.

        The surrogate is positively homogeneous in A, so a token's weight moves into its advantage; for
        rlcsd the factors are N/(N−N_s) off the selected path and η·N/N_s on it.
        """
        assert evidence.weight is not None
        count = len(evidence) if tokens is None else tokens
        return self.advantages(log_prob, evidence) * evidence.weight.to(log_prob.dtype) * count

    def clipped_advantage(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        return self.advantages(log_prob, evidence)

    def needs_update(self, evidence: Evidence) -> Tensor:
        return evidence.advantage != 0

    def metrics(self, evidence: Evidence) -> Metrics:
        share = float((evidence.advantage == 0).double().mean())
        return {**super().metrics(evidence), "credit/zero_advantage": Mean(share, len(evidence))}

"""Loss terms as pure functions of tensors: the clipped surrogate, divergences on top-k tokens, and regularisers.

Methods combine them into `token_loss`; nothing here knows a method, a config or an engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# ------------------------------------------------------------------ the clipped policy-gradient surrogate


def ratio(log_prob: Tensor, old_log_prob: Tensor, clamp: float | None = 20.0) -> Tensor:
    """ρ_t = π / π_old, the log-ratio clamped to ±`clamp` (None: not at all). Any common shape."""
    log_ratio = log_prob - old_log_prob
    return (log_ratio if clamp is None else log_ratio.clamp(-clamp, clamp)).exp()


def rollout_mean(values: Tensor, rollout: Tensor) -> Tensor:
    """`[n]`: the mean of `values [n]` over all tokens with the same index in `rollout [n]`, at each token."""
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    count = torch.bincount(rollout, minlength=rollouts).clamp(min=1)
    return (values.new_zeros(rollouts).index_add_(0, rollout, values) / count)[rollout]


def ppo_loss(
    rho: Tensor,
    advantage: Tensor,
    epsilon: float,
    dual_clip: float | None = None,
    epsilon_high: float | None = None,
) -> Tensor:
    """−min(ρA, clip(ρ, 1−ε, 1+ε_high) A) per token (PPO, arXiv 1707.06347, eq. 7); `epsilon_high` None: ε.

    With `dual_clip` c, tokens with A < 0 lose at most −cA (dual-clip PPO, arXiv 1912.09729, eq. 5).
    Positively homogeneous in the advantage: scaling A scales the loss.
    """
    high = epsilon if epsilon_high is None else epsilon_high
    loss = -torch.minimum(rho * advantage, rho.clamp(1 - epsilon, 1 + high) * advantage)
    if dual_clip is not None:
        loss = torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)
    return loss


def clipped(advantage: Tensor, rho: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Bool twice: tokens whose gradient the clip range [low, high] sets to zero, from below and from above."""
    return (advantage < 0) & (rho < low), (advantage > 0) & (rho > high)


# ------------------------------------------------------------------ divergences on top-k tokens

_MAX_LOG_MASS = -1e-7  # keeps the logarithm of the remaining mass finite when the k tokens hold all of it


def with_tail(log_probs: Tensor) -> Tensor:
    """`[…, k]` log-probs → `[…, k + 1]`: the log of the remaining mass, log(1 − Σp), is appended."""
    mass = log_probs.logsumexp(dim=-1, keepdim=True).clamp(max=_MAX_LOG_MASS)
    return torch.cat([log_probs, torch.log(-torch.expm1(mass))], dim=-1)


def renormalised(log_probs: Tensor) -> Tensor:
    """`[…, k]` log-probs, rescaled to sum to one."""
    return log_probs - log_probs.logsumexp(dim=-1, keepdim=True)


def as_distribution(log_probs: Tensor, tail: bool) -> Tensor:
    """`[…, k]` log-probs as a distribution: with a bucket for the rest of the vocabulary, or renormalised."""
    return with_tail(log_probs) if tail else renormalised(log_probs)


def clipped_kl(p: Tensor, q: Tensor, clip: float = 0.0) -> Tensor:
    """Σ_v p (log p − log q) over the last dimension of two log-distributions.

    With `clip > 0` each term is at most `clip` (per-token clipping of OPSD, arXiv 2601.18734).
    """
    terms = p.exp() * (p - q)
    if clip > 0:
        terms = terms.clamp(max=clip)
    return terms.sum(dim=-1)


def generalised_jsd(student: Tensor, teacher: Tensor, alpha: float, clip: float = 0.0) -> Tensor:
    """JSD_α `[…]` of two log-distributions `[…, k]` (generalised JSD of GKD, arXiv 2306.13649, eq. 1–2).

    α = 0: forward KL(T‖S); α = 1: reverse KL(S‖T); otherwise (1−α) KL(S‖M) + α KL(T‖M) with
    M = (1−α) S + α T.
    """
    if alpha == 0.0:
        return clipped_kl(teacher, student, clip)
    if alpha == 1.0:
        return clipped_kl(student, teacher, clip)
    weights = torch.tensor([1 - alpha, alpha], dtype=student.dtype, device=student.device).log()
    mixture = torch.logsumexp(torch.stack([student + weights[0], teacher + weights[1]]), dim=0)
    return (1 - alpha) * clipped_kl(student, mixture, clip) + alpha * clipped_kl(teacher, mixture, clip)


# ------------------------------------------------------------------ regularisers on top of any method


def low_variance_kl(log_prob: Tensor, reference: Tensor) -> Tensor:
    """min(exp(r − p) − (r − p) − 1, 10) per token: Schulman's k3 estimator of KL(policy ‖ reference), bounded."""
    gap = (reference - log_prob).clamp(-20, 20)
    return (gap.exp() - gap - 1).clamp(max=10)


@dataclass(frozen=True)
class Regularisers:
    """Coefficients of the reference KL and of the entropy bonus; both are plain means of the mini-batch's tokens."""

    kl: float = 0.0
    entropy: float = 0.0

    @property
    def any(self) -> bool:
        return self.kl > 0 or self.entropy > 0

    def token_loss(
        self, log_prob: Tensor, entropy: Tensor | None, reference: Tensor | None, tokens: int | Tensor
    ) -> Tensor | None:
        """`[n]`, weighted for a mean over `tokens` tokens (N, or `[n]`); None if there is no such term.

        `log_prob [n]` and `entropy [n]` (for the entropy bonus) carry gradient, `reference [n]` (for the KL) does not.
        """
        terms = []
        if self.kl > 0:
            assert reference is not None
            terms.append(self.kl * low_variance_kl(log_prob, reference))
        if self.entropy > 0:
            assert entropy is not None
            terms.append(-self.entropy * entropy)
        return torch.stack(terms).sum(0) / tokens if terms else None

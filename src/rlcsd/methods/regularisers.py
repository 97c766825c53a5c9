"""Optional terms on top of any method's loss: the reference KL and an entropy bonus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def low_variance_kl(log_prob: Tensor, reference: Tensor) -> Tensor:
    """min(exp(r − p) − (r − p) − 1, 10) per token, p and r log-probs of policy and reference (Schulman's k3
    estimator)."""
    gap = (reference - log_prob).clamp(-20, 20)
    return (gap.exp() - gap - 1).clamp(max=10)


@dataclass(frozen=True)
class Regularisers:
    """Coefficients of `low_variance_kl` and of the entropy bonus; both are means over the tokens of the mini-batch."""

    kl: float = 0.0
    entropy: float = 0.0

    @property
    def any(self) -> bool:
        return self.kl > 0 or self.entropy > 0

    def token_loss(
        self, log_prob: Tensor, entropy: Tensor | None, reference: Tensor | None, tokens: int
    ) -> Tensor | None:
        """`[n]`, weighted for a mini-batch of `tokens` tokens; None if there is no such term.

        `log_prob [n]` and `entropy [n]` (needed for the entropy bonus) carry gradient, `reference [n]` (needed for the
        KL) does not.
        """
        terms = []
        if self.kl > 0:
            assert reference is not None
            terms.append(self.kl * low_variance_kl(log_prob, reference))
        if self.entropy > 0:
            assert entropy is not None
            terms.append(-self.entropy * entropy)
        return torch.stack(terms).sum(0) / tokens if terms else None

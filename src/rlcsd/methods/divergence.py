"""Divergences between next-token distributions on a top-k support plus one tail bucket."""

from __future__ import annotations

import torch
from torch import Tensor

from ..records import Evidence, Policy

_MASS_BELOW_ONE = 1e-7  # keeps the tail's logarithm finite when the support holds all the mass


def with_tail(log_probs: Tensor) -> Tensor:
    """`[…, k]` log-probs of a support → `[…, k + 1]` with log(1 − Σp) appended."""
    mass = log_probs.logsumexp(dim=-1, keepdim=True).clamp(max=-_MASS_BELOW_ONE)
    return torch.cat([log_probs, torch.log(-torch.expm1(mass))], dim=-1)


def renormalised(log_probs: Tensor) -> Tensor:
    """`[…, k]` log-probs of a support, rescaled to sum to one."""
    return log_probs - log_probs.logsumexp(dim=-1, keepdim=True)


def as_distribution(log_probs: Tensor, tail: bool) -> Tensor:
    """The support as a distribution: with a tail bucket (`distill_add_tail`) or rescaled."""
    return with_tail(log_probs) if tail else renormalised(log_probs)


def clipped_kl(p: Tensor, q: Tensor, clip: float = 0.0) -> Tensor:
    """Σ_v p (log p − log q) over the last dimension of two log-distributions.

    With `clip > 0` each term is clamped above at `clip` (OPSD, arXiv 2601.18734: per-token clipping).
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


def only(policy: Policy, evidence: Evidence, where: Tensor) -> tuple[Policy, Evidence]:
    """Policy and evidence at some tokens (bool `[n]`): a divergence is computed only where there is a target."""
    at_support = None if policy.support_log_prob is None else policy.support_log_prob[where]
    return Policy(policy.log_prob[where], at_support), evidence[where]


def scattered(values: Tensor, where: Tensor) -> Tensor:
    """`values` at the tokens where `where` (bool `[n]`) holds, 0 elsewhere, `[n]`."""
    return values.new_zeros(len(where)).masked_scatter(where, values)

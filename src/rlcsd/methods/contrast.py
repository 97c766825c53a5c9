"""The contrastive evidence: what a correct hint makes likelier than wrong hints do."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import Distribution, Mean, Metrics
from ..records import Evidence
from .base import Method


def marginal_log_prob(wrong: Tensor, valid: Tensor) -> Tensor:
    """log (1/K) Σ_k π_T(y|h_w,k) over the valid of K wrong hints; `[…, K]` → `[…]` (RLCSD, K-marginalisation).

    `valid` (bool) has the shape of `wrong` or broadcasts to it. Without any valid hint the result is 0 and must not
    be used.
    """
    valid = valid.expand(wrong.shape)
    count = valid.sum(dim=-1)
    some = count > 0
    total = torch.where(some[..., None], wrong.masked_fill(~valid, -torch.inf), 0.0).logsumexp(dim=-1)
    return torch.where(some, total - count.clamp(min=1).to(wrong.dtype).log(), 0.0)


def one_sided(evidence: Evidence) -> Tensor:
    """log π_T(y_t|h_c) − log π_old(y_t), `[N]`: the evidence of a correct hint alone; 0 where there is none."""
    assert evidence.teacher is not None
    return torch.where(evidence.hinted, evidence.teacher - evidence.old_log_prob, 0.0)


def contrast(evidence: Evidence) -> Tensor:
    """e_t = log π_T(y_t|h_c) − log (1/K) Σ_k π_T(y_t|h_w,k), `[N]`; 0 where there is no usable pair."""
    assert evidence.teacher is not None and evidence.wrong is not None and evidence.wrong_valid is not None
    e = evidence.teacher - marginal_log_prob(evidence.wrong, evidence.wrong_valid)
    return torch.where(evidence.hinted, e, 0.0)


class Contrastive(Method):
    """What the methods with wrong hints share: the column `contrast` and its figures in the log."""

    contrast = True

    def evidence(self, evidence: Evidence) -> Tensor:
        """e_t `[N]`, the column `contrast`."""
        return contrast(evidence)

    def assign(self, evidence: Evidence, step: int) -> Evidence:
        return super().assign(evidence.with_columns(contrast=self.evidence(evidence)), step)

    def metrics(self, evidence: Evidence) -> Metrics:
        """The distribution of e_t over hinted tokens, and how many wrong hints a token had."""
        assert evidence.contrast is not None
        hinted = evidence.hinted
        figures: dict[str, object] = {"e_ctr": Distribution(evidence.contrast[hinted])}
        if evidence.wrong_valid is None:  # one-sided evidence
            return {**super().metrics(evidence), **figures}  # type: ignore[dict-item]
        wrong_hints = evidence.wrong_valid[hinted].sum(dim=-1).double()
        if len(wrong_hints):
            figures["hints/wrong_mean"] = Mean(float(wrong_hints.mean()), len(wrong_hints))
        return {**super().metrics(evidence), **figures}  # type: ignore[dict-item]

"""The contrastive signal of RLCSD: how much likelier a token is under a correct hint than under wrong ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import Distribution, Mean, Metrics
from ..records import TokenBatch
from .base import Method


def marginal_log_prob(log_probs: Tensor, valid: Tensor) -> Tensor:
    """log (1/K) Σ_k π_T(y|h_k) over the valid ones of K hints; `[…, K]` → `[…]` (RLCSD, K-marginalisation).

    `valid` (bool) has the shape of `log_probs` or broadcasts to it. Without any valid hint the result is 0 and must
    not be used.
    """
    valid = valid.expand(log_probs.shape)
    count = valid.sum(dim=-1)
    some = count > 0
    total = torch.where(some[..., None], log_probs.masked_fill(~valid, -torch.inf), 0.0).logsumexp(dim=-1)
    return torch.where(some, total - count.clamp(min=1).to(log_probs.dtype).log(), 0.0)


def full_teacher_log_prob(batch: TokenBatch) -> Tensor:
    """log π_T(y_t|h_c) over the whole vocabulary, `[N]`, whether or not the rollouts have sampling masks."""
    assert batch.teacher_log_prob is not None
    mass = batch.teacher_log_kept_mass
    return batch.teacher_log_prob if mass is None else batch.teacher_log_prob + mass


def teacher_gap(batch: TokenBatch) -> Tensor:
    """log π_T(y_t|h_c) − log π_old(y_t), `[N]`: the signal of a correct hint alone; 0 for tokens without a teacher.

    With sampling masks both are among the tokens that could be sampled.
    """
    assert batch.teacher_log_prob is not None
    return torch.where(batch.hinted, batch.teacher_log_prob - batch.old_log_prob, 0.0)


def contrast(batch: TokenBatch) -> Tensor:
    """e_t = log π_T(y_t|h_c) − log (1/K) Σ_k π_T(y_t|h_w,k), `[N]`; 0 without a teacher (arXiv 2606.11709).

    Over the whole vocabulary, also with sampling masks: the student's filter is in neither of the two terms, and the
    mass that a hint moves out of the kept tokens is part of what it says of them.
    """
    assert batch.contrast_log_prob is not None and batch.contrast_valid is not None
    e = full_teacher_log_prob(batch) - marginal_log_prob(batch.contrast_log_prob, batch.contrast_valid)
    return torch.where(batch.hinted, e, 0.0)


class ContrastiveMethod(Method):
    """A method with wrong hints: fills in the column `contrast` and logs its distribution."""

    needs_contrast = True

    def signal(self, batch: TokenBatch) -> Tensor:
        """e_t `[N]`, the column `contrast`."""
        return contrast(batch)

    def assign(self, batch: TokenBatch, step: int) -> TokenBatch:
        return super().assign(batch.with_columns(contrast=self.signal(batch)), step)

    def metrics(self, batch: TokenBatch) -> Metrics:
        """The distribution of e_t over hinted tokens, and the mean number of wrong hints of a token."""
        assert batch.contrast is not None
        figures = {**super().metrics(batch), "e_ctr": Distribution(batch.contrast[batch.hinted])}
        if batch.contrast_valid is not None:
            wrong_hints = batch.contrast_valid[batch.hinted].sum(dim=-1).double()
            if len(wrong_hints):
                figures["hints/wrong_mean"] = Mean(float(wrong_hints.mean()), len(wrong_hints))
        return figures

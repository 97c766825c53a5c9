"""The language-model head in chunks of tokens, so that logits `[B, T, V]` are never held whole.

With gradient, each chunk's logits are recomputed in the backward pass (activation checkpointing): gradients are exact,
and peak memory is that of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint


@dataclass
class HeadOutput:
    """Per token: `log_prob [n]`, `entropy [n]` in nats, `topk_ids [n, k]` and `topk_log_prob [n, k]`."""

    log_prob: Tensor
    entropy: Tensor | None
    topk_ids: Tensor | None
    topk_log_prob: Tensor | None


def _entropy(logits: Tensor, norm: Tensor) -> Tensor:
    """H = log Z − E[logit] in nats, without writing the log-probs `[n, V]`."""
    return norm - torch.linalg.vecdot(logits.softmax(dim=-1), logits)


class Head(nn.Module):
    """Log-probs from hidden states by a model's output embedding, `chunk` tokens at a time.

    `softcap` bounds logits as softcap · tanh(logits / softcap), for models with that in their config (Gemma).
    """

    def __init__(self, projection: nn.Module, softcap: float | None = None, chunk: int = 4096) -> None:
        super().__init__()
        self.projection, self.softcap, self.chunk = projection, softcap, chunk

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states `[n, H]` → logits `[n, V]` in at least float32."""
        # Without autocast: rounding logits to bf16 moves log-probs by more than the contrast that selects a token.
        with torch.autocast(hidden.device.type, enabled=False):
            projection: Any = self.projection
            weight, bias = projection.weight, getattr(projection, "bias", None)
            kind = torch.promote_types(torch.promote_types(weight.dtype, hidden.dtype), torch.float32)
            logits = linear(hidden.to(kind), weight.to(kind), None if bias is None else bias.to(kind))
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def _chunk(self, hidden: Tensor, ids: Tensor, topk_ids: Tensor | None, entropy: bool) -> tuple[Tensor, ...]:
        logits = self.logits(hidden)
        norm = logits.logsumexp(dim=-1)
        columns = [logits.gather(-1, ids[:, None])[:, 0] - norm]
        if entropy:
            columns.append(_entropy(logits, norm))
        if topk_ids is not None:
            columns.append(logits.gather(-1, topk_ids) - norm[:, None])
        return tuple(columns)

    def forward(self, hidden: Tensor, ids: Tensor, topk_ids: Tensor | None = None, entropy: bool = True) -> HeadOutput:
        """Log-probs (and entropy) of the ids `[n]` that follow `hidden [n, H]`, and, if given, of `topk_ids [n, k]`."""
        parts = []
        for start in range(0, max(len(ids), 1), self.chunk):
            part = slice(start, start + self.chunk)
            inputs = (hidden[part], ids[part], None if topk_ids is None else topk_ids[part], entropy)
            recompute = torch.is_grad_enabled() and len(ids) > self.chunk  # a single chunk is the peak either way
            parts.append(checkpoint(self._chunk, *inputs, use_reentrant=False) if recompute else self._chunk(*inputs))
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        topk_log_prob = columns.pop() if topk_ids is not None else None
        return HeadOutput(columns[0], columns[1] if entropy else None, topk_ids, topk_log_prob)

    @torch.no_grad()
    def top_k(self, hidden: Tensor, ids: Tensor, k: int) -> HeadOutput:
        """As `forward`, with the `k` most likely ids (all, if the vocabulary is smaller), without gradient."""
        parts = []
        for start in range(0, max(len(ids), 1), self.chunk):
            logits = self.logits(hidden[start : start + self.chunk])
            norm = logits.logsumexp(dim=-1)
            top = logits.topk(min(k, logits.shape[-1]), dim=-1)
            chosen = logits.gather(-1, ids[start : start + self.chunk, None])[:, 0]
            parts.append((chosen - norm, _entropy(logits, norm), top.indices, top.values - norm[:, None]))
        return HeadOutput(*(torch.cat(column) for column in zip(*parts, strict=True)))

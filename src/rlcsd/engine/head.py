"""The language-model head in chunks of tokens, so that logits `[B, T, V]` are never held whole.

Sampler, scorer and update all take their log-probs from it. With gradient, each chunk's logits are recomputed in the
backward pass (activation checkpointing): gradients are exact, and peak memory is that of one chunk.

Under bf16 autocast, and for bf16 hidden states, operands are rounded to bf16, products are summed in float32, and
logits stay in float32. Any linear layer rounds its operands so under autocast, and so do the heads of vLLM and verl;
but those round the logits as well, which moves log-probs by more than the contrast that selects a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from ..records import SamplingMask, among_kept


@dataclass
class HeadOutput:
    """Per token: `log_prob [n]`, `entropy [n]` in nats, `topk_ids [n, k]` and `topk_log_prob [n, k]`.

    With a sampling mask also `log_kept_mass [n]`, the log of the total probability of its tokens.
    """

    log_prob: Tensor
    entropy: Tensor | None
    topk_ids: Tensor | None
    topk_log_prob: Tensor | None
    log_kept_mass: Tensor | None = None

    @property
    def kept_log_prob(self) -> Tensor:
        """Log-probs `[n]` among the tokens of the sampling mask; without one, over the whole vocabulary."""
        return among_kept(self.log_prob, self.log_kept_mass)


def entropy_of(logits: Tensor, norm: Tensor) -> Tensor:
    """H = log Z − E[logit] in nats, given `norm` = log Z, without writing the log-probs `[n, V]`."""
    with torch.autocast(logits.device.type, enabled=False):  # it would round both operands of the product
        return norm - torch.linalg.vecdot(logits.softmax(dim=-1), logits)


class _FromLogits(torch.autograd.Function):
    """Logits `[n, V]` → log Z `[n]`, the entropy `[n]` (empty if not asked for), and the logits at each of `ids`,
    `[n, k]` each. Their gradient is written once: autograd's own functions would hold five tensors of n × V at a time
    instead of two, or three with the entropy.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, with_entropy: bool, *ids: Tensor) -> tuple[Tensor, ...]:
        norm = logits.logsumexp(dim=-1)
        entropy = entropy_of(logits, norm) if with_entropy else norm.new_empty(0)
        ctx.save_for_backward(logits, norm, entropy, *ids)
        return norm, entropy, *(logits.gather(-1, one) for one in ids)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_norm: Tensor, of_entropy: Tensor, *at_ids: Tensor) -> tuple[Tensor | None, ...]:
        logits, norm, entropy, *ids = ctx.saved_tensors
        written = (logits - norm[:, None]).exp_()
        if len(entropy):  # dH/dz = −p (log p + H)
            rise = (logits - (norm - entropy)[:, None]).mul_(-of_entropy[:, None])
            written.mul_(rise.add_(of_norm[:, None]))
        else:
            written.mul_(of_norm[:, None])
        for one, gradient in zip(ids, at_ids, strict=True):
            written.scatter_add_(-1, one, gradient)
        return written, None, *(None for _ in ids)


def _log_kept_mass(at_kept: Tensor, kept_ids: Tensor, norm: Tensor) -> Tensor:
    """log Σ_{v in K} p(v) `[n]` for the logits `at_kept [n, k]` at the ids of K, which are padded with −1.

    `norm` is log Z. A row without an id stands for the whole vocabulary, whose log mass is 0.
    """
    if kept_ids.shape[1] == 0:
        return torch.zeros_like(norm)
    none = kept_ids < 0
    whole = none.all(dim=-1)
    # Rows without any entry would have the gradient of log 0, which is not a number.
    inside = at_kept.masked_fill(none & ~whole[:, None], -torch.inf).logsumexp(dim=-1)
    return torch.where(whole, 0.0, inside - norm)


@cache
def _multiplies_to_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has products of 16-bit matrices with a float32 result (torch 2.8 and later, on CUDA)."""
    try:
        ones = torch.ones(16, 16, device=device, dtype=dtype)
        return bool((torch.mm(ones, ones.t(), out_dtype=torch.float32) == 16).all())
    except (RuntimeError, TypeError):  # the operator is not there, or not for this device
        return False


def _product(a: Tensor, b: Tensor) -> Tensor:
    """`a [n, m] @ b [m, k]` of two 16-bit matrices, summed and returned in float32."""
    if _multiplies_to_float32(a.device, a.dtype):
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()  # the same products, because those of two 16-bit numbers are exact in float32


class _RoundedLinear(torch.autograd.Function):
    """`hidden [n, H] @ weight [V, H].T` in float32 from 16-bit operands; the backward pass multiplies likewise.

    `rounded` is the weight in the operands' dtype, made once for all chunks.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, rounded: Tensor) -> Tensor:
        ctx.save_for_backward(hidden.to(rounded.dtype), rounded)
        ctx.dtypes = hidden.dtype, weight.dtype
        return _product(hidden.to(rounded.dtype), rounded.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, rounded = ctx.saved_tensors
        gradient = gradients[0].to(rounded.dtype)
        to_hidden = _product(gradient, rounded).to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None
        to_weight = _product(gradient.t(), hidden).to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return to_hidden, to_weight, None


class Head(nn.Module):
    """Log-probs from hidden states by a model's output embedding, `chunk` tokens at a time.

    `softcap` bounds logits as softcap · tanh(logits / softcap), for models with that in their config (Gemma).
    `temperature` divides them. Here it is 1 everywhere; other trainers take log-probs at the temperature of sampling.
    """

    def __init__(
        self, projection: nn.Module, softcap: float | None = None, chunk: int = 4096, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.projection, self.softcap, self.chunk, self.temperature = projection, softcap, chunk, temperature

    def rounded_weight(self, hidden_dtype: torch.dtype) -> Tensor | None:
        """The weight `[V, H]` rounded as `logits` needs it for hidden states of this dtype, or None in float32.

        A caller that computes logits many times with the same weights makes it once.
        """
        weight: Tensor = self.projection.weight  # type: ignore[assignment]
        device = weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_dtype
        return weight.detach().to(dtype) if dtype.itemsize == 2 else None

    def logits(self, hidden: Tensor, rounded: Tensor | None = None) -> Tensor:
        """Hidden states `[n, H]` → logits `[n, V]` in at least float32; `rounded` is that of `rounded_weight`."""
        rounded = self.rounded_weight(hidden.dtype) if rounded is None else rounded
        projection: Any = self.projection
        weight, bias = projection.weight, getattr(projection, "bias", None)
        with torch.autocast(hidden.device.type, enabled=False):  # it would round the logits
            if rounded is None:
                kind = torch.promote_types(torch.promote_types(weight.dtype, hidden.dtype), torch.float32)
                logits = linear(hidden.to(kind), weight.to(kind), None if bias is None else bias.to(kind))
            else:
                logits = _RoundedLinear.apply(hidden, weight, rounded)
                logits = logits if bias is None else logits + bias.float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1 else logits / self.temperature

    def _chunk(
        self,
        hidden: Tensor,
        rounded: Tensor | None,
        ids: Tensor,
        topk_ids: Tensor | None,
        entropy: bool,
        kept: SamplingMask | None,
    ) -> tuple[Tensor, ...]:
        logits = self.logits(hidden, rounded)
        kept_ids = None if kept is None else kept.padded().to(ids.device).long()
        wanted = (ids[:, None], topk_ids, None if kept_ids is None else kept_ids.clamp(min=0))
        norm, found, chosen, *others = _FromLogits.apply(logits, entropy, *(one for one in wanted if one is not None))
        columns = [chosen[:, 0] - norm, *([found] if entropy else [])]
        if kept_ids is not None:
            columns.append(_log_kept_mass(others.pop(), kept_ids, norm))
        if topk_ids is not None:
            columns.append(others.pop() - norm[:, None])
        return tuple(columns)

    def forward(
        self,
        hidden: Tensor,
        ids: Tensor,
        topk_ids: Tensor | None = None,
        entropy: bool = True,
        kept: SamplingMask | None = None,
    ) -> HeadOutput:
        """Log-probs (and entropy) of the ids `[n]` that follow `hidden [n, H]`, and, if given, of `topk_ids [n, k]`.

        `kept` is the sampling mask of the n tokens.
        """
        parts, rounded = [], self.rounded_weight(hidden.dtype)
        for start in range(0, max(len(ids), 1), self.chunk):
            part = slice(start, start + self.chunk)
            some = (None if topk_ids is None else topk_ids[part], entropy, None if kept is None else kept[part])
            inputs = (hidden[part], rounded, ids[part], *some)
            recompute = torch.is_grad_enabled() and len(ids) > self.chunk  # a single chunk is the peak either way
            parts.append(checkpoint(self._chunk, *inputs, use_reentrant=False) if recompute else self._chunk(*inputs))
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        topk_log_prob = columns.pop() if topk_ids is not None else None
        mass = columns.pop() if kept is not None else None
        return HeadOutput(columns[0], columns[1] if entropy else None, topk_ids, topk_log_prob, mass)

    @torch.no_grad()
    def top_k(self, hidden: Tensor, ids: Tensor, k: int, kept: SamplingMask | None = None) -> HeadOutput:
        """As `forward`, with the `k` most likely ids (all, if the vocabulary is smaller), without gradient."""
        parts, masses, rounded = [], [], self.rounded_weight(hidden.dtype)
        for start in range(0, max(len(ids), 1), self.chunk):
            logits = self.logits(hidden[start : start + self.chunk], rounded)
            norm = logits.logsumexp(dim=-1)
            top = logits.topk(min(k, logits.shape[-1]), dim=-1)
            chosen = logits.gather(-1, ids[start : start + self.chunk, None])[:, 0]
            parts.append((chosen - norm, entropy_of(logits, norm), top.indices, top.values - norm[:, None]))
            if kept is not None:
                kept_ids = kept[start : start + self.chunk].padded().to(ids.device).long()
                masses.append(_log_kept_mass(logits.gather(-1, kept_ids.clamp(min=0)), kept_ids, norm))
        log_prob, entropy, topk_ids, topk = (torch.cat(column) for column in zip(*parts, strict=True))
        return HeadOutput(log_prob, entropy, topk_ids, topk, torch.cat(masses) if masses else None)

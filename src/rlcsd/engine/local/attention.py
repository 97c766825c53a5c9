"""Attention masks in blocks of queries, so that memory grows linearly with length.

transformers writes a mask of rows × queries × keys wherever a row is padded, continues a cache or has a sliding window:
0.4 GB of booleans, and four times that in float32, for a response of 16k tokens after 8k. Here a large mask stays
unwritten (`MaskPattern`), and each block of queries writes its own part when it attends. Models get both functions
through the registries of masks and attention functions in transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_in_blocks"
MASK_ENTRIES = 2**22  # largest mask that is written at once: 4 MiB of booleans, 16 MiB in float32
_max_entries = MASK_ENTRIES
_query_positions: Tensor | None = None
_NO_GROUPS = nn.Module()  # stands for a module whose keys have as many heads as its queries


@contextmanager
def mask_entries(count: int) -> Iterator[None]:
    """Within this context, masks of more than `count` entries are written in blocks."""
    global _max_entries
    before, _max_entries = _max_entries, count
    try:
        yield
    finally:
        _max_entries = before


@contextmanager
def query_positions(positions: Tensor) -> Iterator[None]:
    """Within this context, each row has one query, which stands at its own position `[R]` among the keys.

    Models that take their masks from elsewhere see in `attention_mask` alone which keys a query attends to.
    """
    global _query_positions
    before, _query_positions = _query_positions, positions
    try:
        yield
    finally:
        _query_positions = before


@dataclass(frozen=True)
class MaskPattern:
    """A mask that has not been written: positions of queries and keys, and further arguments of `sdpa_mask`.

    `first_query` and `first_key` are positions in the whole sequence, padding included. `window` is the number of keys
    that a query may attend to, itself included. `causal` is False if queries may attend to later keys.
    """

    rows: int
    queries: int
    keys: int
    first_query: int
    first_key: int
    window: int | None
    causal: bool
    options: dict[str, Any]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Queries of each block, and the keys that any of them attends to."""
        size = max(1, _max_entries // (self.rows * self.keys))
        for start in range(0, self.queries, size):
            end = min(start + size, self.queries)
            ahead = self.first_query - self.first_key
            first = max(0, start + ahead - self.window + 1) if self.causal and self.window else 0
            yield slice(start, end), slice(first, min(self.keys, end + ahead) if self.causal else self.keys)

    def part(self, queries: slice, keys: slice) -> Tensor:
        """Bool `[rows, 1, queries, keys]`: which of these keys these queries attend to."""
        return sdpa_mask(
            batch_size=self.rows,
            q_length=queries.stop - queries.start,
            kv_length=keys.stop - keys.start,
            q_offset=self.first_query + queries.start,
            kv_offset=self.first_key + keys.start,
            allow_is_causal_skip=False,
            **self.options,
        )


def _padded_at_end(padding: Tensor | None, queries: int) -> bool:
    """Whether padding, if any, follows the tokens, where causality hides it."""
    if padding is None:
        return True
    tokens = padding[:, :queries]
    return bool(tokens[:, 0].all()) and bool((tokens[:, 1:] <= tokens[:, :-1]).all())


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    *,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **options: Any,
) -> Tensor | MaskPattern | None:
    """Replaces `sdpa_mask` of transformers: the same mask, None for plain causality, a pattern if it is large."""
    if _query_positions is not None:
        rows, keys = (torch.arange(count, device=_query_positions.device) for count in (batch_size, kv_length))
        allowed = options["mask_function"](rows[:, None, None, None], 0, _query_positions[:, None, None, None], keys)
        # In numbers, because kernels would turn booleans into numbers in each layer anew.
        device = allowed.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else options["dtype"]
        zeros = torch.zeros(batch_size, 1, 1, kv_length, dtype=dtype, device=allowed.device)
        return zeros.masked_fill(~allowed, -torch.inf)
    options |= {"attention_mask": attention_mask, "local_size": local_size}
    causal = allow_is_causal_skip  # transformers sets it exactly where it wants causality, within a window or not
    beginning = causal and q_length > 1 and int(q_offset) == 0
    if beginning and (local_size is None or q_length <= local_size) and _padded_at_end(attention_mask, q_length):
        return None
    if q_length == 1 or batch_size * q_length * kv_length <= _max_entries:
        options["allow_is_bidirectional_skip"] = allow_is_bidirectional_skip
        return sdpa_mask(batch_size, q_length, kv_length, q_offset, kv_offset, allow_is_causal_skip=causal, **options)
    return MaskPattern(batch_size, q_length, kv_length, int(q_offset), kv_offset, local_size, causal, options)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Replaces the sdpa attention of transformers, block by block where the mask is a pattern.

    `[B, heads, T, D]` → `[B, T, heads, D]`. With gradient each block is recomputed in the backward pass, because it
    would keep its mask until then, and keys and values once for each head that shares them.
    """
    if query.shape[2] == 1 and key.shape[1] < query.shape[1] and isinstance(attention_mask, Tensor):
        # Heads that share keys are as many queries of one head, so keys and values need not be repeated for each.
        grouped = query.reshape(len(query), key.shape[1], -1, query.shape[3])
        found, _ = sdpa_attention_forward(_NO_GROUPS, grouped, key, value, attention_mask, **options)
        return found.transpose(1, 2).reshape(len(query), 1, query.shape[1], -1), None
    if not isinstance(attention_mask, MaskPattern):
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output

    def attend(queries: slice, keys: slice, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa_attention_forward(module, q, k, v, attention_mask.part(queries, keys), **options)[0]

    recompute = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    outputs = []
    for queries, keys in attention_mask.blocks():
        block = (queries, keys, query[:, :, queries], key[:, :, keys], value[:, :, keys])
        if recompute:
            outputs.append(checkpoint(attend, *block, use_reentrant=False, preserve_rng_state=False))
        else:
            outputs.append(attend(*block))
    return torch.cat(outputs, dim=1), None


def attend_in_blocks(model: Any) -> None:
    """Make a transformers model use these functions, if it takes its attention from the registry."""
    if getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, mask)

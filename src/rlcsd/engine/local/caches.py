"""Rows side by side: padded matrices, and batches of like length within a token budget."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache

from ...records import Pair
from .model import Network, uses_sliding_window


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask `[R, longest]`, padded at the beginning (`left`) or at the end of each row."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(list(row), dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)


def predicts_response(pairs: Sequence[Pair], width: int, device: torch.device) -> Tensor:
    """Bool `[R, width]`: places of context + response, padded at the end, whose output predicts a response token."""
    contexts = torch.tensor([len(pair.context) for pair in pairs], device=device)[:, None]
    responses = torch.tensor([len(pair.response) for pair in pairs], device=device)[:, None]
    places = torch.arange(width, device=device)
    return (places >= contexts - 1) & (places < contexts + responses - 1)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places in order of length, cut so that count × longest stays within `budget`, if one alone does.

    Places of length 0 never share a batch with others.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        first_with_tokens = batch and lengths[batch[0]] == 0 < lengths[place]
        if batch and (first_with_tokens or (len(batch) + 1) * lengths[place] > budget):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def micro_batches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Some `rows` of those lengths, cut as `batches` does."""
    for batch in batches([lengths[row] for row in rows], budget):
        yield [rows[place] for place in batch]


# ------------------------------------------------------------------ prefixes
# Which contexts begin alike, decided on token ids alone.
#
# Simplified: contexts are grouped by one common threshold on the number of shared tokens, not by a tree of prefixes of
# any depth. Teacher prompts have the shape question + hint, so one level of sharing below the hint is all there is.

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """Contexts that share their first `root` tokens (0: nothing worth sharing)."""

    root: int
    contexts: tuple[Ids, ...]


def common_prefix(a: Ids, b: Ids) -> int:
    """How many first tokens two contexts share."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def families(contexts: Sequence[Ids]) -> list[Family]:
    """The contexts cut into families by the one threshold on shared tokens that saves most of them."""
    ordered = sorted(set(contexts))  # contexts that begin alike are neighbours now
    # A root leaves each context at least two tokens: one to come after it, and the last, which goes with the responses.
    shared = [min(common_prefix(a, b), len(a) - 2, len(b) - 2) for a, b in pairwise(ordered)]
    best = max(sorted(set(shared)), key=lambda threshold: _tokens_saved(shared, threshold), default=0)
    return [Family(root, tuple(ordered[first:end])) for first, end, root in _runs(shared, max(best, 1))]


def _runs(shared: Sequence[int], threshold: int) -> list[tuple[int, int, int]]:
    """Maximal runs of neighbours that share at least `threshold` tokens, as (first, end, tokens that all share).

    What a run shares is the least that two neighbours in it share, because the contexts are sorted.
    """
    runs, first = [], 0
    for place, common in enumerate([*shared, -1]):
        if common < threshold:
            runs.append((first, place + 1, min(shared[first:place], default=0)))
            first = place + 1
    return runs


def _tokens_saved(shared: Sequence[int], threshold: int) -> int:
    """A run of n contexts computes its root once instead of n times."""
    return sum((end - first - 1) * root for first, end, root in _runs(shared, threshold))


# ------------------------------------------------------------------ caches
# KV caches of prefixes: computed once, selected and extended as often as needed, with gradient where there is one.
#
# Rows of a cache are left-padded, so that the next token follows directly and sliding windows contain no padding.


@dataclass
class Prefix:
    """KV caches of several prefixes, left-padded: `mask [R, W]`, `lengths [R]` real tokens each."""

    cache: DynamicCache
    mask: Tensor
    lengths: Tensor


def prefill(network: Network, prefixes: Sequence[Sequence[int]], pad: int) -> Prefix:
    """Caches of the given prefixes from their first token on."""
    ids, mask = padded(prefixes, pad, network.device, left=True)
    cache = DynamicCache(config=network.core.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    network.hidden(cache, input_ids=ids, attention_mask=mask, position_ids=positions)
    return Prefix(cache, mask, mask.sum(1))


def selected(network: Network, prefix: Prefix, rows: Tensor) -> Prefix:
    """A copy of some rows, a row as often as it is named; the prefix itself serves again."""
    if uses_sliding_window(network.core.config):  # such a cache knows how much it has forgotten, so it is copied whole
        cache = copy.deepcopy(prefix.cache)
        cache.batch_select_indices(rows)
    else:
        cache = DynamicCache(config=network.core.config)
        for index, layer in enumerate(prefix.cache.layers):
            cache.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
    return Prefix(cache, prefix.mask[rows], prefix.lengths[rows])


def response_block(pair: Pair) -> Ids:
    """The tokens after a context's cache that predict the response: the context's last and all but the response's
    last."""
    return (pair.context[-1], *pair.response[:-1])


def extend(network: Network, prefix: Prefix, blocks: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Hidden states `[R, B, H]` of one block of tokens after each prefix, and the blocks' mask; the caches grow in
    place."""
    ids, mask = padded(blocks, pad, network.device, left=False)
    positions = prefix.lengths[:, None] + torch.arange(ids.shape[1], device=network.device)
    seen = torch.cat([prefix.mask, mask], dim=1)
    return network.hidden(prefix.cache, input_ids=ids, attention_mask=seen, position_ids=positions), mask


def appended(network: Network, prefix: Prefix, blocks: Sequence[Sequence[int]], pad: int) -> Prefix:
    """The prefixes with a block appended to each, every row rotated so that all its padding is in front again."""
    _, block = extend(network, prefix, blocks, pad)
    mask = torch.cat([prefix.mask, block], dim=1)
    width, empty = mask.shape[1], block.shape[1] - block.sum(1)
    rotated = (torch.arange(width, device=mask.device)[None] - empty[:, None]) % width
    cache = DynamicCache(config=network.core.config)
    for index, layer in enumerate(prefix.cache.layers):
        place = rotated[:, None, :, None].expand_as(layer.keys)
        cache.update(layer.keys.gather(2, place), layer.values.gather(2, place), index)
    return Prefix(cache, mask.gather(1, rotated), prefix.lengths + block.sum(1))


class SharedPrompts:
    """Prompts computed once for all their responses in a mini-batch, however it is cut into micro-batches.

    Micro-batches run backward as far as the caches, which collect their gradients in float32; `backward` then takes the
    sum through the prompts.
    """

    def __init__(self, network: Network, prompts: Sequence[Ids], pad: int) -> None:
        self.network, self.pad = network, pad
        self.row_of = {prompt: row for row, prompt in enumerate(prompts)}
        self.prefix = prefill(network, [prompt[:-1] for prompt in prompts], pad)
        self.computed = [tensor for layer in self.prefix.cache.layers for tensor in (layer.keys, layer.values)]
        self.leaves = [
            t.detach().to(torch.promote_types(t.dtype, torch.float32)).requires_grad_() for t in self.computed
        ]

    @staticmethod
    def possible(network: Network, pairs: Sequence[Pair]) -> bool:
        """Not under gradient checkpointing (no cache is kept), with sliding windows, or for a prompt of one token."""
        checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in network.core.modules())
        windows = uses_sliding_window(network.core.config)
        return bool(pairs) and not windows and not checkpointed and all(len(pair.context) > 1 for pair in pairs)

    def hidden(self, pairs: Sequence[Pair]) -> Tensor:
        """Hidden states that predict each response token, `[n, H]`, of pairs with these prompts."""
        rows = torch.tensor([self.row_of[pair.context] for pair in pairs], device=self.network.device)
        cache = DynamicCache(config=self.network.core.config)
        held = [
            leaf.to(tensor.dtype).index_select(0, rows) for leaf, tensor in zip(self.leaves, self.computed, strict=True)
        ]
        for index, (keys, values) in enumerate(zip(held[::2], held[1::2], strict=True)):
            cache.update(keys, values, index)
        prompts = Prefix(cache, self.prefix.mask[rows], self.prefix.lengths[rows])
        hidden, mask = extend(self.network, prompts, [response_block(pair) for pair in pairs], self.pad)
        return hidden[mask.bool()]

    def backward(self) -> None:
        """Through the prompts, with the gradients that the micro-batches left. To be called once, after them."""
        reached = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(self.computed, self.leaves, strict=True)
            if leaf.grad is not None
        ]
        if reached:
            torch.autograd.backward(
                [tensor for tensor, _ in reached], [grad.to(tensor.dtype) for tensor, grad in reached]
            )

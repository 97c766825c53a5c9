"""Rows side by side, and KV caches of prefixes that several rows share.

Three layers, each used by the next: padded matrices and batches within a token budget; which contexts begin alike,
decided on token ids alone; and caches of prefixes, computed once, then selected and extended as often as needed, with
gradient where there is one. Rows of a cache are padded on the left, so that the next token follows directly and sliding
windows contain no padding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache

from ...records import Pair
from .model import Network, sliding_windows

Ids = tuple[int, ...]

# ------------------------------------------------------------------ batches


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask `[R, W]`, W the longest row, padded at the start (`left`) or at the end of each row."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(list(row), dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in order of length, cut so that count × longest stays within `budget` unless one alone exceeds it.

    Indices of length 0 never share a batch with others.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        first_with_tokens = batch and lengths[batch[0]] == 0 < lengths[index]
        if batch and (first_with_tokens or (len(batch) + 1) * lengths[index] > budget):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def micro_batches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """`batches` of some `rows` only; `lengths` are those of all rows."""
    for batch in batches([lengths[row] for row in rows], budget):
        yield [rows[index] for index in batch]


# ------------------------------------------------------------------ shared prefixes


@dataclass(frozen=True)
class Family:
    """Contexts that share their first `root` tokens (0: nothing worth sharing)."""

    root: int
    contexts: tuple[Ids, ...]


def common_prefix(a: Ids, b: Ids) -> int:
    """The number of leading tokens that two contexts share."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def families(contexts: Sequence[Ids]) -> list[Family]:
    """The distinct contexts in families with a common prefix.

    Simplified: one threshold on the number of shared tokens, the one that saves most tokens, in place of a tree of
    prefixes of any depth. Teacher prompts have the shape question + hint, so one level of sharing is all there is.
    """
    ordered = sorted(set(contexts))  # contexts that begin alike are neighbours now
    # A root leaves each context at least two tokens: one to follow it, and the last, which goes with the responses.
    shared = [min(common_prefix(a, b), len(a) - 2, len(b) - 2) for a, b in pairwise(ordered)]
    best = max(sorted(set(shared)), key=lambda threshold: _tokens_saved(shared, threshold), default=0)
    return [Family(root, tuple(ordered[first:end])) for first, end, root in _runs(shared, max(best, 1))]


def _runs(shared: Sequence[int], threshold: int) -> list[tuple[int, int, int]]:
    """Maximal runs of neighbours that share at least `threshold` tokens, as (first, end, tokens that all share).

    Because the contexts are sorted, what a run shares is the least that two neighbours in it share.
    """
    runs, first = [], 0
    for index, common in enumerate([*shared, -1]):
        if common < threshold:
            runs.append((first, index + 1, min(shared[first:index], default=0)))
            first = index + 1
    return runs


def _tokens_saved(shared: Sequence[int], threshold: int) -> int:
    """Tokens saved by computing the root of a run of n contexts once instead of n times."""
    return sum((end - first - 1) * root for first, end, root in _runs(shared, threshold))


# ------------------------------------------------------------------ caches


@dataclass
class Prefix:
    """KV caches of R prefixes, left-padded to W: `mask [R, W]`, `lengths [R]` real tokens each."""

    cache: DynamicCache
    mask: Tensor
    lengths: Tensor


def prefill(network: Network, prefixes: Sequence[Sequence[int]], pad: int) -> Prefix:
    """Caches of the given prefixes, from their first token on."""
    ids, mask = padded(prefixes, pad, network.device, left=True)
    cache = DynamicCache(config=network.core.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    network.hidden(cache, input_ids=ids, attention_mask=mask, position_ids=positions)
    return Prefix(cache, mask, mask.sum(1))


def selected(network: Network, prefix: Prefix, rows: Tensor) -> Prefix:
    """A copy of some rows, each as often as it is named; `prefix` stays as it was."""
    if sliding_windows(network.core.config):  # such a cache also counts what it has dropped, so it is copied whole
        cache = copy.deepcopy(prefix.cache)
        cache.batch_select_indices(rows)
    else:
        cache = DynamicCache(config=network.core.config)
        for index, layer in enumerate(prefix.cache.layers):
            cache.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
    return Prefix(cache, prefix.mask[rows], prefix.lengths[rows])


def response_block(pair: Pair) -> Ids:
    """The tokens that predict the response, given the cache of all but the context's last token.

    These are the context's last token and all of the response but its last.
    """
    return (pair.context[-1], *pair.response[:-1])


def extend(network: Network, prefix: Prefix, blocks: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Hidden states `[R, T, H]` of one block of tokens after each prefix, and the blocks' mask `[R, T]`.

    The caches grow in place.
    """
    ids, mask = padded(blocks, pad, network.device, left=False)
    positions = prefix.lengths[:, None] + torch.arange(ids.shape[1], device=network.device)
    seen = torch.cat([prefix.mask, mask], dim=1)
    return network.hidden(prefix.cache, input_ids=ids, attention_mask=seen, position_ids=positions), mask


def appended(network: Network, prefix: Prefix, blocks: Sequence[Sequence[int]], pad: int) -> Prefix:
    """The prefixes with a block appended to each, every row rotated so that its padding is on the left again."""
    _, block = extend(network, prefix, blocks, pad)
    mask = torch.cat([prefix.mask, block], dim=1)
    width, empty = mask.shape[1], block.shape[1] - block.sum(1)
    rotated = (torch.arange(width, device=mask.device)[None] - empty[:, None]) % width
    cache = DynamicCache(config=network.core.config)
    for index, layer in enumerate(prefix.cache.layers):
        source = rotated[:, None, :, None].expand_as(layer.keys)
        cache.update(layer.keys.gather(2, source), layer.values.gather(2, source), index)
    return Prefix(cache, mask.gather(1, rotated), prefix.lengths + block.sum(1))


class SharedPrompts:
    """Prompts computed once, with gradient, for all their responses in a mini-batch.

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
        """False under gradient checkpointing (no cache is kept), with sliding windows, for a prompt of one token."""
        checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in network.core.modules())
        windows = sliding_windows(network.core.config)
        return bool(pairs) and not windows and not checkpointed and all(len(pair.context) > 1 for pair in pairs)

    def hidden(self, pairs: Sequence[Pair]) -> Tensor:
        """Hidden states `[n, H]` that predict each response token of pairs with these prompts."""
        rows = torch.tensor([self.row_of[pair.context] for pair in pairs], device=self.network.device)
        cache = DynamicCache(config=self.network.core.config)
        expanded = (  # not a list, which would hold every layer while the responses are computed
            leaf.to(tensor.dtype).index_select(0, rows) for leaf, tensor in zip(self.leaves, self.computed, strict=True)
        )
        for index, (keys, values) in enumerate(zip(expanded, expanded, strict=True)):
            cache.update(keys, values, index)
        prompts = Prefix(cache, self.prefix.mask[rows], self.prefix.lengths[rows])
        hidden, mask = extend(self.network, prompts, [response_block(pair) for pair in pairs], self.pad)
        return hidden[mask.bool()]

    def backward(self) -> None:
        """Backpropagate the micro-batches' gradients through the prompts; called once, after all of them."""
        reached = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(self.computed, self.leaves, strict=True)
            if leaf.grad is not None and tensor.requires_grad  # not of keys below which nothing is trained
        ]
        if reached:
            torch.autograd.backward(
                [tensor for tensor, _ in reached], [grad.to(tensor.dtype) for tensor, grad in reached]
            )

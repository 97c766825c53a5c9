"""Log-probs of given responses behind given contexts, each distinct prefix computed once.

Three levels: roots (a question that stands before several hints), contexts (one hint), and the responses behind each.
Every level runs in batches of like length within a token budget, so memory is bounded whatever the batch and hardly
anything is padding; the result does not depend on the cut beyond rounding.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from ..base import Pair, Scores
from .head import HeadOutput
from .network import Network
from .prefixes import Family, Ids, batches, families


@dataclass
class _Prefix:
    """KV caches of several prefixes, left-padded: `mask [R, W]`, `lengths [R]` real tokens each."""

    cache: DynamicCache
    mask: Tensor
    lengths: Tensor


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(list(row), dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)


def _prefill(network: Network, prefixes: Sequence[Sequence[int]], pad: int) -> _Prefix:
    """Caches of the given prefixes from their first token on."""
    ids, mask = _padded(prefixes, pad, network.device, left=True)
    cache = DynamicCache(config=network.core.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    network.hidden(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    return _Prefix(cache, mask, mask.sum(1))


def _selected(network: Network, prefix: _Prefix, rows: Tensor) -> _Prefix:
    """A copy of some rows, a row as often as it is named; the prefix itself serves again."""
    if _slides(network):  # such a cache knows how much it has forgotten, so it is copied whole
        cache = copy.deepcopy(prefix.cache)
        cache.batch_select_indices(rows)
    else:
        cache = DynamicCache(config=network.core.config)
        for index, layer in enumerate(prefix.cache.layers):
            cache.update(layer.keys.index_select(0, rows), layer.values.index_select(0, rows), index)
    return _Prefix(cache, prefix.mask[rows], prefix.lengths[rows])


def _slides(network: Network) -> bool:
    """Does any layer attend within a sliding window? Padding between a root and its hints would tear it."""
    kinds = getattr(network.core.config.get_text_config(), "layer_types", None) or []
    return any(kind != "full_attention" for kind in kinds)


def _behind(network: Network, prefix: _Prefix, blocks: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Hidden states `[R, B, H]` of one block of tokens behind each prefix, and the blocks' mask; the caches grow in place."""
    ids, mask = _padded(blocks, pad, network.device, left=False)
    positions = prefix.lengths[:, None] + torch.arange(ids.shape[1], device=network.device)
    hidden = network.hidden(
        input_ids=ids,
        attention_mask=torch.cat([prefix.mask, mask], dim=1),
        position_ids=positions,
        past_key_values=prefix.cache,
        use_cache=True,
    )
    return hidden, mask


def _lengthened(network: Network, prefix: _Prefix, blocks: Sequence[Sequence[int]], pad: int) -> _Prefix:
    """The prefixes with a block behind each, rows turned so that all padding stands in front again."""
    _, block = _behind(network, prefix, blocks, pad)
    mask = torch.cat([prefix.mask, block], dim=1)
    width, behind = mask.shape[1], block.shape[1] - block.sum(1)
    turned = (torch.arange(width, device=mask.device)[None] - behind[:, None]) % width
    cache = DynamicCache(config=network.core.config)
    for index, layer in enumerate(prefix.cache.layers):
        place = turned[:, None, :, None].expand_as(layer.keys)
        cache.update(layer.keys.gather(2, place), layer.values.gather(2, place), index)
    return _Prefix(cache, mask.gather(1, turned), prefix.lengths + block.sum(1))


def _contexts(network: Network, contexts: Sequence[Ids], pad: int, budget: int) -> Iterator[tuple[list[Ids], _Prefix | None]]:
    """All contexts in batches, with the caches of all but their last tokens (None where that is the only one)."""
    found = [Family(0, tuple(set(contexts)))] if _slides(network) else families(contexts)
    for chosen in batches([family.root for family in found], budget):
        roots = None
        if found[chosen[0]].root:
            roots = _prefill(network, [found[place].contexts[0][: found[place].root] for place in chosen], pad)
        members = [(row, context) for row, place in enumerate(chosen) for context in found[place].contexts]
        for some in batches([len(context) - 1 for _, context in members], budget):
            batch = [members[index][1] for index in some]
            if len(batch[0]) == 1:
                yield batch, None
            elif roots is None:
                yield batch, _prefill(network, [context[:-1] for context in batch], pad)
            else:
                begun = _selected(network, roots, torch.tensor([members[index][0] for index in some], device=network.device))
                rest = [context[length:-1] for context, length in zip(batch, begun.lengths.tolist(), strict=True)]
                yield batch, _lengthened(network, begun, rest, pad)


def _hidden(network: Network, pairs: Sequence[Pair], contexts: _Prefix | None, origin: Sequence[int], pad: int) -> Tensor:
    """Hidden states that predict each response token, `[n, H]`, pair by pair; `origin` is each pair's row in `contexts`."""
    # The last context token predicts the first response token, so it goes with the response.
    blocks = [(pair.context[-1], *pair.response[:-1]) for pair in pairs]
    if contexts is None:
        ids, mask = _padded(blocks, pad, network.device, left=False)
        hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    else:
        rows = torch.tensor(origin, device=network.device)
        hidden, mask = _behind(network, _selected(network, contexts, rows), blocks, pad)
    return hidden[mask.bool()]


@torch.no_grad()
def score(
    network: Network, pairs: Sequence[Pair], *, pad_id: int, budget: int = 32768, top_k: int = 0, support: Tensor | None = None
) -> Scores:
    """Scores of all response tokens, pairs laid end to end; see `engine.base.Scores`.

    `support [N, k]` is in the order of the pairs. Responses must not be empty.
    """
    device = network.device
    lengths = [len(pair.response) for pair in pairs]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    order: list[Tensor] = []
    parts: list[HeadOutput] = []

    behind: dict[Ids, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        behind[pair.context].append(place)
    with network.precision():
        for batch, contexts in _contexts(network, list(behind), pad_id, budget):
            rows = [(row, place) for row, context in enumerate(batch) for place in behind[context]]
            width = len(batch[-1]) - 1
            for some in batches([width + lengths[place] for _, place in rows], budget):
                places = [rows[index][1] for index in some]
                tokens = torch.cat([torch.arange(starts[p], starts[p + 1]) for p in places]).to(device)
                ids = torch.tensor([token for p in places for token in pairs[p].response], device=device)
                hidden = _hidden(network, [pairs[p] for p in places], contexts, [rows[index][0] for index in some], pad_id)
                if top_k:
                    parts.append(network.head.top_k(hidden, ids, top_k))  # type: ignore[operator,union-attr]
                else:
                    parts.append(network.head(hidden, ids, None if support is None else support[tokens]))  # type: ignore[operator]
                order.append(tokens)
    inverse = torch.argsort(torch.cat(order))

    def ordered(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)[inverse]

    log_prob, entropy = ordered("log_prob"), ordered("entropy")
    assert log_prob is not None and entropy is not None
    return Scores(log_prob, entropy, ordered("support"), ordered("support_log_prob"))

"""Log-probs of given responses after given contexts, and the store of top-k ids that scoring makes.

Each distinct prefix is computed once, on three levels: roots (a question that several hints follow), contexts (one
hint), and the responses after each. Every level runs in batches of similar length within a token budget, so memory is
bounded whatever the batch is, with little padding; the result does not depend on the cut beyond rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layout import Layout, all_masked, joined_masks
from ...methods.contrast import marginal_log_prob
from ...records import HintKind, Pair, TokenBatch, TopKHandle
from ..head import HeadOutput
from .caches import Family, Ids, Prefix, appended, batches, extend, families, padded, prefill, response_block, selected
from .model import Network, sliding_windows


@torch.no_grad()
def score(
    network: Network,
    pairs: Sequence[Pair],
    *,
    pad_id: int,
    budget: int = 32768,
    top_k: int = 0,
    topk_ids: Tensor | None = None,
) -> HeadOutput:
    """Log-probs and entropies `[N]` of all response tokens, pairs end to end.

    With `top_k`, also the k most likely ids at each token, `[N, k]`, and their log-probs; with `topk_ids [N, k]`, the
    log-probs at those ids; with a sampling mask in any pair, the log of the kept mass `[N]`. Responses must not be
    empty. No forward pass has more than `budget` tokens, padding included, unless one row alone has more.
    """
    device = network.device
    layout = Layout(tuple(len(pair.response) for pair in pairs), device)
    order: list[Tensor] = []
    parts: list[HeadOutput] = []
    pairs = all_masked(pairs)
    pairs_after: dict[Ids, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        pairs_after[pair.context].append(index)
    with network.precision():
        for batch, contexts in _contexts(network, list(pairs_after), pad_id, budget):
            rows = [(row, index) for row, context in enumerate(batch) for index in pairs_after[context]]
            width = len(batch[-1]) - 1
            for some in batches([width + layout.lengths[index] for _, index in rows], budget):
                chosen = [rows[i][1] for i in some]
                tokens = layout.tokens(chosen)
                ids = torch.tensor([token for index in chosen for token in pairs[index].response], device=device)
                context_rows = [rows[i][0] for i in some]
                some_pairs = [pairs[index] for index in chosen]
                hidden = _hidden(network, some_pairs, contexts, context_rows, pad_id)
                kept = joined_masks(some_pairs)
                if top_k:
                    part = network.head.top_k(hidden, ids, top_k, kept)
                else:
                    part = network.head(hidden, ids, None if topk_ids is None else topk_ids[tokens], kept=kept)
                parts.append(part)
                order.append(tokens)
    return _concatenated(parts, torch.argsort(torch.cat(order)))


def _concatenated(parts: Sequence[HeadOutput], order: Tensor) -> HeadOutput:
    """The parts' columns end to end, then permuted by `order [N]`."""

    def column(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)[order]

    return HeadOutput(*(column(name) for name in HeadOutput.__annotations__))  # type: ignore[arg-type]


def _contexts(
    network: Network, contexts: Sequence[Ids], pad: int, budget: int
) -> Iterator[tuple[list[Ids], Prefix | None]]:
    """All contexts in batches, with the caches of all but their last tokens (None where that is the only one)."""
    # In a sliding window the padding that a shared root brings would push tokens out of reach.
    windows = sliding_windows(network.core.config)
    groups = [Family(0, tuple(set(contexts)))] if windows else families(contexts)
    for chosen in batches([family.root for family in groups], budget):
        roots = None
        if groups[chosen[0]].root:
            roots = prefill(network, [groups[index].contexts[0][: groups[index].root] for index in chosen], pad)
        members = [(row, context) for row, index in enumerate(chosen) for context in groups[index].contexts]
        for some in batches([len(context) - 1 for _, context in members], budget):
            batch = [members[index][1] for index in some]
            if len(batch[0]) == 1:
                yield batch, None
            elif roots is None:
                yield batch, prefill(network, [context[:-1] for context in batch], pad)
            else:
                begun = selected(
                    network, roots, torch.tensor([members[index][0] for index in some], device=network.device)
                )
                rest = [context[length:-1] for context, length in zip(batch, begun.lengths.tolist(), strict=True)]
                yield batch, appended(network, begun, rest, pad)


def _hidden(
    network: Network, pairs: Sequence[Pair], contexts: Prefix | None, context_rows: Sequence[int], pad: int
) -> Tensor:
    """Hidden states `[n, H]` that predict each response token; `context_rows` is each pair's row in `contexts`."""
    blocks = [response_block(pair) for pair in pairs]
    if contexts is None:
        ids, mask = padded(blocks, pad, network.device, left=False)
        hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    else:
        rows = torch.tensor(context_rows, device=network.device)
        hidden, mask = extend(network, selected(network, contexts, rows), blocks, pad)
    return hidden[mask.bool()]


# ------------------------------------------------------------------ top-k ids


@dataclass
class _Entry:
    """`ids [M, k]` of the M tokens of a handle's responses, and the log-probs `[M, k]` at them that are known."""

    ids: Tensor
    teacher: Tensor | None = None
    contrast: Tensor | None = None


class TopKStore:
    """The top-k ids of one engine, and log-probs at them, by handle.

    Made by scoring, read by the update, released by the trainer.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, ids: Tensor, lengths: Sequence[int], teacher: Tensor | None) -> TopKHandle:
        """A handle to new `ids [M, k]` of responses of these lengths.

        `teacher [M, k]` are the teacher's log-probs, if the ids are its most likely tokens.
        """
        self._made += 1
        self._entries[self._made] = _Entry(ids, teacher)
        return TopKHandle(self._made, tuple(lengths))

    def ids_at(self, handle: TopKHandle, rows: Sequence[int]) -> Tensor:
        """Ids of some of the handle's responses end to end, `[sum of their lengths, k]`."""
        return torch.cat([self._entries[handle.key].ids[span] for span in _spans(handle, rows)])

    def keep(self, handle: TopKHandle, rows: Sequence[int], log_probs: Tensor, hints: HintKind) -> None:
        """Keep log-probs at the ids of some responses, whose contexts show these hints.

        `correct`: every response once, in order; these are the teacher's. `wrong`: a response as often as it has wrong
        hints; their marginal is kept (`methods.contrast.marginal_log_prob`).
        """
        entry = self._entries[handle.key]
        if hints == "correct":
            assert list(rows) == list(range(len(handle.lengths)))
            entry.teacher = log_probs
            return
        slots: dict[int, int] = dict.fromkeys(rows, 0)
        columns = log_probs.new_zeros(*entry.ids.shape, max(map(list(rows).count, slots), default=1))
        valid = torch.zeros(len(columns), 1, columns.shape[-1], dtype=torch.bool, device=columns.device)
        start = 0
        for row, span in zip(rows, _spans(handle, rows), strict=True):
            size = handle.lengths[row]
            columns[span, :, slots[row]], valid[span, :, slots[row]] = log_probs[start : start + size], True
            slots[row], start = slots[row] + 1, start + size
        entry.contrast = marginal_log_prob(columns, valid)

    def log_probs(self, handle: TopKHandle) -> tuple[Tensor | None, Tensor | None]:
        """The known log-probs `[M, k]`: the teacher's, and the marginal under wrong hints."""
        entry = self._entries[handle.key]
        return entry.teacher, entry.contrast

    def set_log_probs(self, handle: TopKHandle, teacher: Tensor | None, contrast: Tensor | None) -> None:
        """Set log-probs `[M, k]` that another store computed."""
        entry = self._entries[handle.key]
        entry.teacher, entry.contrast = teacher, contrast

    def release(self, handle: TopKHandle) -> None:
        self._entries.pop(handle.key, None)

    def columns(self, batch: TokenBatch, tokens: Tensor) -> TokenBatch:
        """`batch[tokens]` with the columns of its `topk_handle`, if it has one; 0 at tokens that are not `hinted`."""
        part = batch[tokens]
        if batch.topk_handle is None:
            return part
        entry = self._entries[batch.topk_handle.key]
        index = (batch.hinted.cumsum(0) - 1)[tokens].clamp(min=0)

        def column(values: Tensor | None) -> Tensor | None:
            return None if values is None else torch.where(part.hinted[:, None], values[index], 0)

        return part.with_columns(
            topk_ids=column(entry.ids), teacher_topk=column(entry.teacher), contrast_topk=column(entry.contrast)
        )


def _spans(handle: TopKHandle, rows: Sequence[int]) -> list[slice]:
    layout = Layout(handle.lengths)
    return [layout.span(row) for row in rows]

"""Log-probs of given responses after given contexts, each distinct prefix computed once.

Three levels: roots (a question that several hints follow), contexts (one hint), and the responses after each.
Every level runs in batches of like length within a token budget, so memory is bounded whatever the batch and hardly
anything is padding; the result does not depend on the cut beyond rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layout import Layout
from ...methods.contrast import marginal_log_prob
from ...records import Pair, TokenBatch, TopKHandle
from ..head import HeadOutput
from .caches import Family, Ids, Prefix, appended, batches, extend, families, padded, prefill, response_block, selected
from .model import Network, uses_sliding_window


def _contexts(
    network: Network, contexts: Sequence[Ids], pad: int, budget: int
) -> Iterator[tuple[list[Ids], Prefix | None]]:
    """All contexts in batches, with the caches of all but their last tokens (None where that is the only one)."""
    groups = [Family(0, tuple(set(contexts)))] if uses_sliding_window(network.core.config) else families(contexts)
    for chosen in batches([family.root for family in groups], budget):
        roots = None
        if groups[chosen[0]].root:
            roots = prefill(network, [groups[place].contexts[0][: groups[place].root] for place in chosen], pad)
        members = [(row, context) for row, place in enumerate(chosen) for context in groups[place].contexts]
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
    network: Network, pairs: Sequence[Pair], contexts: Prefix | None, origin: Sequence[int], pad: int
) -> Tensor:
    """Hidden states that predict each response token, `[n, H]`, pair by pair; `origin` is each pair's row in
    `contexts`."""
    blocks = [response_block(pair) for pair in pairs]
    if contexts is None:
        ids, mask = padded(blocks, pad, network.device, left=False)
        hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    else:
        rows = torch.tensor(origin, device=network.device)
        hidden, mask = extend(network, selected(network, contexts, rows), blocks, pad)
    return hidden[mask.bool()]


@torch.no_grad()
def score(
    network: Network,
    pairs: Sequence[Pair],
    *,
    pad_id: int,
    budget: int = 32768,
    top_k: int = 0,
    support: Tensor | None = None,
) -> HeadOutput:
    """Log-probs and entropies of all response tokens, and those at a support if asked for; pairs laid end to end.

    `support [N, k]` is in the order of the pairs. Responses must not be empty.
    """
    device = network.device
    layout = Layout(tuple(len(pair.response) for pair in pairs), device)
    order: list[Tensor] = []
    parts: list[HeadOutput] = []

    places_of: dict[Ids, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        places_of[pair.context].append(place)
    with network.precision():
        for batch, contexts in _contexts(network, list(places_of), pad_id, budget):
            rows = [(row, place) for row, context in enumerate(batch) for place in places_of[context]]
            width = len(batch[-1]) - 1
            for some in batches([width + layout.lengths[place] for _, place in rows], budget):
                places = [rows[index][1] for index in some]
                tokens = layout.tokens(places)
                ids = torch.tensor([token for p in places for token in pairs[p].response], device=device)
                hidden = _hidden(
                    network, [pairs[p] for p in places], contexts, [rows[index][0] for index in some], pad_id
                )
                if top_k:
                    parts.append(network.head.top_k(hidden, ids, top_k))
                else:
                    parts.append(network.head(hidden, ids, None if support is None else support[tokens]))
                order.append(tokens)
    inverse = torch.argsort(torch.cat(order))

    def ordered(name: str) -> Tensor | None:
        columns = [getattr(part, name) for part in parts]
        return None if columns[0] is None else torch.cat(columns)[inverse]

    log_prob, entropy = ordered("log_prob"), ordered("entropy")
    assert log_prob is not None and entropy is not None
    return HeadOutput(log_prob, entropy, ordered("topk_ids"), ordered("topk_log_prob"))


# ------------------------------------------------------------------ supports
# Top-k supports and the log-probs at them: made by scoring, read by the update, released by the trainer.


@dataclass
class _Held:
    """`ids [M, k]` of the M tokens of a support's rows; log-probs `[M, k]` at them under correct and wrong hints."""

    ids: Tensor
    teacher: Tensor | None = None
    wrong: Tensor | None = None


class TopKStore:
    """The supports of one engine, by key."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, ids: Tensor, lengths: Sequence[int], teacher: Tensor | None) -> TopKHandle:
        """A handle to new `ids [M, k]`; `teacher [M, k]` if they were the teacher's most likely tokens."""
        self._made += 1
        self._held[self._made] = _Held(ids, teacher)
        return TopKHandle(self._made, tuple(lengths))

    def ids_at(self, support: TopKHandle, rows: Sequence[int]) -> Tensor:
        """Token ids for responses scored at the given rows, `[sum of their lengths, k]`."""
        return torch.cat([self._held[support.key].ids[span] for span in _spans(support, rows)])

    def keep(self, support: TopKHandle, rows: Sequence[int], log_probs: Tensor) -> None:
        """Log-probs of responses scored at the given rows: the teacher's first, then those under wrong hints."""
        held = self._held[support.key]
        if held.teacher is None:
            assert list(rows) == list(range(len(support.lengths)))
            held.teacher = log_probs
            return
        slots: dict[int, int] = dict.fromkeys(rows, 0)
        wrong = log_probs.new_zeros(*held.ids.shape, max(map(list(rows).count, slots), default=1))
        valid = torch.zeros(len(wrong), 1, wrong.shape[-1], dtype=torch.bool, device=wrong.device)
        start = 0
        for row, span in zip(rows, _spans(support, rows), strict=True):
            size = support.lengths[row]
            wrong[span, :, slots[row]], valid[span, :, slots[row]] = log_probs[start : start + size], True
            slots[row], start = slots[row] + 1, start + size
        held.wrong = marginal_log_prob(wrong, valid)

    def log_probs(self, support: TopKHandle) -> tuple[Tensor | None, Tensor | None]:
        """The log-probs `[M, k]` at a support that are known: the teacher's, and the marginal under wrong hints."""
        held = self._held[support.key]
        return held.teacher, held.wrong

    def set_log_probs(self, support: TopKHandle, teacher: Tensor | None, wrong: Tensor | None) -> None:
        """Log-probs `[M, k]` that were computed elsewhere."""
        held = self._held[support.key]
        held.teacher, held.wrong = teacher, wrong

    def release(self, support: TopKHandle) -> None:
        self._held.pop(support.key, None)

    def columns(self, batch: TokenBatch, tokens: Tensor) -> TokenBatch:
        """`evidence[tokens]` with the support's columns; 0 at tokens that have no support (see `Evidence.hinted`)."""
        part = batch[tokens]
        if batch.topk_handle is None:
            return part
        held = self._held[batch.topk_handle.key]
        places = (batch.hinted.cumsum(0) - 1)[tokens]

        def column(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            return torch.where(part.hinted[:, None], values[places.clamp(min=0)], 0)

        return part.with_columns(
            topk_ids=column(held.ids), teacher_topk=column(held.teacher), contrast_topk=column(held.wrong)
        )


def _spans(support: TopKHandle, rows: Sequence[int]) -> list[slice]:
    layout = Layout(support.lengths)
    return [layout.span(row) for row in rows]

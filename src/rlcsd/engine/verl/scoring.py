"""Scoring on one rank: with shared prefixes over gathered weights, or every row in full over sharded ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from ...records import Pair
from ..head import HeadOutput
from ..local import scoring
from .messages import Columns, Rows, ScoreTask
from .model import FILLER
from .rank import Rank, chunks

_BLANK = 0  # the id that pads rows; it is masked everywhere


def score(rank: Rank, task: ScoreTask) -> Columns:
    """See `engine.base.Scorer.score`, for this rank's rows."""
    pairs = task.rows.pairs()
    held = None if task.key is None or task.top_k else rank.held.get(task.key)
    support = rank.supports.ids_at(held, task.places) if held is not None and pairs else None
    out = _scored(rank, pairs, task.who, task.top_k, support)
    if out is None:
        return Columns(torch.zeros(0), torch.zeros(0))
    if task.top_k and task.key is not None:
        assert out.topk_ids is not None
        theirs = out.topk_log_prob if task.who == "teacher" else None
        lengths = [len(pair.response) for pair in pairs]
        rank.held[task.key] = rank.supports.add(out.topk_ids, lengths, theirs)
    elif held is not None:
        assert out.topk_log_prob is not None
        rank.supports.keep(held, task.places, out.topk_log_prob)
    assert out.entropy is not None
    return Columns(out.log_prob.float().cpu(), out.entropy.float().cpu(), rank.network.computed)


@torch.no_grad()
def _scored(rank: Rank, pairs: Sequence[Pair], who: str, top_k: int, support: Tensor | None) -> HeadOutput | None:
    rank.network.computed = 0
    with rank.ready("eval"), rank.shadows[who].in_place() if who in rank.shadows else nullcontext():
        return figures(rank, pairs, top_k, support)


def figures(rank: Rank, pairs: Sequence[Pair], top_k: int = 0, support: Tensor | None = None) -> HeadOutput | None:
    """Under the weights that are in place; None for a rank without rows, which takes part all the same."""
    found = (_shared if rank.settings.share_prefixes else _packed)(rank, pairs, top_k, support)
    rank.network.reshard()
    return found


def _shared(rank: Rank, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
    """By the local engine's scorer, which computes every distinct prefix once."""

    def columns() -> dict[str, Tensor]:
        budget = rank.settings.score_tokens
        out = scoring.score(rank.network, pairs, pad_id=_BLANK, budget=budget, top_k=top_k, support=support)
        return {name: column for name, column in vars(out).items() if column is not None}

    with rank.network.gathered():
        if not pairs:
            return None
        found = rank.network.inside(columns)
        return HeadOutput(*(found.get(name) for name in HeadOutput.__annotations__))


def _packed(rank: Rank, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
    """Every row in full, several rows to a forward pass."""
    lengths = [len(pair.response) for pair in pairs]
    parts: list[tuple[list[int], HeadOutput]] = []
    given = None if support is None else support.split(lengths)
    for chunk in chunks(pairs, range(len(pairs)), rank.settings.score_tokens):
        if not chunk:
            rank.network.packed([FILLER])
            continue
        rows = [pairs[row] for row in chunk]
        at = None if given is None else torch.cat([given[row] for row in chunk])
        parts.append((chunk, rank.network.packed(rows, top_k=top_k, support=at)))
    return _in_order(parts, lengths) if parts else None


def _in_order(parts: Sequence[tuple[list[int], HeadOutput]], lengths: Sequence[int]) -> HeadOutput:
    """The columns of several micro-batches, row after row."""
    order = [row for chunk, _ in parts for row in chunk]

    def column(name: str) -> Tensor | None:
        pieces = [getattr(out, name) for _, out in parts]
        if pieces[0] is None:
            return None
        rows = torch.cat(pieces).split([lengths[row] for row in order])
        return torch.cat([piece for _, piece in sorted(zip(order, rows, strict=True), key=lambda one: one[0])])

    return HeadOutput(*(column(name) for name in HeadOutput.__annotations__))  # type: ignore[arg-type]


@torch.no_grad()
def check(rank: Rank, rows: Rows) -> tuple[Tensor, Tensor]:
    """Log-probs of the same responses by a plain pass, row by row, and as the update computes them."""
    pairs = rows.pairs()
    with rank.ready("eval"):
        with rank.network.gathered():
            plain = rank.network.inside(_plain, rank, pairs)
        update = rank.network.packed(pairs, entropy=False).log_prob
        rank.network.reshard()
    return plain.float().cpu(), update.float().cpu()


def _plain(rank: Rank, pairs: Sequence[Pair]) -> Tensor:
    columns = []
    for pair in pairs:
        ids = torch.tensor([[*pair.context, *pair.response]], device=rank.network.device)
        logits = rank.network.core.forward(input_ids=ids, use_cache=False).logits[0, len(pair.context) - 1 : -1]
        columns.append(logits.float().log_softmax(-1).gather(-1, ids[0, len(pair.context) :, None])[:, 0])
    return torch.cat(columns)

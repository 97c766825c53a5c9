"""The score stage: log-probs of the same response ids under each hint, laid out as the columns of a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..engine.interface import Scorer
from ..layout import Layout
from ..methods.base import Method
from ..methods.contrast import marginal_log_prob
from ..records import Pair, Sample, TokenBatch, TrainingExample


def with_old_log_probs(engine: Scorer, rows: Sequence[Sequence[TrainingExample]]) -> list[list[TrainingExample]]:
    """The rows of each group with the policy's own log-probs in every sample.

    Asks the engine only about samples whose sampler did not compute them. To be called before the first update of a
    rollout batch, because the old policy is the one that sampled.
    """
    missing = [row.pair for group in rows for row in group if row.rollout.sample.log_probs is None]
    if not missing:
        return [list(group) for group in rows]
    scores = engine.score(missing, "policy")
    lengths = [len(pair.response) for pair in missing]
    columns = zip(scores.log_prob.cpu().split(lengths), scores.entropy.cpu().split(lengths), strict=True)

    def completed(row: TrainingExample) -> TrainingExample:
        if row.rollout.sample.log_probs is not None:
            return row
        log_probs, entropies = next(columns)
        sample = replace(row.rollout.sample, log_probs=log_probs, entropies=entropies)
        return replace(row, rollout=replace(row.rollout, sample=sample))

    return [[completed(row) for row in group] for group in rows]


def correction_weights(sample: Sample, cap: float | None) -> Tensor:
    """w_t = min(π_old / π_rollout, cap) per token `[T]`: truncated importance sampling.

    π_rollout is the distribution that was drawn from, filters and temperature included. None: weights of 1.
    """
    if cap is None or sample.log_probs is None:
        return torch.ones(len(sample))
    return (sample.log_probs.double() - sample.sampled_log_probs.double()).exp().clamp(max=cap).float()


def build_token_batch(
    engine: Scorer, rows: Sequence[TrainingExample], method: Method, correction_cap: float | None = None
) -> TokenBatch:
    """Everything the method asks for, over the N response tokens of `rows`, before `Method.prepare`.

    Every sample needs the policy's own log-probs (see `with_old_log_probs`). A support that the method needs is made
    here and stays with the engine; release `Evidence.held` after the update.
    """
    samples = [row.rollout.sample for row in rows]
    layout = Layout(tuple(len(sample) for sample in samples), engine.device)
    old = [sample.log_probs for sample in samples if sample.log_probs is not None]
    assert len(old) == len(samples)
    batch = TokenBatch(
        rollout=layout.per_row(range(len(rows)), torch.long),
        advantage=layout.per_row([row.advantage for row in rows]),
        old_log_prob=torch.cat(old).to(engine.device),
        correction=torch.cat([correction_weights(sample, correction_cap) for sample in samples]).to(engine.device),
        hinted=layout.per_row([row.teacher_prompt is not None for row in rows], torch.bool),
        is_correct=layout.per_row([row.rollout.is_correct for row in rows], torch.bool),
    )
    if not method.hinted:
        return batch
    batch = _without_teacher(batch, method)
    asked = [index for index, row in enumerate(rows) if row.teacher_prompt is not None]
    if not asked:
        return batch
    if method.topk_from == "none":
        return _sampled_tokens(engine, rows, asked, method, batch, layout)
    return _with_support(engine, rows, asked, method, batch, layout)


def _without_teacher(batch: TokenBatch, method: Method) -> TokenBatch:
    """The teacher's columns for rows whose teacher is not asked: zeros, and no valid wrong hint."""
    zeros = torch.zeros_like(batch.old_log_prob)
    batch = batch.with_columns(teacher_log_prob=zeros, teacher_entropy=zeros)
    if method.needs_contrast:
        batch = batch.with_columns(
            contrast_log_prob=zeros[:, None], contrast_valid=torch.zeros_like(batch.hinted)[:, None]
        )
    return batch


def _correct_pairs(rows: Sequence[TrainingExample], asked: Sequence[int]) -> list[Pair]:
    return [Pair(rows[row].teacher_prompt or (), rows[row].rollout.sample.ids) for row in asked]


Slots = list[tuple[int, int, Pair]]  # (row, which of its hints of one kind, pair)


def _slots(
    rows: Sequence[TrainingExample], asked: Sequence[int], kind: Literal["contrast_prompts", "extra_prompts"]
) -> Slots:
    return [
        (row, slot, Pair(context, rows[row].rollout.sample.ids))
        for row in asked
        for slot, context in enumerate(getattr(rows[row], kind))
    ]


def _spread(batch: TokenBatch, values: Tensor) -> Tensor:
    """Values at the hinted tokens → `[N]`, 0 elsewhere."""
    column = values.new_zeros(len(batch))
    column[batch.hinted] = values
    return column


def _sampled_tokens(
    engine: Scorer,
    rows: Sequence[TrainingExample],
    asked: Sequence[int],
    method: Method,
    batch: TokenBatch,
    layout: Layout,
) -> TokenBatch:
    """One call for all hints, so that a hint which several rollouts share is computed once."""
    wrong = _slots(rows, asked, "contrast_prompts") if method.needs_contrast else []
    more = _slots(rows, asked, "extra_prompts")
    pairs = [pair for _, _, pair in (*more, *wrong)]
    scores = engine.score([*_correct_pairs(rows, asked), *pairs])
    ends = [int(batch.hinted.sum()), sum(len(pair.response) for _, _, pair in more)]
    first, further, theirs = scores.log_prob.tensor_split(torch.tensor(ends).cumsum(0))
    batch = batch.with_columns(
        teacher_log_prob=_spread(batch, first), teacher_entropy=_spread(batch, scores.entropy[: ends[0]])
    )
    if more:
        batch = _averaged(batch, *_laid_out(batch, more, further, layout))
    return _with_wrong(batch, wrong, theirs, layout) if method.needs_contrast else batch


def _averaged(batch: TokenBatch, further: Tensor, valid: Tensor) -> TokenBatch:
    """`teacher` marginalised over the first correct hint and the further ones, `[N, K]` where valid."""
    assert batch.teacher_log_prob is not None
    shown = torch.cat([batch.teacher_log_prob[:, None], further], dim=1)
    return batch.with_columns(
        teacher_log_prob=marginal_log_prob(shown, torch.cat([batch.hinted[:, None], valid], dim=1))
    )


def _with_support(
    engine: Scorer,
    rows: Sequence[TrainingExample],
    asked: Sequence[int],
    method: Method,
    batch: TokenBatch,
    layout: Layout,
) -> TokenBatch:
    """The student's or the teacher's top-k tokens, and the teacher's log-probs at them under each hint."""
    support = None
    if method.topk_from == "student":
        support = engine.score([rows[row].pair for row in asked], "policy", top_k=method.top_k).topk
    top_k = method.top_k if support is None else 0
    scores = engine.score(_correct_pairs(rows, asked), top_k=top_k, support=support)
    held = support or scores.topk
    batch = batch.with_columns(
        teacher_log_prob=_spread(batch, scores.log_prob),
        teacher_entropy=_spread(batch, scores.entropy),
        topk_handle=held,
    )
    if not method.needs_contrast:
        return batch
    wrong = _slots(rows, asked, "contrast_prompts")
    places = {row: place for place, row in enumerate(asked)}  # the support has rows for the hinted alone
    theirs = engine.score([pair for _, _, pair in wrong], support=held, rows=[places[row] for row, _, _ in wrong])
    return _with_wrong(batch, wrong, theirs.log_prob, layout)


def _with_wrong(batch: TokenBatch, wrong: Slots, log_prob: Tensor, layout: Layout) -> TokenBatch:
    columns, valid = _laid_out(batch, wrong, log_prob, layout)
    return batch.with_columns(contrast_log_prob=columns, contrast_valid=valid)


def _laid_out(batch: TokenBatch, slots: Slots, log_prob: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Log-probs of the slots' pairs, end to end, as `[N, K]`, and which of them are there."""
    width = 1 + max(slot for _, slot, _ in slots)
    columns = log_prob.new_zeros(len(batch), width)
    valid = torch.zeros(len(batch), width, dtype=torch.bool, device=log_prob.device)
    starts, begin = layout.starts, 0
    for row, slot, pair in slots:
        end = begin + len(pair.response)
        span = slice(starts[row], starts[row + 1])
        columns[span, slot], valid[span, slot] = log_prob[begin:end], True
        begin = end
    return columns, valid

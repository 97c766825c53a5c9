"""The score stage: log-probs of the same response ids under each hint, laid out as the evidence of a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..engine.base import Scorer
from ..layout import Layout
from ..methods.base import Method
from ..methods.contrast import marginal_log_prob
from ..records import Evidence, Pair, Row, Sample


def with_old_log_probs(engine: Scorer, rows: Sequence[Sequence[Row]]) -> list[list[Row]]:
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

    def completed(row: Row) -> Row:
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


def gather_evidence(
    engine: Scorer, rows: Sequence[Row], method: Method, correction_cap: float | None = None
) -> Evidence:
    """Everything the method asks for, over the N response tokens of `rows`, before `Method.prepare`.

    Every sample needs the policy's own log-probs (see `with_old_log_probs`). A support that the method needs is made
    here and stays with the engine; release `Evidence.held` after the update.
    """
    samples = [row.rollout.sample for row in rows]
    layout = Layout(tuple(len(sample) for sample in samples), engine.device)
    old = [sample.log_probs for sample in samples if sample.log_probs is not None]
    assert len(old) == len(samples)
    evidence = Evidence(
        rollout=layout.per_row(range(len(rows)), torch.long),
        advantage=layout.per_row([row.advantage for row in rows]),
        reward=layout.per_row([row.rollout.reward for row in rows]),
        old_log_prob=torch.cat(old).to(engine.device),
        correction=torch.cat([correction_weights(sample, correction_cap) for sample in samples]).to(engine.device),
        hinted=layout.per_row([row.correct is not None for row in rows], torch.bool),
        correct=layout.per_row([row.rollout.correct for row in rows], torch.bool),
    )
    if not method.hinted:
        return evidence
    evidence = _without_teacher(evidence, method)
    asked = [index for index, row in enumerate(rows) if row.correct is not None]
    if not asked:
        return evidence
    if method.support == "none":
        return _sampled_tokens(engine, rows, asked, method, evidence, layout)
    return _with_support(engine, rows, asked, method, evidence, layout)


def _without_teacher(evidence: Evidence, method: Method) -> Evidence:
    """The teacher's columns for rows whose teacher is not asked: zeros, and no valid wrong hint."""
    zeros = torch.zeros_like(evidence.old_log_prob)
    evidence = evidence.with_columns(teacher=zeros, teacher_entropy=zeros)
    if method.contrast:
        evidence = evidence.with_columns(wrong=zeros[:, None], wrong_valid=torch.zeros_like(evidence.hinted)[:, None])
    return evidence


def _correct_pairs(rows: Sequence[Row], asked: Sequence[int]) -> list[Pair]:
    return [Pair(rows[row].correct or (), rows[row].rollout.sample.ids) for row in asked]


Slots = list[tuple[int, int, Pair]]  # (row, which of its hints of one kind, pair)


def _slots(rows: Sequence[Row], asked: Sequence[int], kind: Literal["wrong", "more"]) -> Slots:
    return [
        (row, slot, Pair(context, rows[row].rollout.sample.ids))
        for row in asked
        for slot, context in enumerate(getattr(rows[row], kind))
    ]


def _spread(evidence: Evidence, values: Tensor) -> Tensor:
    """Values at the hinted tokens → `[N]`, 0 elsewhere."""
    column = values.new_zeros(len(evidence))
    column[evidence.hinted] = values
    return column


def _sampled_tokens(
    engine: Scorer, rows: Sequence[Row], asked: Sequence[int], method: Method, evidence: Evidence, layout: Layout
) -> Evidence:
    """One call for all hints, so that a hint which several rollouts share is computed once."""
    wrong = _slots(rows, asked, "wrong") if method.contrast else []
    more = _slots(rows, asked, "more")
    pairs = [pair for _, _, pair in (*more, *wrong)]
    scores = engine.score([*_correct_pairs(rows, asked), *pairs])
    ends = [int(evidence.hinted.sum()), sum(len(pair.response) for _, _, pair in more)]
    first, further, theirs = scores.log_prob.tensor_split(torch.tensor(ends).cumsum(0))
    evidence = evidence.with_columns(
        teacher=_spread(evidence, first), teacher_entropy=_spread(evidence, scores.entropy[: ends[0]])
    )
    if more:
        evidence = _averaged(evidence, *_laid_out(evidence, more, further, layout))
    return _with_wrong(evidence, wrong, theirs, layout) if method.contrast else evidence


def _averaged(evidence: Evidence, further: Tensor, valid: Tensor) -> Evidence:
    """`teacher` marginalised over the first correct hint and the further ones, `[N, K]` where valid."""
    assert evidence.teacher is not None
    shown = torch.cat([evidence.teacher[:, None], further], dim=1)
    return evidence.with_columns(teacher=marginal_log_prob(shown, torch.cat([evidence.hinted[:, None], valid], dim=1)))


def _with_support(
    engine: Scorer, rows: Sequence[Row], asked: Sequence[int], method: Method, evidence: Evidence, layout: Layout
) -> Evidence:
    """The student's or the teacher's top-k tokens, and the teacher's log-probs at them under each hint."""
    support = None
    if method.support == "student":
        support = engine.score([rows[row].pair for row in asked], "policy", top_k=method.top_k).support
    top_k = method.top_k if support is None else 0
    scores = engine.score(_correct_pairs(rows, asked), top_k=top_k, support=support)
    held = support or scores.support
    evidence = evidence.with_columns(
        teacher=_spread(evidence, scores.log_prob), teacher_entropy=_spread(evidence, scores.entropy), held=held
    )
    if not method.contrast:
        return evidence
    wrong = _slots(rows, asked, "wrong")
    places = {row: place for place, row in enumerate(asked)}  # the support has rows for the hinted alone
    theirs = engine.score([pair for _, _, pair in wrong], support=held, rows=[places[row] for row, _, _ in wrong])
    return _with_wrong(evidence, wrong, theirs.log_prob, layout)


def _with_wrong(evidence: Evidence, wrong: Slots, log_prob: Tensor, layout: Layout) -> Evidence:
    columns, valid = _laid_out(evidence, wrong, log_prob, layout)
    return evidence.with_columns(wrong=columns, wrong_valid=valid)


def _laid_out(evidence: Evidence, slots: Slots, log_prob: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Log-probs of the slots' pairs, end to end, as `[N, K]`, and which of them are there."""
    width = 1 + max(slot for _, slot, _ in slots)
    columns = log_prob.new_zeros(len(evidence), width)
    valid = torch.zeros(len(evidence), width, dtype=torch.bool, device=log_prob.device)
    starts, begin = layout.starts, 0
    for row, slot, pair in slots:
        end = begin + len(pair.response)
        span = slice(starts[row], starts[row + 1])
        columns[span, slot], valid[span, slot] = log_prob[begin:end], True
        begin = end
    return columns, valid

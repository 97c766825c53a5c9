"""The score stage: log-probs of the same response ids under each hint, as the columns of a mini-batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..engine.interface import Scorer
from ..layout import Layout
from ..methods.base import Method
from ..methods.contrast import marginal_log_prob
from ..records import Pair, TokenBatch, TrainingExample, among_kept
from .correction import RolloutCorrection


def with_old_log_probs(engine: Scorer, examples: Sequence[Sequence[TrainingExample]]) -> list[list[TrainingExample]]:
    """The examples of each group with the policy's own log-probs in every sample.

    Scores only samples whose sampler did not compute them. Called before the first update of a rollout batch, because
    the old policy is the one that sampled.
    """
    missing = [one.pair for group in examples for one in group if one.rollout.sample.log_probs is None]
    if not missing:
        return [list(group) for group in examples]
    scores = engine.score(missing, "policy")
    lengths = [len(pair.response) for pair in missing]
    mass = torch.zeros_like(scores.log_prob) if scores.log_kept_mass is None else scores.log_kept_mass
    found = (scores.log_prob, scores.entropy, mass)
    columns = zip(*(column.cpu().split(lengths) for column in found), strict=True)

    def completed(example: TrainingExample) -> TrainingExample:
        if example.rollout.sample.log_probs is not None:
            return example
        log_probs, entropies, mass = next(columns)
        sample = replace(example.rollout.sample, log_probs=log_probs, entropies=entropies)
        if sample.sampling_mask is not None:
            sample = replace(sample, log_kept_mass=mass)
        return replace(example, rollout=replace(example.rollout, sample=sample))

    return [[completed(one) for one in group] for group in examples]


def build_token_batch(
    engine: Scorer,
    examples: Sequence[TrainingExample],
    method: Method,
    correction: RolloutCorrection | None = None,
) -> TokenBatch:
    """All columns that the method needs over the N response tokens of `examples`, before `Method.prepare`.

    Every sample needs the policy's own log-probs (see `with_old_log_probs`). `correction` gives the weights of tokens,
    by default 1. Top-k ids that the method needs are made here and stay with the engine; release
    `TokenBatch.topk_handle` after the update.
    """
    samples = [one.rollout.sample for one in examples]
    layout = Layout(tuple(len(sample) for sample in samples), engine.device)
    weights = torch.cat([(correction or RolloutCorrection()).weights(sample) for sample in samples])
    batch = TokenBatch(
        rollout=layout.per_row(range(len(examples)), torch.long),
        advantage=layout.per_row([one.advantage for one in examples]),
        old_log_prob=torch.cat([sample.old_log_probs for sample in samples]).to(engine.device),
        correction=weights.to(engine.device),
        hinted=layout.per_row([one.teacher_prompt is not None for one in examples], torch.bool),
        is_correct=layout.per_row([one.rollout.is_correct for one in examples], torch.bool),
    )
    if method.needs_entropy and all(sample.entropies is not None for sample in samples):
        entropies = [sample.entropies for sample in samples if sample.entropies is not None]
        batch = batch.with_columns(entropy=torch.cat(entropies).to(engine.device))
    if not method.hinted:
        return batch
    batch = _blank_teacher(batch, method)
    hinted = {row: one for row, one in enumerate(examples) if one.teacher_prompt is not None}
    if not hinted:
        return batch
    score = _score_sampled_tokens if method.topk_from == "none" else _score_topk
    batch = score(engine, hinted, method, batch, layout)
    assert batch.teacher_log_prob is not None
    return batch.with_columns(teacher_log_prob=among_kept(batch.teacher_log_prob, batch.teacher_log_kept_mass))


def _blank_teacher(batch: TokenBatch, method: Method) -> TokenBatch:
    """The teacher's columns for examples without a teacher: zeros, and no valid wrong hint."""
    zeros = torch.zeros_like(batch.old_log_prob)
    batch = batch.with_columns(teacher_log_prob=zeros, teacher_entropy=zeros)
    if method.needs_contrast:
        none = torch.zeros_like(batch.hinted)[:, None]
        batch = batch.with_columns(contrast_log_prob=zeros[:, None], contrast_valid=none)
    return batch


@dataclass(frozen=True)
class _HintPair:
    """A pair to be scored, and its column: example `row` of the mini-batch under its hint number `slot`."""

    row: int
    slot: int
    pair: Pair


Hinted = Mapping[int, TrainingExample]  # the examples that have a teacher, by their row in the mini-batch


def _hint_pairs(hinted: Hinted, kind: Literal["extra_prompts", "contrast_prompts"]) -> list[_HintPair]:
    """Pairs of the hinted examples with each of their prompts of one kind.

    Wrong hints are compared with correct ones alone, over the whole vocabulary, so they need no sampling mask.
    """
    masked = kind == "extra_prompts"
    return [
        _HintPair(row, slot, _pair(prompt, example, masked))
        for row, example in hinted.items()
        for slot, prompt in enumerate(getattr(example, kind))
    ]


def _pair(prompt: tuple[int, ...], example: TrainingExample, masked: bool = True) -> Pair:
    sample = example.rollout.sample
    return Pair(prompt, sample.ids, sample.sampling_mask if masked else None)


def _teacher_pairs(hinted: Hinted) -> list[Pair]:
    return [_pair(example.teacher_prompt or (), example) for example in hinted.values()]


def _score_sampled_tokens(
    engine: Scorer, hinted: Hinted, method: Method, batch: TokenBatch, layout: Layout
) -> TokenBatch:
    """One call for all hints, so that a hint which several rollouts share is computed once."""
    extra = _hint_pairs(hinted, "extra_prompts")
    wrong = _hint_pairs(hinted, "contrast_prompts") if method.needs_contrast else []
    scores = engine.score([*_teacher_pairs(hinted), *(one.pair for one in (*extra, *wrong))])
    parts = int(batch.hinted.sum()), sum(len(one.pair.response) for one in extra)
    teacher, under_extra, under_wrong = _split(scores.log_prob, *parts)

    def averaged(teacher: Tensor, under_extra: Tensor) -> Tensor:
        column = _at_hinted(batch, teacher)
        return _averaged(batch, column, *_by_slot(extra, under_extra, layout)) if extra else column

    mass = scores.log_kept_mass
    batch = batch.with_columns(
        teacher_log_prob=averaged(teacher, under_extra),
        teacher_entropy=_at_hinted(batch, scores.entropy[: len(teacher)]),
        teacher_log_kept_mass=None if mass is None else averaged(*_split(mass, *parts)[:2]),
    )
    return _with_contrast(batch, wrong, under_wrong, layout) if method.needs_contrast else batch


def _score_topk(engine: Scorer, hinted: Hinted, method: Method, batch: TokenBatch, layout: Layout) -> TokenBatch:
    """The student's or the teacher's top-k tokens, and the teacher's log-probs at them under each hint."""
    handle = None
    if method.topk_from == "student":
        handle = engine.score([example.pair for example in hinted.values()], "policy", top_k=method.top_k).topk
    new = method.top_k if handle is None else 0
    scores = engine.score(_teacher_pairs(hinted), top_k=new, topk_handle=handle)
    handle = handle or scores.topk
    batch = batch.with_columns(
        teacher_log_prob=_at_hinted(batch, scores.log_prob),
        teacher_entropy=_at_hinted(batch, scores.entropy),
        teacher_log_kept_mass=None if scores.log_kept_mass is None else _at_hinted(batch, scores.log_kept_mass),
        topk_handle=handle,
    )
    if not method.needs_contrast:
        return batch
    wrong = _hint_pairs(hinted, "contrast_prompts")
    position = {row: position for position, row in enumerate(hinted)}  # the handle's rows are the hinted examples
    pairs, rows = [one.pair for one in wrong], [position[one.row] for one in wrong]
    scores = engine.score(pairs, topk_handle=handle, rows=rows, hints="wrong")
    return _with_contrast(batch, wrong, scores.log_prob, layout)


# ------------------------------------------------------------------ from scores to columns


def _split(values: Tensor, *lengths: int) -> list[Tensor]:
    """Consecutive parts of the given lengths, and the rest."""
    ends = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    return [values[start:end] for start, end in pairwise([*ends, len(values)])]


def _at_hinted(batch: TokenBatch, values: Tensor) -> Tensor:
    """Values of the hinted tokens → `[N]`, 0 elsewhere."""
    column = values.new_zeros(len(batch))
    column[batch.hinted] = values
    return column


def _by_slot(pairs: Sequence[_HintPair], log_prob: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Log-probs of the pairs, end to end, as `[N, K]`, and a mask `[N, K]` of the entries that exist."""
    width = 1 + max(one.slot for one in pairs)
    columns = log_prob.new_zeros(len(layout), width)
    valid = torch.zeros(len(layout), width, dtype=torch.bool, device=log_prob.device)
    for one, values in zip(pairs, log_prob.split([len(one.pair.response) for one in pairs]), strict=True):
        tokens = layout.span(one.row)
        columns[tokens, one.slot], valid[tokens, one.slot] = values, True
    return columns, valid


def _averaged(batch: TokenBatch, first: Tensor, extra: Tensor, valid: Tensor) -> Tensor:
    """Log of the mean `[N]` of probabilities under the first correct hint, `[N]`, and the extra ones, `[N, K]` where
    valid."""
    under_each = torch.cat([first[:, None], extra], dim=1)
    all_valid = torch.cat([batch.hinted[:, None], valid], dim=1)
    return marginal_log_prob(under_each, all_valid)


def _with_contrast(batch: TokenBatch, wrong: Sequence[_HintPair], log_prob: Tensor, layout: Layout) -> TokenBatch:
    columns, valid = _by_slot(wrong, log_prob, layout)
    return batch.with_columns(contrast_log_prob=columns, contrast_valid=valid)

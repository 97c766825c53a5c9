"""`rollouts.jsonl`: a few groups of each step with hints and the signal on each token, for people and for `report/`.

One record a group. Every rollout has `tokens`, the number of recorded tokens, and columns of exactly that length:
`ids`, `start` and `end` (character offsets of the token in `text`), `log_prob` and `entropy` of the policy that
sampled, and as far as the method has them `teacher`, `wrong`, `contrast`, `selected`, `final_advantage` (what the
clipped surrogate sees), `credit` (where it is no advantage: the factor of srpo's divergence) and `weight` (relative to
the plain mean over all tokens of the mini-batch, which gives 1). A character whose bytes are spread over several
tokens belongs to each of them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..decoding import token_offsets
from ..methods.base import CreditMethod, Method
from ..methods.contrast import marginal_log_prob
from ..records import Group, Hint, Rollout, TokenBatch, TrainingExample
from ..trainer import StepResult

SCHEMA = 3
TOKENS_PER_STEP = 16_384  # recorded at most, which is about 1.5 MB a step
Columns = dict[str, list[Any]]


def rollout_records(result: StepResult, tokenizer: Any, groups: int, method: Method) -> list[dict[str, Any]]:
    """The first `groups` groups of a step, ready for JSON.

    Fewer if they have more than `TOKENS_PER_STEP` tokens; if the first alone has more, its rollouts are cut.
    """
    kept: list[dict[str, Any]] = []
    signals, left = _signals(result, method, groups), TOKENS_PER_STEP
    for number, group in enumerate(result.groups[:groups]):
        left -= sum(len(rollout.sample) for rollout in group.rollouts)
        if left < 0 and kept:
            break
        most = TOKENS_PER_STEP // len(group.rollouts) if left < 0 else TOKENS_PER_STEP
        kept.append(_group_record(result.step, number, group, signals, tokenizer, most))
    return kept


def sample_completion(result: StepResult) -> dict[str, Any]:
    """One response of a step to look at, from another group at each step."""
    group = result.groups[result.step % len(result.groups)]
    rollout = group.rollouts[result.step % len(group.rollouts)]
    problem = group.problem
    return {
        "question": problem.question,
        "answer": problem.answer,
        "response": rollout.text,
        "reward": rollout.reward,
    }


def _signals(result: StepResult, method: Method, groups: int) -> dict[tuple[int, int], tuple[TrainingExample, Columns]]:
    """Row and signals of each updated rollout of the first `groups` groups, by its group and its place in it."""
    signals = {}
    for rows, batch in zip(result.examples, result.token_batches, strict=True):
        start = 0
        for row in rows:
            end = start + len(row.rollout.sample)
            if row.group < groups:
                columns = _columns(batch[slice(start, end)], method, len(batch))
                signals[row.group, row.index] = (row, {name: _plain(values) for name, values in columns.items()})
            start = end
    return signals


def _columns(batch: TokenBatch, method: Method, tokens: int) -> dict[str, Tensor]:
    """The signals of one rollout; `tokens` is the number of tokens of its mini-batch."""
    hinted = bool(batch.hinted.any())
    columns = {name: getattr(batch, name) for name in ("contrast", "selected")}
    if not isinstance(method, CreditMethod):  # where it is an advantage, it is the final one
        columns["credit"] = batch.credit
    if type(method).clipped_advantage is not Method.clipped_advantage:
        columns["final_advantage"] = method.clipped_advantage(batch.old_log_prob, batch)
    if batch.weight is not None:
        columns["weight"] = batch.weight * tokens
    if hinted:
        columns["teacher"] = batch.teacher_log_prob
        if batch.contrast_log_prob is not None and batch.contrast_valid is not None:
            columns["wrong"] = marginal_log_prob(batch.contrast_log_prob, batch.contrast_valid)
    return {name: values for name, values in columns.items() if values is not None}


def _group_record(
    step: int,
    number: int,
    group: Group,
    signals: dict[tuple[int, int], tuple[TrainingExample, Columns]],
    tokenizer: Any,
    most: int,
) -> dict[str, Any]:
    rollouts = []
    for place, (rollout, advantage) in enumerate(zip(group.rollouts, group.advantages, strict=True)):
        row, columns = signals.get((number, place), (None, {}))
        rollouts.append(_rollout_record(rollout, advantage, row, columns, tokenizer, most))
    return {
        "schema": SCHEMA,
        "step": step,
        "group": number,
        "kind": group.problem.group,
        "question": group.problem.question,
        "history": [{"role": role, "content": text} for role, text in group.problem.history],
        "answer": group.problem.answer,
        "rollouts": rollouts,
    }


def _rollout_record(
    rollout: Rollout, advantage: float, row: TrainingExample | None, signals: Columns, tokenizer: Any, most: int
) -> dict[str, Any]:
    ids = rollout.sample.ids[:most]
    text, offsets = token_offsets(tokenizer, ids)
    columns: Columns = {"ids": list(ids), "start": [a for a, _ in offsets], "end": [b for _, b in offsets]}
    sample = rollout.sample if row is None else row.rollout.sample
    if sample.log_probs is not None:
        columns["log_prob"] = _plain(sample.log_probs)
    if sample.entropies is not None:
        columns["entropy"] = _plain(sample.entropies)
    columns = {name: values[: len(ids)] for name, values in (columns | signals).items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if set(lengths.values()) != {len(ids)}:
        raise RuntimeError(f"columns of unequal length in a rollout record: {lengths}")
    record: dict[str, Any] = {
        "text": text,
        "reward": rollout.reward,
        "correct": rollout.is_correct,
        "parts": dict(rollout.verdict.parts),
        "feedback": rollout.verdict.feedback,
        "advantage": advantage,
        "boxed": rollout.boxed,
        "finished": rollout.sample.finished,
        "updated": row is not None,
        "tokens": len(ids),
        "cut": len(rollout.sample) - len(ids),
        **columns,
    }
    if row is not None and row.hints is not None:
        record["hints"] = {
            "correct": _hint_record(row.hints.correct),
            "wrong": [_hint_record(hint) for hint in row.hints.wrong],
            **({"more": [_hint_record(hint) for hint in row.hints.extra_correct]} if row.hints.extra_correct else {}),
        }
    return record


def _plain(values: Tensor) -> list[Any]:
    return [round(value, 6) if isinstance(value, float) else value for value in values.tolist()]


def _hint_record(hint: Hint) -> dict[str, Any]:
    return {"place": hint.index, "answer": hint.answer, "text": hint.text, "kind": hint.kind}

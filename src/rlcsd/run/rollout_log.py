"""Records of `rollouts.jsonl`: some groups of each step with their hints and the signal on each token.

A `Run` writes them; `report/` and `rlcsd inspect` read them. There is one record per group. Every rollout has `tokens`,
the number of recorded tokens, and columns of that length: `ids`, `start` and `end` (character offsets of the token in
`text`), `log_prob` and `entropy` of the policy that sampled, with sampling masks `log_kept_mass` and
`teacher_log_kept_mass` (the log of the kept tokens' total probability under policy and teacher; the other log-probs are
over the whole vocabulary), and those of the following that the method has:
`teacher` and `wrong` (log-probs under the correct hint, and the marginal under wrong ones), `contrast`, `selected`,
`final_advantage` (what the clipped surrogate uses), `credit` (where it is no advantage: the factor of srpo's
divergence) and `weight` (relative to the plain mean over all tokens of the mini-batch, which gives 1). A character
whose bytes are spread over several tokens belongs to each of them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..decoding import token_offsets
from ..methods.base import CreditMethod, Method
from ..methods.contrast import full_teacher_log_prob, marginal_log_prob
from ..records import Group, Hint, Rollout, TokenBatch, TrainingExample
from ..trainer import StepResult

SCHEMA = 3
TOKENS_PER_STEP = 16_384  # the most that are recorded, about 1.5 MB
Columns = dict[str, list[Any]]


def rollout_records(result: StepResult, tokenizer: Any, groups: int, method: Method) -> list[dict[str, Any]]:
    """Records of the first `groups` groups of a step, ready for JSON.

    There are fewer if they had more than `TOKENS_PER_STEP` tokens; if the first alone has more, its rollouts are cut.
    """
    kept: list[dict[str, Any]] = []
    signals, left = _signals(result, method, groups), TOKENS_PER_STEP
    for number, group in enumerate(result.groups[:groups]):
        left -= sum(len(rollout.sample) for rollout in group.rollouts)
        if left < 0 and kept:
            break
        max_tokens = TOKENS_PER_STEP // len(group.rollouts) if left < 0 else TOKENS_PER_STEP
        kept.append(_group_record(result.step, number, group, signals, tokenizer, max_tokens))
    return kept


def sample_completion(result: StepResult) -> dict[str, Any]:
    """One response of a step to show, of another group at each step."""
    group = result.groups[result.step % len(result.groups)]
    rollout = group.rollouts[result.step % len(group.rollouts)]
    problem = {"question": group.problem.question, "answer": group.problem.answer}
    return {**problem, "response": rollout.text, "reward": rollout.reward}


_TABLE_ROWS, _TABLE_CHARACTERS = 4, 4000  # responses in a table for trackers, and characters of a text in it


def sample_rows(result: StepResult) -> list[dict[str, Any]]:
    """Some responses of a step for the trackers' tables, each of another group, other groups at each step.

    The columns are step, question, answer, response, reward and correct; and the texts of the correct hint and of the
    wrong ones, empty where the teacher was shown none.
    """
    hints = {(e.group, e.index): e.hints for batch in result.examples for e in batch if e.hints is not None}
    count = min(_TABLE_ROWS, len(result.groups))
    rows = []
    for number in range((result.step - 1) * count, result.step * count):
        place = number % len(result.groups)
        group = result.groups[place]
        index = number % len(group.rollouts)
        shown = hints.get((place, index))
        texts = {
            "question": group.problem.text,
            "answer": group.problem.answer,
            "response": group.rollouts[index].text,
            "correct hint": "" if shown is None else _hint_text(shown.correct),
            "wrong hints": "" if shown is None else "\n---\n".join(map(_hint_text, shown.wrong)),
        }
        cut = {name: text[:_TABLE_CHARACTERS] for name, text in texts.items()}
        rollout = group.rollouts[index]
        rows.append({"step": result.step, "reward": float(rollout.reward), "correct": rollout.is_correct, **cut})
    return rows


def _hint_text(hint: Hint) -> str:
    return hint.answer if hint.text is None else hint.text


def _signals(result: StepResult, method: Method, groups: int) -> dict[tuple[int, int], tuple[TrainingExample, Columns]]:
    """Example and signals of each updated rollout of the first `groups` groups, by (group, index in the group)."""
    signals = {}
    for examples, batch in zip(result.examples, result.token_batches, strict=True):
        start = 0
        for example in examples:
            end = start + len(example.rollout.sample)
            if example.group < groups:
                columns = _columns(batch[slice(start, end)], method, len(batch))
                signals[example.group, example.index] = (
                    example,
                    {name: _plain(values) for name, values in columns.items()},
                )
            start = end
    return signals


def _columns(batch: TokenBatch, method: Method, tokens: int) -> dict[str, Tensor]:
    """The signals of one rollout, whose tokens `batch` holds; `tokens` is the number of tokens of its mini-batch."""
    hinted = bool(batch.hinted.any())
    columns = {name: getattr(batch, name) for name in ("contrast", "selected")}
    if not isinstance(method, CreditMethod):  # where it is an advantage, it is the final one
        columns["credit"] = batch.credit
    if type(method).clipped_advantage is not Method.clipped_advantage:
        columns["final_advantage"] = method.clipped_advantage(batch.old_log_prob, batch)
    if batch.weight is not None:
        columns["weight"] = batch.weight * tokens
    if hinted:
        columns["teacher"] = full_teacher_log_prob(batch)
        columns["teacher_log_kept_mass"] = batch.teacher_log_kept_mass
        if batch.contrast_log_prob is not None and batch.contrast_valid is not None:
            columns["wrong"] = marginal_log_prob(batch.contrast_log_prob, batch.contrast_valid)
    return {name: values for name, values in columns.items() if values is not None}


def _group_record(
    step: int,
    number: int,
    group: Group,
    signals: dict[tuple[int, int], tuple[TrainingExample, Columns]],
    tokenizer: Any,
    max_tokens: int,
) -> dict[str, Any]:
    rollouts = []
    for index, (rollout, advantage) in enumerate(zip(group.rollouts, group.advantages, strict=True)):
        example, columns = signals.get((number, index), (None, {}))
        rollouts.append(_rollout_record(rollout, advantage, example, columns, tokenizer, max_tokens))
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
    rollout: Rollout,
    advantage: float,
    example: TrainingExample | None,
    signals: Columns,
    tokenizer: Any,
    max_tokens: int,
) -> dict[str, Any]:
    ids = rollout.sample.ids[:max_tokens]
    text, offsets = token_offsets(tokenizer, ids)
    columns: Columns = {"ids": list(ids), "start": [a for a, _ in offsets], "end": [b for _, b in offsets]}
    sample = rollout.sample if example is None else example.rollout.sample
    if sample.log_probs is not None:
        columns["log_prob"] = _plain(sample.log_probs)
    if sample.entropies is not None:
        columns["entropy"] = _plain(sample.entropies)
    if sample.log_kept_mass is not None:
        columns["log_kept_mass"] = _plain(sample.log_kept_mass)
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
        "answer": rollout.answer,
        **({"error": rollout.verdict.error} if rollout.verdict.error is not None else {}),
        "finished": rollout.sample.finished,
        "updated": example is not None,
        "tokens": len(ids),
        "cut": len(rollout.sample) - len(ids),
        **columns,
    }
    if example is not None and example.hints is not None:
        hints = example.hints
        record["hints"] = {"correct": _hint_record(hints.correct), "wrong": list(map(_hint_record, hints.wrong))}
        if hints.extra_correct:
            record["hints"]["more"] = list(map(_hint_record, hints.extra_correct))
    return record


def _plain(values: Tensor) -> list[Any]:
    return [round(value, 6) if isinstance(value, float) else value for value in values.tolist()]


def _hint_record(hint: Hint) -> dict[str, Any]:
    return {"place": hint.index, "answer": hint.answer, "text": hint.text, "kind": hint.kind}

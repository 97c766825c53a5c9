"""What the loss of a mini-batch is a mean over: all of it, or each of its micro-batches by itself.

The mean over the whole mini-batch is the default, and with it the gradient does not depend on how an engine cuts its
work. The mean over each micro-batch is that of verl's `DataParallelPPOActor` with dynamic batches, in which the methods
with a teacher were published: a micro-batch weighs by its share of the rollouts, a token by one over the tokens of its
micro-batch. So it does depend on the cut, which is made here, by `micro_batches`, and not by the engine.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ..config.schema import Config
from ..layout import Layout
from ..methods.base import Method
from ..metrics import Mean, Metrics
from ..records import TokenBatch, TrainingExample


def prepare_columns(
    method: Method, batch: TokenBatch, examples: Sequence[TrainingExample], step: int, config: Config
) -> tuple[TokenBatch, Metrics]:
    """`batch` of `examples` with the method's columns, normalised as `loss_normalisation` says; figures for the log."""
    if config.loss_normalisation == "mini_batch":
        return method.prepare(batch, step), {}
    parts = micro_batches(row_tokens(examples), config.normalisation_tokens)
    layout = Layout(tuple(len(example.rollout.sample) for example in examples), batch.rollout.device)
    prepared = normalised_in_parts(method, batch, [layout.tokens(part) for part in parts], step)
    return prepared, {"update/micro_batch_rollouts": Mean(len(examples) / len(parts), len(parts))}


def normalised_in_parts(method: Method, batch: TokenBatch, parts: Sequence[Tensor], step: int) -> TokenBatch:
    """The whole mini-batch, each part of whole rollouts normalised by its own sums and weighed by its rollouts.

    `parts` are the token indices of each, every token in one of them. `mean_tokens` is filled in as well.
    """
    assigned = method.assign(batch, step)
    rollouts = int(torch.unique(batch.rollout).numel())
    columns: dict[str, Tensor] = {}
    for tokens in parts:
        part = assigned[tokens]
        share = int(torch.unique(part.rollout).numel()) / rollouts
        part = method.normalise(part, method.sums(part))
        assert part.weight is not None
        part = part.with_columns(
            weight=part.weight * share, mean_tokens=torch.full_like(part.weight, len(tokens) / share)
        )
        for name, values in ((field.name, getattr(part, field.name)) for field in fields(part)):
            if isinstance(values, Tensor):
                columns.setdefault(name, values.new_zeros(len(batch), *values.shape[1:]))[tokens] = values
    return assigned.with_columns(**columns)


# ------------------------------------------------------------------ the cut of verl's legacy worker


def row_tokens(examples: Sequence[TrainingExample]) -> list[list[int]]:
    """By row, the tokens of each sequence that it puts through the model: prompt or hinted prompt, and response.

    Where other rows have more wrong hints, verl computes a row's first one again in their places.
    """
    wrong = max(len(example.contrast_prompts) for example in examples)

    def lengths(example: TrainingExample) -> list[int]:
        again = example.contrast_prompts[:1] * (wrong - len(example.contrast_prompts))
        hinted = [example.teacher_prompt, *example.extra_prompts, *example.contrast_prompts, *again]
        prompts = [example.prompt, *(prompt for prompt in hinted if prompt is not None)]
        return [len(prompt) + len(example.rollout.sample) for prompt in prompts]

    return [lengths(example) for example in examples]


def _work(tokens: int) -> int:
    """Work of a sequence in verl's unit (`calculate_workload`): layers of a 7B model, and attention."""
    return 24576 * tokens + tokens**2


def micro_batches(rows: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Row indices in as many parts as the work of all sequences needs, each of about as much work.

    `rows` are the lengths of each row's sequences. A part has the work of one sequence of `budget` tokens, or one row.
    verl counts the parts on each rank and takes the largest count; here the mini-batch is cut as one.
    """
    work = [sum(map(_work, lengths)) for lengths in rows]
    return balanced(work, min(len(rows), -(-sum(work) // _work(budget))))


def balanced(work: Sequence[int], count: int) -> list[list[int]]:
    """Indices in `count` parts of even sums: the largest differencing method of Karmarkar and Karp.

    Each state is a split of some of the indices; the two with the largest differences are merged, large parts onto
    small ones.
    """
    states: list[tuple[int, int, list[tuple[int, list[int]]]]] = []  # −difference, order, and parts, largest first
    for index, value in enumerate(work):
        split: list[tuple[int, list[int]]] = [(value, [index]), *((0, []) for _ in range(count - 1))]
        states.append((split[-1][0] - split[0][0], index, split))
    heapq.heapify(states)
    while len(states) > 1:
        _, order, one = heapq.heappop(states)
        other = heapq.heappop(states)[2]
        merged = [(a + b, [*x, *y]) for (a, x), (b, y) in zip(one, reversed(other), strict=True)]
        merged.sort(key=lambda part: (-part[0], part[1]))
        heapq.heappush(states, (merged[-1][0] - merged[0][0], order, merged))
    return sorted(sorted(indices) for _, indices in states[0][2] if indices) if states else []

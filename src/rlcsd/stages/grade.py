"""The grade stage: verifier → verdict → group advantage of its reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..decoding import response_text
from ..records import Group, Problem, Rollout, Sample
from ..tasks.task import Task
from ..verifiers import last_boxed


def grade(
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    samples: Sequence[Sequence[Sample]],
    *,
    divide_by_std: bool = True,
) -> list[Group]:
    """One group for each problem of `task`: its samples decoded and verified, with their group advantages."""
    texts = [[response_text(tokenizer, sample.ids) for sample in drawn] for drawn in samples]
    judged = task.judge(problems, texts)
    groups = []
    for problem, prompt, drawn, written, verdicts in zip(problems, prompts, samples, texts, judged, strict=True):
        rollouts = tuple(
            Rollout(sample, text, verdict, last_boxed(text) or None)
            for sample, text, verdict in zip(drawn, written, verdicts, strict=True)
        )
        rewards = [verdict.reward for verdict in verdicts]
        groups.append(Group(problem, tuple(prompt), rollouts, group_advantages(rewards, divide_by_std)))
    return groups


def group_advantages(rewards: Sequence[float], divide_by_std: bool = True) -> tuple[float, ...]:
    """(r − mean) / (std + 1e-6) over one group, std unbiased (GRPO, arXiv 2402.03300, section 4.1.2).

    A group of one has mean 0 and std 1; a group of equal rewards gets zeros. `divide_by_std=False` leaves
    out the division.
    """
    values = torch.tensor(list(rewards), dtype=torch.float64)
    if len(values) == 1:
        return (float(values[0] / (1 + 1e-6)) if divide_by_std else float(values[0]),)
    if bool((values == values[0]).all()):
        return (0.0,) * len(values)  # exactly, whatever rounding does to the mean
    centred = values - values.mean()
    return tuple((centred / (values.std() + 1e-6) if divide_by_std else centred).tolist())

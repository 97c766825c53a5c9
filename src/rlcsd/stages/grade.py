"""The grade stage: verifier → verdict → group advantage of its reward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from ..decoding import response_text
from ..metrics import Mean, Metrics, Sum
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
            Rollout(
                sample,
                text,
                verdict,
                last_boxed(text, task.unfinished_thoughts) or None,
                task.read_answer(text, verdict),
            )
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


# ------------------------------------------------------------------ metrics


def rollout_metrics(groups: Sequence[Group]) -> Metrics:
    """Reward, accuracy and length of rollouts, and the share of groups with both outcomes."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    count = len(rollouts)
    shares = {
        "rollout/reward": sum(r.reward for r in rollouts),
        "rollout/accuracy": sum(r.is_correct for r in rollouts),
        "rollout/length": sum(len(r.sample) for r in rollouts),
        "rollout/truncated": sum(not r.sample.finished for r in rollouts),
        "rollout/boxed": sum(r.boxed is not None for r in rollouts),
        "rollout/answered": sum(r.answer is not None for r in rollouts),
    }
    mixed = {
        "groups/mixed": sum(g.is_mixed for g in groups),
        "groups/lone_winner": sum(len(g.correct_indices) == 1 for g in groups),
        "groups/lone_loser": sum(len(g.wrong_indices) == 1 for g in groups),
    }
    by_rollout = {name: Mean(total / count, count) for name, total in shares.items()}
    return {
        **by_rollout,
        **part_metrics(rollouts),
        "verifier/failed": Sum(sum(r.verdict.error is not None for r in rollouts)),
        "verifier/retries": Sum(sum(r.verdict.attempts - 1 for r in rollouts)),
        "rollout/tokens": Sum(sum(len(r.sample) for r in rollouts)),
        **{name: Mean(total / len(groups), len(groups)) for name, total in mixed.items()},
    }


def part_metrics(rollouts: Sequence[Rollout]) -> Metrics:
    """The mean of each named part of the reward, over the rollouts whose verdict has it."""
    values: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for name, value in rollout.verdict.parts.items():
            values[name].append(value)
    return {f"reward/{name}": Mean(sum(each) / len(each), len(each)) for name, each in values.items()}

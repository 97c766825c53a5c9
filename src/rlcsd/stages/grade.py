"""The grade stage: verifier → verdict → length penalty → group advantage of the reward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..decoding import response_text
from ..methods.base import Estimator
from ..metrics import Mean, Metrics, Sum
from ..records import Group, Problem, Rollout, Sample, Verdict
from ..tasks.task import Task
from ..verifiers import last_boxed

OVERLONG = "overlong"  # the part of a reward that is the penalty


@dataclass(frozen=True)
class Overlong:
    """The soft overlong punishment of DAPO (arXiv 2503.14476, eq. 13), as a part of the reward.

    With L = `limit` tokens and C = `buffer`: 0 up to L − C tokens, then falling linearly to −`penalty` at L tokens. The
    paper's rewards are ±1, so with rewards of 0 and 1 the penalty weighs twice as much.
    """

    limit: int
    buffer: int
    penalty: float = 1.0

    def reward(self, tokens: int) -> float:
        """The penalty of a response of so many tokens, at most 0."""
        beyond = min(max(tokens - (self.limit - self.buffer), 0), self.buffer)
        return -self.penalty * beyond / self.buffer if beyond else 0.0

    def applied(self, verdict: Verdict, tokens: int) -> Verdict:
        """`verdict` with the penalty as a part of its reward; whether it is correct does not change."""
        part = self.reward(tokens)
        return replace(verdict, reward=verdict.reward + part, parts={**verdict.parts, OVERLONG: part})


def grade(
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    samples: Sequence[Sequence[Sample]],
    *,
    estimator: Estimator = "group",
    overlong: Overlong | None = None,
) -> list[Group]:
    """One group for each problem of `task`: its samples decoded and verified, with their group advantages."""
    texts = [
        [response_text(tokenizer, sample.ids, prompt) for sample in drawn]
        for prompt, drawn in zip(prompts, samples, strict=True)
    ]
    judged = task.judge(problems, texts)
    groups = []
    for problem, prompt, drawn, written, verdicts in zip(problems, prompts, samples, texts, judged, strict=True):
        if overlong is not None:
            verdicts = tuple(overlong.applied(v, len(sample)) for v, sample in zip(verdicts, drawn, strict=True))
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
        groups.append(Group(problem, tuple(prompt), rollouts, group_advantages(rewards, estimator)))
    return groups


def group_advantages(rewards: Sequence[float], estimator: Estimator = "group") -> tuple[float, ...]:
    """The advantage of each of a group's G rewards r, with their mean μ and unbiased standard deviation s.

    `group`: (r − μ) / (s + 1e-6) (GRPO, arXiv 2402.03300, section 4.1.2). `mean`: r − μ (Dr. GRPO, arXiv 2503.20783).
    `leave_one_out`: r minus the mean of the other rewards, G/(G−1) · (r − μ) (RLOO, arXiv 2402.14740).

    A group of one has μ = 0 and s = 1, and nothing to leave out; a group of equal rewards gets zeros.
    """
    values = torch.tensor(list(rewards), dtype=torch.float64)
    count = len(values)
    if count == 1:
        return (float(values[0] / (1 + 1e-6)) if estimator == "group" else float(values[0]),)
    if bool((values == values[0]).all()):
        return (0.0,) * count  # exactly, whatever rounding does to the mean
    centred = values - values.mean()
    divisors = {"group": float(values.std()) + 1e-6, "mean": 1.0, "leave_one_out": (count - 1) / count}
    return tuple((centred / divisors[estimator]).tolist())


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
        "verifier/retries": Sum(sum(r.verdict.attempts > 1 for r in rollouts)),
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

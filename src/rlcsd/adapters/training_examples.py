"""Turn the rewarded responses of another project's trainer into training examples with hints, and score a teacher.

What an adapter to any trainer needs; `adapters.trl` is the one for TRL.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..config.schema import GuardConfig
from ..engine.local.model import Network, Teacher, eval_mode
from ..engine.local.scoring import score
from ..errors import InputError
from ..health import Health
from ..methods import CreditMethod
from ..metrics import combined
from ..records import Group, Pair, Problem, Rollout, Sample, Scores, TrainingExample, Verdict
from ..stages.grade import group_advantages, rollout_metrics
from ..stages.hint import HintCounts, TeacherPrompts, hinted_examples
from ..tasks.cells import checked_problem
from ..verifiers.boxed import last_boxed
from ..verifiers.rewards import as_verdict


def problem_of(row: Mapping[str, Any], answer_column: str, solution_column: str) -> Problem:
    """The problem of a data set's row, whose answer may be empty.

    Raises:
        InputError: `prompt` is no chat, the column of the answers is missing, or a cell is of another type.
    """
    if answer_column not in row:
        raise InputError(f"answer_column={answer_column}: the data set has no such column")
    if isinstance(row["prompt"], str):
        raise InputError("prompt: must be a list of messages, because the teacher's prompt is a chat")
    cells = row["prompt"], row[answer_column], row.get(solution_column)
    return checked_problem("the data set", *cells, needs_answer=False)


def total_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> list[float]:
    """Each response's sum of the F functions' rewards `[B, F]`, weighted by `[F]`; NaN if none of them judged it."""
    totals = (rewards.double() * weights.double()).nansum(dim=1)
    totals[rewards.isnan().all(dim=1)] = torch.nan
    return [float(total) for total in totals]


@dataclass(frozen=True)
class RewardedResponse:
    """One response as another trainer sampled and rewarded it.

    Without a reward (NaN) it says nothing of its group: it has no advantage, is no hint, and stays out of the update.
    """

    problem: Problem
    text: str
    ids: tuple[int, ...]
    reward: float
    finished: bool = True


def build_groups(
    responses: Sequence[RewardedResponse],
    group_size: int,
    method: CreditMethod,
    success: float = 1.0,
    answer_of: Callable[[str], str | None] | None = None,
) -> list[Group]:
    """The groups of responses that come group after group, `group_size` of one problem each.

    A response is correct from the reward `success` on, up to the rounding that `verifiers.as_verdict` allows: other
    trainers hold rewards in float32. `answer_of` reads its final answer, by default the content of its last box.
    Log-probs are zeros.
    """

    def rollout(one: RewardedResponse) -> Rollout:
        nothing = torch.zeros(len(one.ids))
        judged = not math.isnan(one.reward)
        return Rollout(
            Sample(one.ids, nothing, nothing, one.finished),
            one.text,
            as_verdict(one.reward, success) if judged else Verdict(False, one.reward, error="no reward"),
            (last_boxed(one.text) or None) if judged else None,
            None if answer_of is None else answer_of(one.text) or "",
        )

    groups = []
    for start in range(0, len(responses), group_size):
        some = responses[start : start + group_size]
        rewards = [one.reward for one in some if not math.isnan(one.reward)]
        known = iter(group_advantages(rewards, method.config.estimator) if len(rewards) > 1 else [0.0])
        advantages = tuple(0.0 if math.isnan(one.reward) else next(known) for one in some)
        groups.append(Group(some[0].problem, (), tuple(map(rollout, some)), advantages))
    return groups


def build_examples(
    groups: Sequence[Group], method: CreditMethod, prompts: TeacherPrompts, rng: random.Random, step: int = 1
) -> tuple[list[TrainingExample], HintCounts]:
    """An example for each response of training step `step`, in their order, with the teacher's prompts where there is a
    usable hint.

    Raises:
        InputError: the method takes hints from the data set and a problem has no solution.
    """
    keeping = type(method)(method.config.model_copy(update={"unusable": "plain"}))
    hinted = hinted_examples(groups, keeping, prompts, rng, step)
    return [row for group in hinted.examples for row in group], hinted.counts


class BatchHealth:
    """What a batch logs, and warnings about one that teaches nothing, as in a run of this project.

    `names` are the other trainer's names of settings that the warnings speak of.
    """

    def __init__(self, method: CreditMethod, names: Mapping[str, str]) -> None:
        self.method, self.names, self.health = method, names, Health(GuardConfig())

    def after_batch(
        self,
        groups: Sequence[Group],
        examples: Sequence[TrainingExample],
        counts: HintCounts,
        by_text: bool,
        step: int = 1,
        written: Sequence[bool] | None = None,
    ) -> tuple[dict[str, float], list[str]]:
        """The figures by name of the batch of training step `step`, and the warnings about it.

        `written` says which of the responses the other trainer's loss takes at all; None: every one.
        """
        judged = [group for group in map(_judged, groups) if group.rollouts]
        taken = zip(examples, written or [True] * len(examples), strict=True)
        kept = [row for row, is_written in taken if is_written and stays_in_update(row, self.method, step)]
        figures = combined([rollout_metrics(judged) if judged else {}, counts.metrics() if self.method.hinted else {}])
        figures = {name: value for name, value in figures.items() if name not in _LOGGED_BY_OTHERS}
        figures["hints/updated_share"] = len(kept) / len(examples)
        figures["update/empty"] = float(
            not any(row.advantage or self.method.uses_advantage != "always" for row in kept)
        )
        if not judged:
            return figures, []
        facts = {"rollout/truncated": 0.0, "update/count": 1.0, **figures}
        told = self.health.hints(judged, facts, self.method, by_text)
        if (idle := self.health.stall.after_step(judged, facts, self.method, by_text)) is not None:
            told.append(f"no update in this batch: {idle}")
        return figures, [self._renamed(sentence) for sentence in told]

    def _renamed(self, sentence: str) -> str:
        for ours, theirs in self.names.items():
            sentence = sentence.replace(ours, theirs)
        return sentence


_LOGGED_BY_OTHERS = (
    *("rollout/length", "rollout/truncated", "rollout/tokens", "rollout/reward"),
    *("verifier/failed", "verifier/retries"),
)


def _judged(group: Group) -> Group:
    """The group without the rollouts that no reward function judged."""
    kept = [index for index, rollout in enumerate(group.rollouts) if rollout.verdict.error is None]
    return replace(
        group,
        rollouts=tuple(group.rollouts[index] for index in kept),
        advantages=tuple(group.advantages[index] for index in kept),
    )


def nothing_usable(responses: Sequence[RewardedResponse], method: CreditMethod, success: float) -> str:
    """Why no response of a batch stays in the update: a sentence for a warning."""
    rewards = [one.reward for one in responses if not math.isnan(one.reward)]
    if not rewards:
        return f"no reward function judged any of the {len(responses)} responses of this batch: no update"
    correct = sum(as_verdict(reward, success).correct for reward in rewards)
    return (
        f"{method.name} finds no usable hint in this batch, so there is no update: {correct} of {len(responses)} "
        f"responses are correct, with rewards from {min(rewards):g} to {max(rewards):g} and success={success:g}"
    )


def stays_in_update(row: TrainingExample, method: CreditMethod, step: int = 1) -> bool:
    """Whether an example of `build_examples` is in its mini-batch, in training step `step`.

    One without a usable hint is if the method keeps it with its plain advantage (`unusable=plain`).
    """
    if math.isnan(row.rollout.reward):
        return False
    if not method.hinted or row.teacher_prompt is not None or method.config.unusable == "plain":
        return True
    unscored = not method.asks_teacher(step) or (row.advantage == 0 and not method.scores_zero_advantage)
    return row.hints is not None and unscored


class TeacherScorer:
    """Score with a teacher that follows `policy`, or with `policy` itself, for `stages.score.build_token_batch`."""

    def __init__(self, policy: Network, method: CreditMethod, pad_id: int, budget: int) -> None:
        self.policy, self.pad_id, self.budget, self.device = policy, pad_id, budget, policy.device
        own = method.hinted and method.config.schedule.copies
        self.weights = Teacher(policy, method.config.schedule) if own else None

    def score(self, pairs: Sequence[Pair]) -> Scores:
        network = self.policy if self.weights is None else self.weights.network
        with eval_mode(network.model):
            columns = score(network, pairs, pad_id=self.pad_id, budget=self.budget)
        assert columns.entropy is not None
        return Scores(columns.log_prob, columns.entropy)

    def follow(self, optimizer_step: int) -> None:
        """Move the teacher; call it after optimizer step number `optimizer_step` (from 1)."""
        if self.weights is not None:
            self.weights.follow(self.policy, optimizer_step)

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors that a checkpoint needs; none for a teacher that never moves."""
        return {} if self.weights is None else self.weights.state()

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.weights is not None:
            self.weights.load_state(state)

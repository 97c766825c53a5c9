"""Several verifiers as one: the weighted sum of their rewards, each logged under its name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..records import Problem, Verdict
from .reward import name_of

Grader = Callable[[Any, Sequence[str], Sequence[Problem]], list[Verdict]]


@dataclass(frozen=True)
class Reward:
    """One of several verifiers: what its reward is multiplied by, and its name in the log (by default its own).

    `decides`: whether it is one of those that a response must satisfy to be correct. Where no reward says so, those of
    the largest weight decide.
    """

    verifier: Any
    weight: float = 1.0
    name: str = ""
    decides: bool = False

    @property
    def label(self) -> str:
        own = self.verifier.rpartition(":")[2] if isinstance(self.verifier, str) else name_of(self.verifier)
        return self.name or own.strip("<>")


class WeightedRewards:
    """Reward Σ weight · reward of each part; correct if all parts that decide are.

    `parts` of the verdicts are the parts' own rewards, without weights. What parts say of a response is joined.

    Raises:
        InputError: no part, two of one name, a name that cannot be in a log, or weights that are all 0.
    """

    def __init__(self, rewards: Sequence[Reward], grade: Grader) -> None:
        self.rewards, self.grade = list(rewards), grade
        labels = [reward.label for reward in rewards]
        if not rewards or not any(reward.weight for reward in rewards):
            raise InputError("task.rewards: at least one reward with a weight other than 0 is needed")
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"task.rewards: two rewards are called {label!r}; give one of them a name of its own")
            if not re.fullmatch(r"[\w.-]+", label):
                raise InputError(f"task.rewards: {label!r} cannot be a name in the log; use letters, digits, . _ or -")
        for label, reward in zip(labels, rewards, strict=True):
            if isinstance(reward.weight, bool | str) or not math.isfinite(reward.weight):
                raise InputError(
                    f"task.rewards: the weight of {label!r} must be a finite number, not {reward.weight!r}"
                )
        largest = max(reward.weight for reward in rewards)
        marked = any(reward.decides for reward in rewards)
        self.deciding = [r.decides if marked else r.weight == largest for r in rewards]

    def batch(self, responses: Sequence[str], problems: Sequence[Problem]) -> list[Verdict]:
        """The joint verdict on each response."""
        columns = [self.grade(reward.verifier, responses, problems) for reward in self.rewards]
        return [self._joint(verdicts) for verdicts in zip(*columns, strict=True)]

    def __call__(self, response: str, problem: Problem) -> Verdict:
        return self.batch([response], [problem])[0]

    def _joint(self, verdicts: Sequence[Verdict]) -> Verdict:
        parts: dict[str, float] = {}
        for reward, verdict in zip(self.rewards, verdicts, strict=True):
            parts[reward.label] = verdict.reward
            parts |= {f"{reward.label}/{name}": value for name, value in verdict.parts.items()}
        said = [verdict.feedback for verdict in verdicts if verdict.feedback]
        return Verdict(
            correct=all(v.correct for v, decides in zip(verdicts, self.deciding, strict=True) if decides),
            reward=sum(r.weight * v.reward for r, v in zip(self.rewards, verdicts, strict=True)),
            parts=parts,
            feedback="\n".join(said) or None,
        )

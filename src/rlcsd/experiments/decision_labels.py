"""Labels of right and wrong decisions in responses to a roll call, and how well a method's token signal finds them.

The labels come from the solution of the problem. Training never sees them; the oracle arms of our studies do, to
measure what a perfect token signal would be worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.interface import Scorer
from ..inspection.signals import SignalSettings, SignalTable, hint_signals
from ..methods.base import Method
from ..records import Problem
from ..tasks.task import Task
from .roll_call import CLAIM, Reading, RollCall, parse_question, read_response

Decision = tuple[bool, int]  # whether it is right, and the character after its last token


def find_decisions(roll: RollCall, text: str) -> list[Decision]:
    """Every decision of a response, in the order of the text.

    Decisions are the facts that worked lines look up, the verdicts, and the claims in the box.
    """
    reading = read_response(roll, text)
    decisions = [fact for line in reading.lines for fact in line.facts]
    decisions += [(line.right, line.end) for line in reading.lines if line.right is not None]
    return sorted([*decisions, *_boxed_decisions(roll, reading, text)], key=lambda decision: decision[1])


def _boxed_decisions(roll: RollCall, reading: Reading, text: str) -> list[Decision]:
    """The claims in the last box up to the first wrong one; what follows a wrong claim has no label.

    A claim is right if it repeats the verdict of the speaker's line, or without such a line if it is true.
    """
    verdicts = dict(zip(roll.speakers, roll.truths, strict=True)) | {
        line.speaker: line.verdict for line in reading.lines
    }
    decisions: list[Decision] = []
    begin = text.rfind("\\boxed")
    for index, claim in enumerate(CLAIM.finditer(text, begin) if begin >= 0 else ()):
        expected = roll.speakers[index] if index < len(roll.speakers) else None
        right = claim[1] == expected and verdicts[claim[1]] == (claim[2] == "knight")
        decisions.append((right, claim.end()))
        if not right:
            break
    return decisions


def token_labels(roll: RollCall, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Label of each token: +1 where a right decision ends, −1 where a wrong one ends, 0 elsewhere.

    `offsets` are the (start, end) characters of each token in `text`.
    """
    labels = [0] * len(offsets)
    for right, end in find_decisions(roll, text):
        token = max((i for i, (start, _) in enumerate(offsets) if start < end), default=None)
        if token is not None:
            labels[token] = 1 if right else -1
    return labels


def decision_kinds(problem: Problem, text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """`right`, `wrong` or `other` for each token of a response: does a decision end there, and is it right?"""
    labels = token_labels(parse_question(problem.question), text, offsets)
    return ["right" if label > 0 else "wrong" if label < 0 else "other" for label in labels]


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Area under the ROC curve: probability that a value of `positive` exceeds one of `negative`, ties counted half.

    nan if either is empty.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / 2 / len(negative))


@dataclass(frozen=True)
class DecisionSignals:
    """Token signals by kind of decision; `table` is that of `inspection.hint_signals`."""

    table: SignalTable

    def values(self, kind: str, signal: str = "contrast") -> NDArray[np.float64]:
        return self.table.columns[signal][self.table.kind == kind]

    def mean(self, kind: str, signal: str = "contrast") -> float:
        values = self.values(kind, signal)
        return float(values.mean()) if len(values) else float("nan")

    def auc(self, signal: str = "contrast") -> float:
        """AUC of right against wrong decisions."""
        return auc(self.values("right", signal), self.values("wrong", signal))


def decision_signals(engine: Scorer, task: Task, method: Method, settings: SignalSettings) -> DecisionSignals:
    """Sample a group for every training problem and measure the signal of hints on each kind of decision."""
    return DecisionSignals(hint_signals(engine, task, method, settings, decision_kinds))

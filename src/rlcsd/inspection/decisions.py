"""How well a method's signal tells right decisions from wrong ones, on a task that knows which they are (roll call)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.base import Scorer
from ..methods.base import Method
from ..records import Problem
from ..tasks.base import Task
from ..tasks.roll_call import parse_question, token_labels
from .signals import SignalSettings, SignalTable, hint_signals

DECISIONS = ("right", "wrong", "other")


def decision_kinds(problem: Problem, text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """For each token of a response: does it end a right decision, a wrong one, or none?"""
    labels = token_labels(parse_question(problem.question), text, offsets)
    return ["right" if label > 0 else "wrong" if label < 0 else "other" for label in labels]


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Chance that a value of `positive` exceeds one of `negative`, ties counted half; nan if either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / 2 / len(negative))


@dataclass(frozen=True)
class DecisionSignals:
    """The table of `hint_signals` by kind of decision."""

    table: SignalTable

    def values(self, kind: str, signal: str = "contrast") -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.table.columns[signal][self.table.kind == kind]
        return found

    def mean(self, kind: str, signal: str = "contrast") -> float:
        values = self.values(kind, signal)
        return float(values.mean()) if len(values) else float("nan")

    def auc(self, signal: str = "contrast") -> float:
        """Of right against wrong decisions."""
        return auc(self.values("right", signal), self.values("wrong", signal))


def decision_signals(engine: Scorer, task: Task, method: Method, settings: SignalSettings) -> DecisionSignals:
    """As `hint_signals`, by kind of decision."""
    return DecisionSignals(hint_signals(engine, task, method, settings, decision_kinds))

"""What is right and what is style in a response, read with the solution at hand: the oracle of the studies.

Training never sees this; it judges the token signal of a method, and stands in for it to find what a perfect one
would be worth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.interface import Scorer
from ..inspection.signals import SignalSettings, SignalTable, hint_signals
from ..methods.base import Method
from ..metrics import Mean, Metrics
from ..records import Problem
from ..tasks.task import Task
from .roll_call import INTERJECTIONS, Roll, parse_question

_LINE = re.compile(r"(\w+) says ([^.;:\n]+)(;[^.:\n]*)?: (true|false)\.")
_CLAIM = re.compile(r"(\w+) is a (knight|knave)")


@dataclass(frozen=True)
class Line:
    """One line: whose statement, the verdict, whether that is right (None: no such speaker), and where it ends.

    `facts` are the looked-up roles of a worked line, each with whether it is right and where it ends.
    """

    speaker: str
    verdict: bool
    right: bool | None
    worked: bool
    end: int
    facts: tuple[tuple[bool, int], ...]


@dataclass(frozen=True)
class Reading:
    """The lines of a response and the number of its interjections."""

    lines: tuple[Line, ...]
    interjections: int


def read(roll: Roll, text: str) -> Reading:
    """Lines and style of a response."""
    truths = dict(zip(roll.speakers, roll.truths, strict=True))
    roles = dict(zip(roll.known, roll.roles, strict=True))
    lines = []
    for match in _LINE.finditer(text):
        facts: tuple[tuple[bool, int], ...] = ()
        if match[3] is not None:
            facts = tuple(
                (roles.get(claim[1]) == (claim[2] == "knight"), claim.end())
                for claim in _CLAIM.finditer(text, *match.span(3))
            )
        truth, verdict = truths.get(match[1]), match[4] == "true"
        right = None if truth is None else truth == verdict
        lines.append(Line(match[1], verdict, right, match[3] is not None, match.end(4), facts))
    return Reading(tuple(lines), sum(text.count(word) for word in INTERJECTIONS))


def style_figures(problem: Problem, text: str) -> Metrics:
    """A response's share of right verdicts and of worked lines, and its interjections, each per line."""
    reading = read(parse_question(problem.question), text)
    lines = len(reading.lines)
    counts = {
        "style/right_verdicts": sum(bool(line.right) for line in reading.lines),
        "style/worked": sum(line.worked for line in reading.lines),
        "style/interjections": reading.interjections,
    }
    return {name: Mean(count / max(lines, 1), lines) for name, count in counts.items()}


def _conclusion(roll: Roll, reading: Reading, text: str) -> list[tuple[bool, int]]:
    """Whether each claim in the last box says what its line found, and where it ends, up to the first that does not.

    A claim without a line is measured by the truth. What follows the first departure has no label.
    """
    verdicts = dict(zip(roll.speakers, roll.truths, strict=True)) | {
        line.speaker: line.verdict for line in reading.lines
    }
    labels: list[tuple[bool, int]] = []
    begin = text.rfind("\\boxed")
    for place, claim in enumerate(_CLAIM.finditer(text, begin) if begin >= 0 else ()):
        expected = roll.speakers[place] if place < len(roll.speakers) else None
        right = claim[1] == expected and verdicts[claim[1]] == (claim[2] == "knight")
        labels.append((right, claim.end()))
        if not right:
            break
    return labels


def decisions(roll: Roll, text: str) -> list[tuple[bool, int]]:
    """Every decision of a response: whether it is right, and the character at which its last token ends.

    Decisions are the facts that a worked line looks up, the verdicts, and the claims in the box.
    """
    reading = read(roll, text)
    found = [label for line in reading.lines for label in line.facts]
    found += [(line.right, line.end) for line in reading.lines if line.right is not None]
    return sorted([*found, *_conclusion(roll, reading, text)], key=lambda label: label[1])


def token_labels(roll: Roll, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """+1 at the token that ends a right decision, −1 at that of a wrong one, 0 elsewhere.

    `offsets` are the (start, end) characters of each token in `text`.
    """
    labels = [0] * len(offsets)
    for right, end in decisions(roll, text):
        token = max((i for i, (start, _) in enumerate(offsets) if start < end), default=None)
        if token is not None:
            labels[token] = 1 if right else -1
    return labels


# ------------------------------------------------------------------ decisions
# How well a method's signal tells right decisions from wrong ones, on a task that knows which they are (roll call).

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

"""Do training and evaluation sets share problems? Compared as written, and with notation and punctuation taken away."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .base import Problem

_TYPESETTING = re.compile(r"\\(?:left|right|text|mathrm|displaystyle|q?quad)\b|\\[,;:! ]")
_SILENT = re.compile(r"[\s$\\{}.,;:!?~`'\"“”’]+")


def normalised(question: str) -> str:
    """Lower case without typesetting, space and punctuation: what survives a re-typed problem. Operators stay."""
    return _SILENT.sub("", _TYPESETTING.sub(" ", question).lower())


@dataclass(frozen=True)
class Overlap:
    """How many problems of an evaluation set are also in the training set; `normalised` includes `exact`."""

    name: str
    problems: int
    exact: int
    normalised: int
    example: str | None = None

    def __str__(self) -> str:
        shown = f"; for example: {self.example[:80]!r}" if self.example else ""
        counts = (
            f"{self.exact} of {self.problems} problems are in the training set as written, {self.normalised} normalised"
        )
        return f"{self.name}: {counts}{shown}"


def overlaps(train: Sequence[Problem], evaluations: Mapping[str, Sequence[Problem]]) -> list[Overlap]:
    """One entry per evaluation set."""
    written = {problem.text for problem in train}
    loose = {normalised(question) for question in written}
    shares = []
    for name, problems in evaluations.items():
        shared = [p.text for p in problems if p.text in written or normalised(p.text) in loose]
        exact = sum(question in written for question in shared)
        shares.append(Overlap(name, len(problems), exact, len(shared), shared[0] if shared else None))
    return shares

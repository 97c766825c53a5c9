"""What every warm start measures before it lets a base through: how it asks the base, and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config.schema import Config, SamplingConfig
from ..engine.local.engine import LocalEngine
from ..engine.local.network import Network
from ..evaluation import Answered, EvaluationSettings, answer_problems
from ..inspection.signals import SignalSettings
from ..methods.rlcsd import RLCSD
from ..records import Problem
from ..tasks.base import Task

_SAMPLES = 4  # responses to each problem


@dataclass(frozen=True)
class GateReport:
    """pass@1 by size, signals of hints and other figures by name, and which gates are shut; a size counts `noun`."""

    accuracy: dict[int, float] = field(default_factory=dict)
    length: float = 0.0
    signals: dict[str, float] = field(default_factory=dict)
    shut: tuple[str, ...] = ()
    noun: str = "people"

    @property
    def open(self) -> bool:
        return not self.shut

    @staticmethod
    def closed() -> GateReport:
        return GateReport(shut=("never measured",))

    def __str__(self) -> str:
        rates = ", ".join(f"{size} {self.noun} {rate:.2f}" for size, rate in self.accuracy.items())
        signals = ", ".join(f"{name} {value:+.3f}" for name, value in self.signals.items())
        return f"pass@1 {rates}; length {self.length:.0f}; {signals}; " + (
            f"shut: {', '.join(self.shut)}" if self.shut else "all gates open"
        )


class Bench:
    """A base under measurement: whole-distribution responses of at most `limit` tokens, hints as rlcsd draws them."""

    def __init__(self, network: Network, tokenizer: Any, limit: int) -> None:
        sampling = SamplingConfig(top_p=1.0, top_k=0, max_tokens=limit)
        self.config = Config(sampling=sampling, group_size=8, max_prompt_tokens=512)
        self.method = RLCSD.from_fields()
        self.engine = LocalEngine(self.config, self.method, network, tokenizer)

    def answers(self, task: Task, problems: Sequence[Problem], seed: int) -> list[Answered]:
        """Each problem answered and graded, in their order."""
        settings = EvaluationSettings(_SAMPLES, self.config.sampling.settings())
        return answer_problems(self.engine, "val", dict(enumerate(problems)), task, settings, seed)

    def groups_of(self, task: Task, count: int) -> Task:
        """The first problems on which groups are drawn and hints are scored."""
        return Task(task.name, task.evaluations["seen_sizes"][:count], {}, task.verifier, task.instruction)

    def signals(self, seed: int) -> SignalSettings:
        return SignalSettings(self.config.group_size, self.config.sampling.settings(), seed=seed)


def outside(mean: float, low: float, high: float) -> list[str]:
    """Why the gate of accuracy is shut, if it is."""
    return [] if low <= mean <= high else [f"accuracy {mean:.2f} outside [{low}, {high}]"]

"""Is this base worth training? Accuracy, reach, and whether it reads hints; measured on validation puzzles."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config.schema import Config, SamplingConfig
from ..engine.local.engine import LocalEngine
from ..engine.local.network import Network
from ..evaluation import EvaluationSettings, answer_problems, summarise
from ..inspection.signals import SignalSettings, hint_signals
from ..methods.rlcsd import RLCSD
from ..records import Sampling
from ..tasks.base import Task
from ..tasks.build import KnightsAndKnavesParameters, knights_and_knaves
from .recipe import PuzzleRecipe

_TOKENS_PER_PERSON = 130  # limit of a response, generous for the case search


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


def measure(
    network: Network,
    tokenizer: Any,
    recipe: PuzzleRecipe,
    split: Literal["val", "test"] = "val",
    groups: int = 24,
    seed: int = 1,
) -> GateReport:
    """Measure everything that the gates ask for, with the recipe's own puzzles."""
    gates = recipe.gates
    task = knights_and_knaves(
        KnightsAndKnavesParameters(
            name=recipe.name,
            train_sizes=recipe.train_sizes,
            unseen_sizes=recipe.unseen_sizes,
            train_per_size=1,
            eval_per_size=gates.problems,
            eval_split=split,
            forms=recipe.forms,
            people=recipe.people,
            wording="plain",
        )
    )
    limit = _TOKENS_PER_PERSON * max(*recipe.train_sizes, *recipe.unseen_sizes)
    config = Config(sampling=SamplingConfig(top_p=1.0, top_k=0, max_tokens=limit), group_size=8, max_prompt_tokens=512)
    method = RLCSD.from_fields()
    engine = LocalEngine(config, method, network, tokenizer)
    accuracy: dict[int, float] = {}
    lengths: list[float] = []
    for problems in task.evaluations.values():
        answered = answer_problems(
            engine, "val", dict(enumerate(problems)), task, EvaluationSettings(4, Sampling(max_tokens=limit)), seed
        )
        by_size = defaultdict(list)
        for problem, item in zip(problems, answered, strict=True):
            by_size[problem.extra["size"]].append(item)
        for size, items in by_size.items():
            summary = summarise(str(size), items)
            accuracy[size] = summary.mean
            if size in recipe.train_sizes:
                lengths.append(summary.length)
    signals = conclusion_signals(engine, task, config, method, groups)
    network.model.train()
    return GateReport(accuracy, sum(lengths) / len(lengths), signals, tuple(_shut(recipe, accuracy, signals)))


def conclusion_signals(engine: LocalEngine, task: Task, config: Config, method: RLCSD, groups: int) -> dict[str, float]:
    """Mean over conclusion tokens of what hints do: gain under a correct hint, loss under wrong ones, contrast."""
    problems = task.evaluations["seen_sizes"]
    shown = Task(task.name, problems[:groups], {}, task.verifier, task.instruction)
    table = hint_signals(
        engine, shown, method, SignalSettings(config.group_size, config.sampling.settings(), seed=config.seed)
    )
    signals = {}
    for target in ("correct", "wrong"):
        for name in ("correct_gain", "wrong_gain", "contrast"):
            value = table.mean("conclusion", target, name)
            signals[f"{name} on {target}"] = value if value is not None else float("nan")
    return signals


def _shut(recipe: PuzzleRecipe, accuracy: dict[int, float], signals: dict[str, float]) -> list[str]:
    gates = recipe.gates
    trained = [accuracy[size] for size in recipe.train_sizes]
    mean = sum(trained) / len(trained)
    reasons = []
    if not gates.low <= mean <= gates.high:
        reasons.append(f"accuracy {mean:.2f} outside [{gates.low}, {gates.high}]")
    if max(accuracy[size] for size in recipe.unseen_sizes) < gates.unseen:
        reasons.append("no unseen size is ever solved")
    wanted = {
        "correct_gain on correct": 1,
        "wrong_gain on correct": -1,
        "contrast on correct": 1,
        "contrast on wrong": -1,
    }
    for name, sign in wanted.items():
        floor = gates.contrast if name.startswith("contrast") else 0.0
        if not sign * signals[name] > floor:
            reasons.append(f"{name} is {signals[name]:+.3f}")
    return reasons

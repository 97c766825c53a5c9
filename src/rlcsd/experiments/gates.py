"""What every warm start measures before it lets a base through: how it asks the base, and what it reports."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config.schema import Config, SamplingConfig
from ..engine.local.local_engine import LocalEngine
from ..engine.local.model import Network
from ..evaluation import Answered, EvaluationSettings, answer_problems, summarise
from ..inspection.signals import SignalSettings, hint_signals
from ..methods.rlcsd import RLCSD
from ..records import Problem
from ..tasks.registry import KnightsAndKnavesParameters, RollCallParameters, knights_and_knaves, roll_call
from ..tasks.task import Task
from .decision_labels import decision_signals, read
from .recipe import PuzzleRecipe, RollCallRecipe
from .roll_call import parse_question

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


# ------------------------------------------------------------------ puzzle_gates
# Is this base worth training? Accuracy, reach, and whether it reads hints; measured on validation puzzles.

_TOKENS_PER_PERSON = 130  # limit of a response, generous for the case search


def measure_puzzles(
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
    bench = Bench(network, tokenizer, _TOKENS_PER_PERSON * max(*recipe.train_sizes, *recipe.unseen_sizes))
    accuracy: dict[int, float] = {}
    lengths: list[float] = []
    for problems in task.evaluations.values():
        by_size = defaultdict(list)
        for problem, item in zip(problems, bench.answers(task, problems, seed), strict=True):
            by_size[problem.extra["size"]].append(item)
        for size, items in by_size.items():
            summary = summarise(str(size), items)
            accuracy[size] = summary.mean
            if size in recipe.train_sizes:
                lengths.append(summary.length)
    signals = conclusion_signals(bench, task, groups)
    network.model.train()
    return GateReport(
        accuracy, sum(lengths) / len(lengths), signals, tuple(_closed_puzzle_gates(recipe, accuracy, signals))
    )


def conclusion_signals(bench: Bench, task: Task, groups: int) -> dict[str, float]:
    """Mean over conclusion tokens of what hints do: gain under a correct hint, loss under wrong ones, contrast."""
    table = hint_signals(bench.engine, bench.groups_of(task, groups), bench.method, bench.signals(seed=0))
    signals = {}
    for target in ("correct", "wrong"):
        for name in ("correct_gain", "wrong_gain", "contrast"):
            value = table.mean("conclusion", target, name)
            signals[f"{name} on {target}"] = value if value is not None else float("nan")
    return signals


def _closed_puzzle_gates(recipe: PuzzleRecipe, accuracy: dict[int, float], signals: dict[str, float]) -> list[str]:
    gates = recipe.gates
    trained = [accuracy[size] for size in recipe.train_sizes]
    reasons = outside(sum(trained) / len(trained), gates.low, gates.high)
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


# ------------------------------------------------------------------ roll_call_gates
# Is a roll call's base worth training? Accuracy by answer and by decision, style, and whether hints mark decisions.

_TOKENS_PER_SPEAKER = 32  # limit of a response, generous for a worked line, its share of the box and an interjection


def measure_roll_call(
    network: Network,
    tokenizer: Any,
    recipe: RollCallRecipe,
    split: Literal["val", "test"] = "val",
    groups: int = 24,
    seed: int = 1,
) -> GateReport:
    """Everything that the gates of a roll call ask for."""
    gates = recipe.gates
    task = roll_call(
        RollCallParameters(
            name=recipe.name,
            train_sizes=recipe.train_sizes,
            known=recipe.known,
            unseen_sizes=[],
            train_per_size=1,
            eval_per_size=gates.problems,
            eval_split=split,
            people=recipe.people,
        )
    )
    bench = Bench(network, tokenizer, _TOKENS_PER_SPEAKER * max(recipe.train_sizes))
    problems = task.evaluations["seen_sizes"]
    answered = bench.answers(task, problems, seed)
    accuracy = {
        size: summarise(str(size), [a for a, p in zip(answered, problems, strict=True) if p.extra["size"] == size]).mean
        for size in recipe.train_sizes
    }
    style = _style([(item.question, text) for item in answered for text in item.responses])
    signals = decision_signals(bench.engine, bench.groups_of(task, groups), bench.method, bench.signals(seed))
    figures = {**style, "AUC on decisions": signals.auc(), "usable rollouts": signals.table.usable}
    figures |= {f"contrast on {kind} decisions": signals.mean(kind) for kind in ("right", "wrong")}
    network.model.train()
    length = sum(sum(item.lengths) for item in answered) / sum(len(item.lengths) for item in answered)
    return GateReport(accuracy, length, figures, tuple(_closed_roll_call_gates(recipe, accuracy, figures)), "speakers")


def _style(responses: list[tuple[str, str]]) -> dict[str, float]:
    """Of (question, response) pairs: right verdicts and worked lines per line, their spread, interjections per line."""
    readings = [read(parse_question(question), text) for question, text in responses]
    lines = [line for reading in readings for line in reading.lines]
    shares = [sum(line.worked for line in r.lines) / len(r.lines) for r in readings if r.lines]
    count = max(len(lines), 1)
    return {
        "right verdicts": sum(bool(line.right) for line in lines) / count,
        "worked lines": sum(line.worked for line in lines) / count,
        "spread of worked lines": statistics.pstdev(shares) if shares else 0.0,
        "interjections": sum(reading.interjections for reading in readings) / count,
    }


def _closed_roll_call_gates(recipe: RollCallRecipe, accuracy: dict[int, float], figures: dict[str, float]) -> list[str]:
    gates = recipe.gates
    reasons = outside(sum(accuracy.values()) / len(accuracy), gates.low, gates.high)
    low, high = gates.worked
    if not low <= figures["worked lines"] <= high:
        reasons.append(f"worked lines {figures['worked lines']:.2f} outside [{low}, {high}]")
    floors = {"right verdicts": gates.decision, "AUC on decisions": gates.auc, "spread of worked lines": gates.style}
    reasons += [f"{name} {figures[name]:.2f}" for name, floor in floors.items() if not figures[name] >= floor]
    return reasons

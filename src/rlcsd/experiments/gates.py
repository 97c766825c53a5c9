"""Gates of a warm start: measurements on held-out problems that decide whether a base model is worth training.

A base passes when it is right some of the time, but not always, and when hints change its probabilities in the right
direction. `warmstart` measures every few steps and saves the first model that passes.
"""

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
from ..inspection.signals import SIGNALS, SignalSettings, hint_signals
from ..methods.rlcsd import RLCSD
from ..records import Problem
from ..tasks.registry import build_task
from ..tasks.task import Task
from .decision_labels import decision_signals
from .recipe import Gates, PuzzleRecipe, RollCallRecipe
from .roll_call import parse_question, read_response

Split = Literal["val", "test"]

_SAMPLES = 4  # responses per problem
_TOKENS_PER_PERSON = 130  # response limit of a puzzle; generous for the search over cases
_TOKENS_PER_SPEAKER = 32  # response limit of a roll call; a worked line, its share of the box and an interjection
_CORRECT, _WRONG, _CONTRAST = SIGNALS


@dataclass(frozen=True)
class GateReport:
    """What was measured: pass@1 by problem size, mean response length in tokens, and further figures by name.

    `failures` are the gates that did not pass, each with the value that was found. `size_unit` is what sizes count.
    """

    accuracy: dict[int, float] = field(default_factory=dict)
    length: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    size_unit: str = "people"

    @property
    def passed(self) -> bool:
        return not self.failures

    @staticmethod
    def not_measured() -> GateReport:
        return GateReport(failures=("never measured",))

    def __str__(self) -> str:
        rates = ", ".join(f"{size} {self.size_unit} {rate:.2f}" for size, rate in self.accuracy.items())
        figures = ", ".join(f"{name} {value:+.3f}" for name, value in self.figures.items())
        verdict = f"failed: {', '.join(self.failures)}" if self.failures else "all gates passed"
        return f"pass@1 {rates}; length {self.length:.0f}; {figures}; {verdict}"


class BaseModel:
    """A base under measurement: samples the whole distribution, at most `limit` tokens, and has the hints of rlcsd."""

    def __init__(self, network: Network, tokenizer: Any, limit: int) -> None:
        sampling = SamplingConfig(top_p=1.0, top_k=0, max_tokens=limit)
        self.config = Config(sampling=sampling, group_size=8, max_prompt_tokens=512)
        self.method = RLCSD.from_fields()
        self.engine = LocalEngine(self.config, self.method, network, tokenizer)

    def answer(self, task: Task, problems: Sequence[Problem], seed: int) -> list[Answered]:
        """Answer and grade each problem, in the given order."""
        settings = EvaluationSettings(_SAMPLES, self.config.sampling.settings())
        return answer_problems(self.engine, {("val", n): one for n, one in enumerate(problems)}, task, settings, seed)

    def signal_settings(self, seed: int) -> SignalSettings:
        return SignalSettings(self.config.group_size, self.config.sampling.settings(), seed=seed)


def _signal_task(task: Task, count: int) -> Task:
    """The first `count` evaluation problems as training problems, for which groups are sampled and hints scored."""
    return Task(task.name, task.evaluations["seen_sizes"][:count], {}, task.verifier, task.instruction)


def _accuracy_failures(mean: float, gates: Gates) -> list[str]:
    return [] if gates.low <= mean <= gates.high else [f"accuracy {mean:.2f} outside [{gates.low}, {gates.high}]"]


def measure_puzzles(
    network: Network, tokenizer: Any, recipe: PuzzleRecipe, split: Split = "val", groups: int = 24, seed: int = 1
) -> GateReport:
    """Measure a base for Knights & Knaves: accuracy by size, and what hints do to its conclusions.

    Hints are scored on `groups` groups of rollouts.
    """
    task = build_task(
        {
            "kind": "knights_and_knaves",
            "name": recipe.name,
            "train_sizes": recipe.train_sizes,
            "unseen_sizes": recipe.unseen_sizes,
            "train_per_size": 1,
            "eval_per_size": recipe.gates.problems,
            "eval_split": split,
            "forms": recipe.forms,
            "people": recipe.people,
            "wording": "plain",
        }
    )
    model = BaseModel(network, tokenizer, _TOKENS_PER_PERSON * max(*recipe.train_sizes, *recipe.unseen_sizes))
    accuracy: dict[int, float] = {}
    lengths: list[float] = []
    for problems in task.evaluations.values():
        by_size = defaultdict(list)
        for problem, answered in zip(problems, model.answer(task, problems, seed), strict=True):
            by_size[problem.extra["size"]].append(answered)
        for size, items in by_size.items():
            summary = summarise(str(size), items)
            accuracy[size] = summary.mean
            if size in recipe.train_sizes:
                lengths.append(summary.length)
    figures = conclusion_signals(model, _signal_task(task, groups))
    network.model.train()
    return GateReport(
        accuracy, sum(lengths) / len(lengths), figures, tuple(_puzzle_failures(recipe, accuracy, figures))
    )


def conclusion_signals(model: BaseModel, task: Task) -> dict[str, float]:
    """Mean signal of hints over conclusion tokens of correct and of wrong rollouts, in nats."""
    table = hint_signals(model.engine, task, model.method, model.signal_settings(seed=0))
    figures = {}
    for target in ("correct", "wrong"):
        for name in SIGNALS:
            value = table.mean("conclusion", target, name)
            figures[f"{name} on {target}"] = value if value is not None else float("nan")
    return figures


def _puzzle_failures(recipe: PuzzleRecipe, accuracy: dict[int, float], figures: dict[str, float]) -> list[str]:
    gates = recipe.gates
    trained = [accuracy[size] for size in recipe.train_sizes]
    failures = _accuracy_failures(sum(trained) / len(trained), gates)
    if max(accuracy[size] for size in recipe.unseen_sizes) < gates.unseen:
        failures.append("no unseen size is ever solved")
    expected_signs = {
        f"{_CORRECT} on correct": 1,
        f"{_WRONG} on correct": -1,
        f"{_CONTRAST} on correct": 1,
        f"{_CONTRAST} on wrong": -1,
    }
    for name, sign in expected_signs.items():
        floor = gates.contrast if name.startswith(_CONTRAST) else 0.0
        if not sign * figures[name] > floor:  # true for nan
            failures.append(f"{name} is {figures[name]:+.3f}")
    return failures


def measure_roll_call(
    network: Network, tokenizer: Any, recipe: RollCallRecipe, split: Split = "val", groups: int = 24, seed: int = 1
) -> GateReport:
    """Measure a base for the roll call: accuracy by answer and by decision, style, and the signal on decisions.

    Hints are scored on `groups` groups of rollouts.
    """
    task = build_task(
        {
            "kind": "roll_call",
            "name": recipe.name,
            "train_sizes": recipe.train_sizes,
            "known": recipe.known,
            "unseen_sizes": [],
            "train_per_size": 1,
            "eval_per_size": recipe.gates.problems,
            "eval_split": split,
            "people": recipe.people,
        }
    )
    model = BaseModel(network, tokenizer, _TOKENS_PER_SPEAKER * max(recipe.train_sizes))
    problems = task.evaluations["seen_sizes"]
    answered = model.answer(task, problems, seed)
    accuracy = {
        size: summarise(str(size), [a for a, p in zip(answered, problems, strict=True) if p.extra["size"] == size]).mean
        for size in recipe.train_sizes
    }
    style = _style([(item.question, text) for item in answered for text in item.responses])
    signals = decision_signals(model.engine, _signal_task(task, groups), model.method, model.signal_settings(seed))
    figures = {**style, "AUC on decisions": signals.auc(), "usable rollouts": signals.table.usable}
    figures |= {f"contrast on {kind} decisions": signals.mean(kind) for kind in ("right", "wrong")}
    network.model.train()
    length = sum(sum(item.lengths) for item in answered) / sum(len(item.lengths) for item in answered)
    return GateReport(accuracy, length, figures, tuple(_roll_call_failures(recipe, accuracy, figures)), "speakers")


def _style(responses: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Shares of right verdicts and of worked lines, the spread of the latter over responses, interjections per line.

    `responses` are (question, response) pairs.
    """
    readings = [read_response(parse_question(question), text) for question, text in responses]
    lines = [line for reading in readings for line in reading.lines]
    shares = [sum(line.worked for line in r.lines) / len(r.lines) for r in readings if r.lines]
    count = max(len(lines), 1)
    return {
        "right verdicts": sum(bool(line.right) for line in lines) / count,
        "worked lines": sum(line.worked for line in lines) / count,
        "spread of worked lines": statistics.pstdev(shares) if shares else 0.0,
        "interjections": sum(reading.interjections for reading in readings) / count,
    }


def _roll_call_failures(recipe: RollCallRecipe, accuracy: dict[int, float], figures: dict[str, float]) -> list[str]:
    gates = recipe.gates
    failures = _accuracy_failures(sum(accuracy.values()) / len(accuracy), gates)
    low, high = gates.worked
    if not low <= figures["worked lines"] <= high:
        failures.append(f"worked lines {figures['worked lines']:.2f} outside [{low}, {high}]")
    floors = {"right verdicts": gates.decision, "AUC on decisions": gates.auc, "spread of worked lines": gates.style}
    failures += [f"{name} {figures[name]:.2f}" for name, floor in floors.items() if not figures[name] >= floor]
    return failures

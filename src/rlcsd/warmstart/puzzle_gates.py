"""Is this base worth training? Accuracy, reach, and whether it reads hints; measured on validation puzzles."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

from ..engine.local.network import Network
from ..evaluation import summarise
from ..inspection.signals import hint_signals
from ..tasks.base import Task
from ..tasks.build import KnightsAndKnavesParameters, knights_and_knaves
from .gates import Bench, GateReport, outside
from .recipe import PuzzleRecipe

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
    return GateReport(accuracy, sum(lengths) / len(lengths), signals, tuple(_shut(recipe, accuracy, signals)))


def conclusion_signals(bench: Bench, task: Task, groups: int) -> dict[str, float]:
    """Mean over conclusion tokens of what hints do: gain under a correct hint, loss under wrong ones, contrast."""
    table = hint_signals(bench.engine, bench.groups_of(task, groups), bench.method, bench.signals(seed=0))
    signals = {}
    for target in ("correct", "wrong"):
        for name in ("correct_gain", "wrong_gain", "contrast"):
            value = table.mean("conclusion", target, name)
            signals[f"{name} on {target}"] = value if value is not None else float("nan")
    return signals


def _shut(recipe: PuzzleRecipe, accuracy: dict[int, float], signals: dict[str, float]) -> list[str]:
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

"""Is a roll call's base worth training? Accuracy by answer and by decision, style, and whether hints mark decisions."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from ..engine.local.network import Network
from ..evaluation import summarise
from ..inspection.decisions import decision_signals
from ..tasks.build import RollCallParameters, roll_call
from ..tasks.roll_call import parse_question, read
from .gates import Bench, GateReport, outside
from .recipe import RollCallRecipe

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
    return GateReport(accuracy, length, figures, tuple(_shut(recipe, accuracy, figures)), "speakers")


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


def _shut(recipe: RollCallRecipe, accuracy: dict[int, float], figures: dict[str, float]) -> list[str]:
    gates = recipe.gates
    reasons = outside(sum(accuracy.values()) / len(accuracy), gates.low, gates.high)
    low, high = gates.worked
    if not low <= figures["worked lines"] <= high:
        reasons.append(f"worked lines {figures['worked lines']:.2f} outside [{low}, {high}]")
    floors = {"right verdicts": gates.decision, "AUC on decisions": gates.auc, "spread of worked lines": gates.style}
    reasons += [f"{name} {figures[name]:.2f}" for name, floor in floors.items() if not figures[name] >= floor]
    return reasons

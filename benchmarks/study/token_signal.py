"""What a hint says of each kind of token before any training: alone (one-sided), and against wrong hints (contrast).

    python benchmarks/study/token_signal.py [--problems 24] [--model tiny_roll_call]

Writes docs/study/signal.json, from which report.py makes the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine
from rlcsd.experiments.decision_labels import auc, decision_kinds
from rlcsd.experiments.roll_call import INTERJECTIONS
from rlcsd.inspection.signals import SIGNALS, SignalSettings, SignalTable, hint_signals
from rlcsd.records import Problem
from rlcsd.storage import write_text
from rlcsd.tasks.registry import build_task

OUT = Path(__file__).parents[2] / "docs" / "study" / "signal.json"
KINDS = ("right", "wrong", "works a line", "interjects", "other")


def kinds(problem: Problem, text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """Right and wrong decisions, the two choices of style at the token that makes them, and everything else.

    A line begins to be worked at its `;`, and an interjection at the line break before it.
    """
    found = decision_kinds(problem, text, offsets)
    for place, (start, end) in enumerate(offsets):
        if found[place] != "other":
            continue
        if text[start:end].startswith(";"):
            found[place] = "works a line"
        elif text[start:end] == "\n" and text[end:].startswith(INTERJECTIONS):
            found[place] = "interjects"
    return found


def rows(table: SignalTable) -> list[dict[str, object]]:
    """Tokens and mean signals, by kind and by whether the rollout is correct."""
    found: list[dict[str, object]] = []
    for kind in KINDS:
        for target in ("correct", "wrong"):
            count = len(table.values(kind, target, "contrast"))
            if count:
                means = {name: round(float(table.values(kind, target, name).mean()), 4) for name in SIGNALS}
                found.append({"kind": kind, "target": target, "tokens": count, **means})
    return found


def aucs(table: SignalTable) -> dict[str, float]:
    """Of right against wrong decisions: everywhere, and within wrong rollouts alone."""
    found = {}
    for label, among in (("all rollouts", np.ones_like(table.target)), ("wrong rollouts", ~table.target)):
        for name in ("teacher_gap", "contrast"):
            values = [table.columns[name][among & (table.kind == kind)] for kind in ("right", "wrong")]
            found[f"{name}, {label}"] = round(auc(values[0], values[1]), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--model", default="tiny_roll_call", help="as in model.path")
    arguments = parser.parse_args()
    config = load(["task=roll_call", "method=rlcsd", f"model.path={arguments.model}", "engine.threads=1"])
    method, task = (
        build_method(config),
        build_task(config.task.model_copy(update={"train_per_size": arguments.problems})),
    )
    settings = SignalSettings(config.group_size, config.sampling.settings(), seed=config.seed)
    table = hint_signals(build_engine(config, method), task, method, settings, kinds)
    record = {"model": arguments.model, "problems": arguments.problems, "usable": round(table.usable, 3)}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        OUT, json.dumps({**record, "accuracy": round(table.accuracy, 3), "rows": rows(table), "auc": aucs(table)})
    )
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

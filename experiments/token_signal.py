"""Signal of hints by kind of token before any training: correct hint alone (one-sided), and contrast with wrong hints.

    python experiments/token_signal.py [--problems 192] [--model tiny_roll_call] [--smoke]

Writes records/signal.json, from which report.py makes a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from studies import RECORDS

from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine
from rlcsd.experiments.decision_labels import auc, decision_kinds
from rlcsd.experiments.roll_call import INTERJECTIONS
from rlcsd.inspection.signals import SIGNALS, SignalSettings, SignalTable, hint_signals
from rlcsd.records import Problem
from rlcsd.storage import write_text
from rlcsd.tasks.registry import build_task

OUT = RECORDS / "signal.json"
KINDS = ("right", "wrong", "works a line", "interjects", "other")


def kinds(problem: Problem, text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """Right and wrong decisions, the two choices of style at the token that makes them, and everything else.

    A line begins to be worked at its `;`, and an interjection at the line break before it.
    """
    found = decision_kinds(problem, text, offsets)
    for index, (start, end) in enumerate(offsets):
        if found[index] != "other":
            continue
        if text[start:end].startswith(";"):
            found[index] = "works a line"
        elif text[start:end] == "\n" and text[end:].startswith(INTERJECTIONS):
            found[index] = "interjects"
    return found


def rows(table: SignalTable) -> list[dict[str, object]]:
    """Tokens and mean signals, by kind and by whether the rollout is correct."""
    found: list[dict[str, object]] = []
    for kind in KINDS:
        for target in ("correct", "wrong"):
            values = {name: table.values(kind, target, name) for name in SIGNALS}
            if len(values["contrast"]):
                means = {name: round(float(column.mean()), 4) for name, column in values.items()}
                found.append({"kind": kind, "target": target, "tokens": len(values["contrast"]), **means})
    return found


def aucs(table: SignalTable) -> dict[str, float]:
    """Of right against wrong decisions: everywhere, and within wrong rollouts alone."""
    found = {}
    for label, among in (("all rollouts", np.ones_like(table.target)), ("wrong rollouts", ~table.target)):
        for name in ("teacher_gap", "contrast"):
            right, wrong = (table.columns[name][among & (table.kind == kind)] for kind in ("right", "wrong"))
            found[f"{name}, {label}"] = round(auc(right, wrong), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--model", default="tiny_roll_call", help="as in model.path")
    parser.add_argument("--smoke", action="store_true", help="two problems and short responses; writes nothing")
    arguments = parser.parse_args()
    problems, smoke = (2, ["group_size=4", "sampling.max_tokens=90"]) if arguments.smoke else (arguments.problems, [])
    sizes = [f"task.train_per_size={problems}", "engine.threads=1", *smoke]
    config = load(["task=roll_call", "method=rlcsd", f"model.path={arguments.model}", *sizes])
    method, task = build_method(config), build_task(config.task)
    settings = SignalSettings(config.group_size, config.sampling.settings(), seed=config.seed)
    table = hint_signals(build_engine(config, method), task, method, settings, kinds)
    record = {
        "model": arguments.model,
        "problems": problems,
        "usable": round(table.usable, 3),
        "accuracy": round(table.accuracy, 3),
        "rows": rows(table),
        "auc": aucs(table),
    }
    print(json.dumps(record))
    if not arguments.smoke:
        write_text(OUT, json.dumps(record))


if __name__ == "__main__":
    main()

"""Run folders for the tests of reports, written without training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from rlcsd.evaluation import Summary

WORDS = ("Wait", ",", " so", " Alice", " is", " a", " knight", ".", "\n", " 7", " +", "é", " 🙂")


def write_config(folder: Path, method: str = "rlcsd", seed: int = 0, **more: Any) -> Path:
    """The config of a run, as JSON, which YAML contains."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "method": {"name": method, "tau": 0.1},
        "task": {"name": "kk_tiny"},
        "model": {"path": "tiny"},
        "seed": seed,
    }
    (folder / "config.yaml").write_text(json.dumps({**config, "log_rollouts": 4, **more}))
    return folder


def summary(name: str, mean: float, samples: int = 1, problems: int = 10) -> dict[str, Any]:
    """A summary of an evaluation set as `evaluations.jsonl` has it."""
    return Summary(name, problems, samples, mean, mean - 0.1, mean + 0.1, {1: mean}, 1.0, 0.0, 90.0).as_dict()


def rollout(rng: random.Random, tokens: int, correct: bool, contrastive: bool = True, **changes: Any) -> dict[str, Any]:
    """A rollout record of schema 3 with random signals."""
    pieces = [rng.choice(WORDS) for _ in range(tokens)]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(tokens)] if tokens < 200 else _running(pieces)

    def column(spread: float = 1.0) -> list[float]:
        return [round(rng.gauss(0, spread) * rng.random() ** 4, 6) for _ in range(tokens)]

    columns = {
        "ids": list(range(tokens)),
        "start": [0, *ends[:-1]],
        "end": ends,
        "log_prob": [-abs(v) for v in column()],
    }
    columns |= {"entropy": [abs(v) for v in column()], "final_advantage": column(), "weight": [1.0] * tokens}
    if contrastive:
        columns |= {"teacher": column(2), "wrong": column(2), "contrast": column(3)}
        columns["selected"] = [abs(v) > 0.01 for v in columns["contrast"]]
    hint = {"place": 1, "answer": "Alice", "text": "I think it is \\boxed{Alice}"}
    wrong = [{"place": 2, "answer": "Bob", "text": "It is \\boxed{Bob}"}]
    facts = {
        "text": "".join(pieces),
        "reward": float(correct),
        "correct": correct,
        "advantage": 0.9 if correct else -0.7,
    }
    facts |= {"boxed": "Alice" if correct else None, "finished": True, "updated": True, "tokens": tokens, "cut": 0}
    return {**facts, **columns, **({"hints": {"correct": hint, "wrong": wrong}} if contrastive else {}), **changes}


def _running(pieces: list[str]) -> list[int]:
    ends, total = [], 0
    for piece in pieces:
        total += len(piece)
        ends.append(total)
    return ends


def group(step: int, number: int, rollouts: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A group record of schema 3."""
    record = {
        "schema": 3,
        "step": step,
        "group": number,
        "kind": "3 people",
        "question": "Who is a knight?",
        "answer": "Alice",
    }
    return {**record, "rollouts": rollouts, **changes}


def write_run(
    folder: Path, steps: int = 2, groups: int = 2, size: int = 4, tokens: int = 30, method: str = "rlcsd", seed: int = 0
) -> Path:
    """A run with recorded rollouts; half of each group is correct."""
    rng = random.Random(seed)
    write_config(folder, method, seed)
    contrastive = method != "grpo"
    records = [
        group(step, number, [rollout(rng, tokens, place < size // 2, contrastive) for place in range(size)])
        for step in range(1, steps + 1)
        for number in range(groups)
    ]
    lines(folder / "rollouts.jsonl", records)
    lines(
        folder / "metrics.jsonl", [{"step": step, "rollout/reward": 0.3 + 0.01 * step} for step in range(1, steps + 1)]
    )
    return folder


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")

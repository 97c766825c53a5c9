"""What the studies share: arms, paired runs that are skipped once finished, and one small JSON record for each.

Runs of the same seed see the same problems in the same order, so arms are compared seed by seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcsd.storage import write_text

if TYPE_CHECKING:
    from rlcsd.config.schema import Config
    from rlcsd.engine.interface import Engine
    from rlcsd.tasks.task import Task

CURVES = {
    "accuracy": "rollout/accuracy",
    "entropy": "actor/entropy",
    "length": "rollout/length",
    "worked": "style/worked",
    "interjections": "style/interjections",
    "right verdicts": "style/right_verdicts",
}
MEANS = ("rlcsd/", "hints/usable_share", "e_ctr/abs_mean", "groups/mixed", "rollout/truncated", "teacher/gap_abs")


@dataclass(frozen=True)
class Arm:
    """One thing compared: config overrides, and for an oracle how it is degraded (see oracle.py)."""

    name: str
    overrides: tuple[str, ...]
    oracle: str | None = None


@dataclass(frozen=True)
class Study:
    """Arms on common settings; `test` problems of each size answer the final accuracy, and with `before` the base's."""

    name: str
    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    test: int = 1000
    before: bool = False

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


@lru_cache(maxsize=4)
def _task(parameters: str) -> Task:
    """Runs of one process share their problems."""
    from rlcsd.tasks.registry import build_task

    return build_task(json.loads(parameters))


def _accuracies(engine: Engine, task: Task, config: Config) -> dict[str, float]:
    """By evaluation set, and by group of problems where a set has several."""
    from rlcsd import evaluation

    summaries, _ = evaluation.evaluate(engine, task, evaluation.EvaluationSettings.of(config))
    return {summary.name: round(summary.mean, 4) for summary in summaries}


def run_one(study: Study, arm: Arm, seed: int, path: Path) -> dict[str, Any]:
    """One run, from the file at `path` if it is finished already."""
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    import torch
    from oracle import OracleTrainer

    from rlcsd.config.load import load
    from rlcsd.engine.interface import build_engine
    from rlcsd.prepare import prepare
    from rlcsd.trainer import Trainer

    torch.set_num_threads(1)
    fixed = [
        f"seed={seed}",
        "engine.threads=1",
        "engine.self_check=false",
        "task.eval_split=test",
        "evaluation.samples=1",
        "evaluation.batch=512",
        "engine.sample_rows=512",
    ]
    config = load([*fixed, f"task.eval_per_size={study.test}", *study.common, *arm.overrides])
    task = _task(json.dumps(config.model_dump()["task"]))
    prepared = prepare(config, task)
    engine = build_engine(config, prepared.method)
    trainer = OracleTrainer(prepared, engine, kind=arm.oracle) if arm.oracle else Trainer(prepared, engine)
    measured = {"before": _accuracies(engine, task, config)} if study.before else {}
    begun, steps = time.perf_counter(), []
    trainer.run(after_step=lambda result: steps.append(result.metrics))
    trained = time.perf_counter() - begun
    measured["test"] = _accuracies(engine, task, config)
    record = {
        "study": study.name,
        "arm": arm.name,
        "seed": seed,
        "learning_rate": config.learning_rate,
        "seconds": round(trained),
        "curves": {name: [round(s.get(key, 0.0), 4) for s in steps] for name, key in CURVES.items()},
        "means": {
            key: round(sum(s[key] for s in steps if key in s) / sum(key in s for s in steps), 4)
            for key in sorted({key for s in steps for key in s if key.startswith(MEANS)})
        },
        **measured,
    }
    write_text(path, json.dumps(record))
    return record


def _job(job: tuple[Study, Arm, int, Path]) -> str:
    study, arm, seed, path = job
    record = run_one(study, arm, seed, path)
    accuracy = record["curves"]["accuracy"]
    return f"{arm.name} {seed}: area {sum(accuracy) / len(accuracy):.3f}, test {record['test']}, {record['seconds']} s"


def run_study(study: Study, out: Path, arms: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Every arm at the first seed, then at the second …: what is finished early is paired."""
    folder = out / study.name
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [study.arm(name) for name in arms] if arms else list(study.arms)
    work = [(study, arm, seed, folder / f"{arm.name}-{seed}.json") for seed in seeds or study.seeds for arm in chosen]
    if jobs == 1:
        for job in work:
            print(_job(job), flush=True)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for line in pool.map(_job, work):
            print(line, flush=True)

"""Run a study, or resume it: finished runs are skipped.

    python experiments/run.py drift --out runs/study --jobs 2
    python experiments/run.py credit --out runs/study --arms grpo oracle rlcsd --seeds 201 202
    python experiments/run.py credit --smoke          # one step of two arms, in seconds; writes nothing

Every run leaves one small JSON record; `report.py` collects the records and makes tables and figures of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies import CURVES, STUDIES, Arm, Study

from rlcsd.storage import write_text

if TYPE_CHECKING:
    from rlcsd.config.schema import Config
    from rlcsd.engine.interface import Engine
    from rlcsd.prepare import Prepared
    from rlcsd.tasks.task import Task
    from rlcsd.trainer import Trainer

# Metrics by prefix whose mean over the steps is recorded
MEANS = (
    "rlcsd/",
    "hints/usable_share",
    "e_ctr/abs_mean",
    "groups/mixed",
    "rollout/truncated",
    "teacher/gap_abs",
    "refill/batches",
    "rollout/tokens",
    "misaligned/",
    "update/changed_share",
    "update/micro_batch_rollouts",
)
FIXED = (
    "engine.threads=1",
    "engine.self_check=false",
    "task.eval_split=test",
    "evaluation.samples=1",
    "evaluation.batch=512",
    "engine.sample_rows=512",
)
SMOKE = (
    "steps=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=4", "task.train_per_size=2",
    "task.eval_per_size=1", "sampling.max_tokens=24", "evaluation.sampling.max_tokens=16",
)  # fmt: skip


def summarised(
    steps: Sequence[Mapping[str, float]], curves: Mapping[str, str] = CURVES, means: tuple[str, ...] = MEANS
) -> dict[str, Any]:
    """What a record keeps of the metrics of each step: `curves` by name, and the means of metrics by their prefixes."""
    return {
        "curves": {name: [round(s.get(key, 0.0), 4) for s in steps] for name, key in curves.items()},
        "means": {
            key: round(sum(s[key] for s in steps if key in s) / sum(key in s for s in steps), 4)
            for key in sorted({key for s in steps for key in s if key.startswith(means)})
        },
    }


def run_one(study: Study, arm: Arm, seed: int, path: Path) -> dict[str, Any]:
    """Train one arm with one seed and write its record to `path`; a record that is there already is returned."""
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    import torch

    from rlcsd.config.load import load
    from rlcsd.prepare import prepare

    torch.set_num_threads(1)
    config = load([f"seed={seed}", *FIXED, f"task.eval_per_size={study.test}", *study.common, *arm.overrides])
    task = _task(json.dumps(config.model_dump(mode="json")["task"]))
    prepared = prepare(config, task)
    trainer = _trainer(arm, prepared)
    engine = trainer.engine
    measured = {"before": _accuracies(engine, task, config)} if study.before else {}
    begun, steps = time.perf_counter(), []
    trainer.run(after_step=lambda result: steps.append(result.metrics))
    seconds = time.perf_counter() - begun
    measured["test"] = _accuracies(engine, task, config)
    record = {
        "study": study.name,
        "arm": arm.name,
        "seed": seed,
        "learning_rate": config.learning_rate,
        "seconds": round(seconds),
        **summarised(steps),
        **measured,
    }
    write_text(path, json.dumps(record))
    return record


def _trainer(arm: Arm, prepared: Prepared) -> Trainer:
    """The trainer of an arm, with its engine."""
    from misaligned import MisalignedEngine, MisalignedTrainer
    from oracle import OracleTrainer

    from rlcsd.engine.interface import build_engine
    from rlcsd.trainer import Trainer

    if arm.severity:
        return MisalignedTrainer(prepared, MisalignedEngine(prepared.config, prepared.method), severity=arm.severity)
    engine = build_engine(prepared.config, prepared.method)
    return OracleTrainer(prepared, engine, kind=arm.oracle) if arm.oracle else Trainer(prepared, engine)


@lru_cache(maxsize=4)
def _task(parameters: str) -> Task:
    """The task of these JSON parameters; the runs of a process share their problems."""
    from rlcsd.tasks.registry import build_task

    return build_task(json.loads(parameters))


def _accuracies(engine: Engine, task: Task, config: Config) -> dict[str, float]:
    """Accuracy of each evaluation set, and of each group of problems where a set has several."""
    from rlcsd import evaluation

    summaries, _ = evaluation.evaluate(engine, task, evaluation.EvaluationSettings.of(config))
    return {summary.name: round(summary.mean, 4) for summary in summaries}


def _job(job: tuple[Study, Arm, int, Path]) -> str:
    study, arm, seed, path = job
    record = run_one(study, arm, seed, path)
    accuracy = record["curves"]["accuracy"]
    return f"{arm.name} {seed}: area {sum(accuracy) / len(accuracy):.3f}, test {record['test']}, {record['seconds']} s"


def run_study(study: Study, out: Path, arms: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Run every arm with the first seed, then with the second and so on, so that what is finished early is paired."""
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


def smoke_study(study: Study) -> Study:
    """The study at the smallest sizes: its first arm and its first with another trainer, on bases of the package."""
    others = [arm for arm in study.arms if arm.oracle or arm.severity][:1]

    def small(arm: Arm) -> Arm:
        missing = [o for o in (*study.common, *arm.overrides) if o.startswith("model.path=bases/")]
        base = ["model.path=tiny_roll_call"] if missing and not os.path.isdir(missing[-1].partition("=")[2]) else []
        return replace(arm, overrides=(*arm.overrides, *SMOKE, *base))

    return replace(study, arms=tuple(map(small, (study.arms[0], *others))), seeds=study.seeds[:1], test=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--arms", nargs="*", default=[], help="default: all, in the order of the study")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="default: those of the study")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--smoke", action="store_true", help="one step of two arms at tiny sizes; writes nothing")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    unknown = sorted(set(arguments.arms) - {arm.name for arm in study.arms})
    if unknown:
        parser.error(f"--arms {unknown[0]}: known are {', '.join(arm.name for arm in study.arms)}")
    if arguments.smoke:
        with tempfile.TemporaryDirectory() as folder:
            run_study(smoke_study(study), Path(folder), [], [], 1)
        return
    run_study(study, arguments.out, arguments.arms, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    main()

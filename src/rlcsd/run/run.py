"""A run: config → task, method, engine, trainer; and the folder that keeps all of it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .. import evaluation
from ..config.load import as_config, build_method, to_yaml
from ..config.schema import Config
from ..engine.base import Engine, build_engine
from ..errors import InputError
from ..evaluation import EvaluationSettings, Summary, summary
from ..folders import append_jsonl, read_jsonl
from ..methods.base import Method
from ..report.training import summaries_of, write_report
from ..tasks.base import Task
from ..tasks.build import build_task
from ..tasks.overlap import overlaps
from ..trainer import StepResult, Trainer
from .checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from .rollouts import records
from .tracking import Tracker, check_trackers, open_trackers

Watcher = Callable[[str, Mapping[str, Any]], None]


class Run:
    """One training run and its folder.

    `config.yaml`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `rollouts.jsonl` (a sample of groups
    with hints and signals), `evaluations.jsonl`, `checkpoints/`, `report.md` and `report.png`.
    """

    def __init__(
        self, config: Config, task: Task | None = None, folder: Path | None = None, watch: Watcher | None = None
    ) -> None:
        self.config = config
        self.method: Method = build_method(config)
        self.task = task or build_task(config.task)
        self.engine: Engine = build_engine(config, self.method)
        self.trainer = Trainer(config, self.task, self.method, self.engine)
        evaluation.check(self.engine, self.task, EvaluationSettings.of(config))
        check_trackers(config.trackers)
        self.folder = folder or new_folder(config, self.task.name)
        self.watch = watch or (lambda event, facts: None)
        self.evaluations: list[tuple[int, list[Summary]]] = []
        self.trackers: list[Tracker] = []

    def execute(self, resume: bool = False) -> dict[str, Any]:
        """Evaluate, train, evaluate, report. Returns the final summaries and the folder."""
        start = self._open(resume)
        try:
            if self.config.evaluation.before and start == 0:
                self.evaluate(0)
            self.trainer.run(start, self._after_step)
            if start < self.trainer.steps:
                save_checkpoint(self.folder / "checkpoints", self.engine, self.trainer.steps)
            if not self.evaluations or self.evaluations[-1][0] != self.trainer.steps:
                self.evaluate(self.trainer.steps)
        finally:
            for tracker in self.trackers:
                tracker.close()
            self.engine.close()
        write_report(self.folder, self.config.figures)
        before = self.evaluations[0][1] if self.evaluations[0][0] == 0 else []
        return {"folder": str(self.folder), "before": before, "after": self.evaluations[-1][1]}

    def evaluate(self, step: int) -> list[Summary]:
        """Held-out accuracy now, into the log and `evaluations.jsonl`."""
        if not self.task.evaluations:
            self.evaluations.append((step, []))
            return []
        begun = time.perf_counter()
        summaries, _ = evaluation.evaluate(self.engine, self.task, EvaluationSettings.of(self.config))
        self.evaluations.append((step, summaries))
        append_jsonl(self.folder / "evaluations.jsonl", {"step": step, "sets": [one.as_dict() for one in summaries]})
        figures = {**summary.metrics(summaries), "time/evaluation": time.perf_counter() - begun}
        for tracker in self.trackers:
            tracker.log(figures, step)
        self.watch("evaluation", {"step": step, "summaries": summaries})
        return summaries

    def _open(self, resume: bool) -> int:
        start = self._restore() if resume else 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(to_yaml(self.config), encoding="utf-8")
            (self.folder / "environment.json").write_text(
                json.dumps(environment(self.engine), indent=2), encoding="utf-8"
            )
        except OSError as error:
            raise InputError(f"output_dir={self.config.output_dir}: cannot be written to ({error.strerror})") from None
        self.trackers = open_trackers(self.config.trackers, self.folder, self.config.project, self.config.model_dump())
        left_out = len(self.task.train) - len(self.trainer.train)
        shared = [str(found) for found in overlaps(self.task.train, self.task.evaluations) if found.normalised]
        self.watch(
            "start", {"folder": str(self.folder), "steps": self.trainer.steps, "left_out": left_out, "overlaps": shared}
        )
        return start

    def _restore(self) -> int:
        """Go back to the last checkpoint: weights and state, and logs without what was written after it."""
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            raise InputError(
                f"--resume {self.folder}: there is no checkpoint to go on from (save_every={self.config.save_every})"
            )
        start = load_checkpoint(checkpoint, self.engine)
        for name in ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl"):
            if (self.folder / name).is_file():
                kept = [record for record in read_jsonl(self.folder / name) if record["step"] <= start]
                text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
                (self.folder / name).write_text(text, encoding="utf-8")
        self.evaluations = [(r["step"], summaries_of(r)) for r in read_jsonl(self.folder / "evaluations.jsonl")]
        return start

    def _after_step(self, result: StepResult) -> None:
        for tracker in self.trackers:
            tracker.log(result.metrics, result.step)
        if self.config.log_rollouts:
            append_jsonl(
                self.folder / "rollouts.jsonl", *records(result, self.engine.tokenizer, self.config.log_rollouts)
            )
        self.watch("step", {"step": result.step, "metrics": result.metrics})
        c = self.config
        if result.step == self.trainer.steps:
            return  # saved and evaluated at the end
        if c.save_every and result.step % c.save_every == 0:
            save_checkpoint(self.folder / "checkpoints", self.engine, result.step)
        if c.evaluation.every and result.step % c.evaluation.every == 0:
            self.evaluate(result.step)


def new_folder(config: Config, task_name: str) -> Path:
    """`output_dir/run_name`, or a name from task, method, seed and time that is not taken yet."""
    base = Path(config.output_dir)
    if config.run_name:
        folder = base / config.run_name
        if (folder / "metrics.jsonl").exists():
            raise InputError(
                f"run_name={config.run_name}: {folder} already holds a run; choose another name or pass "
                f"--resume {folder}"
            )
        return folder
    method = str(config.method["name"]).rpartition(":")[2]
    stem = f"{task_name}-{method}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base / stem, 2
    while folder.exists():
        folder, number = base / f"{stem}-{number}", number + 1
    return folder


def environment(engine: Engine) -> dict[str, Any]:
    """What a number depends on beside the config."""
    packages: dict[str, str | None] = {}
    for name in ("rlcsd", "torch", "transformers", "tokenizers", "peft", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    device = engine.device
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "packages": packages,
    }


def train(
    config: Config | Mapping[str, Any] | list[str] | None = None, task: Task | None = None, watch: Watcher | None = None
) -> dict[str, Any]:
    """Train, and return `{"folder", "before", "after"}`, the last two as lists of `summary.Summary`.

    `config` is a `Config`, a list of overrides (`["method=grpo", "steps=20"]`), a mapping
    (`{"method": "grpo", "sampling": {"max_tokens": 256}, "method.tau": 0.1}`), or None for the embedded default.
    `task` replaces the config's task.

    Raises:
        InputError: anything wrong with the config or the data, before anything is sampled.
    """
    return Run(as_config(config), task, watch=watch).execute()

"""A run: config → task, method, engine, trainer; and the folder that keeps all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import torch

from .. import evaluation
from ..config.load import build_method, to_yaml
from ..config.schema import Config
from ..engine.interface import Engine, build_engine
from ..engine.local.local_engine import with_threads
from ..errors import InputError
from ..evaluation import Answered, EvaluationSettings, Summary, outcomes, summary
from ..methods.base import Method
from ..report.run_report import write_report
from ..report.run_results import summaries_of
from ..storage import append_jsonl, is_disk_full, remove_left_overs, write_text
from ..tasks.registry import build_task
from ..tasks.task import Task, overlaps
from ..trainer import StepResult, Trainer
from .checkpoint import (
    best_step,
    check_same_run,
    cut_logs,
    data_hash,
    load_checkpoint,
    log_lengths,
    newest_whole,
    no_longer_better,
    prune,
    read_facts,
    save_checkpoint,
    with_newest_checkpoint,
)
from .folder import RunLock, environment, new_folder
from .push import check_hub, push
from .rollout_log import rollout_records, sample_completion
from .stop import Interrupted, StopSignals
from .tracking import Tracker, check_trackers, open_trackers

Watcher = Callable[[str, Mapping[str, Any]], None]


class Run:
    """One training run and its folder.

    `config.yaml`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `rollouts.jsonl` (a sample of groups
    with hints and signals), `evaluations.jsonl`, `checkpoints/`, `report.md` and `report.png`.

    `watch` is told what happens: `phase`, `start`, `step`, `evaluation` and `warning`, each with its facts.
    """

    def __init__(
        self, config: Config, task: Task | None = None, folder: Path | None = None, watch: Watcher | None = None
    ) -> None:
        self.watch = watch or (lambda event, facts: None)
        if folder is None:  # a run that is resumed keeps what its config and its checkpoint say
            config = with_threads(with_newest_checkpoint(config))
        self.config = config
        self.method: Method = build_method(config)
        self._phase(f"building the task {config.task.get('name', '')}".rstrip())
        self.task = task or build_task(config.task)
        check_trackers(config.trackers)
        if config.push_to_hub:
            check_hub(config.push_to_hub)
        self.folder = folder or new_folder(config, self.task.name)
        self.lock = RunLock(self.folder)
        self.lock.check()
        self._phase(f"loading the model {config.model.path}")
        self.evaluations: list[tuple[int, list[Summary]]] = []
        self.trackers: list[Tracker] = []
        with StopSignals(self._warn).listening():
            self.engine: Engine = build_engine(config, self.method)
            with ExitStack() as undo:
                undo.callback(self.engine.close)
                self.trainer = Trainer(config, self.task, self.method, self.engine, self._phase)
                evaluation.check(self.engine, self.task, EvaluationSettings.of(config))
                undo.pop_all()
        self.stop = StopSignals(self._warn)
        self.saved: int | None = None  # the step of the newest checkpoint

    def execute(self, resume: bool = False) -> dict[str, Any]:
        """Evaluate, train, evaluate, report. Returns the final summaries and the folder.

        With `resume` the run goes on from its newest whole checkpoint, or begins again if it has none yet.

        Raises:
            InputError: the folder is held by another process, cannot be resumed, or the run has diverged.
            Interrupted: a signal stopped the run; a checkpoint of the last finished step is saved.
        """
        with self.stop.listening(), closing(self.engine):
            self.lock.acquire()
            try:
                self._train(self._open(resume))
            finally:
                for tracker in self.trackers:
                    with suppress(OSError):  # a full disk has been reported already
                        tracker.close()
                self.lock.release()
        if self.config.push_to_hub:
            self._phase(f"uploading to {self.config.push_to_hub}")
            stopped_early = self.evaluations[-1][0] < self.trainer.steps
            push(self.folder, self.config.push_to_hub, self._best() if stopped_early else None)
        before = self.evaluations[0][1] if self.evaluations[0][0] == 0 else []
        return {"folder": str(self.folder), "before": before, "after": self.evaluations[-1][1]}

    def _train(self, start: int) -> None:
        last = self.trainer.steps
        done, at = start, min(start + 1, last)
        try:
            self._evaluate_if_due(start)
            for number in range(start + 1, last + 1):
                if no_longer_better(self.evaluations, self.config.evaluation):
                    break
                at = number
                with self.stop.deferred():
                    result = self.trainer.timed_step(number)
                    self._record(result)
                    done = number
                    if number == last or (self.config.save_every and number % self.config.save_every == 0):
                        self.save(number)
                self.stop.check()
                self._evaluate_if_due(number)
            self._end(done)
        except Interrupted as interrupted:
            raise Interrupted(interrupted.number, self._stopped(done)) from None
        except (InputError, OSError) as error:
            if isinstance(error, OSError) and not is_disk_full(error) and self.folder.is_dir():
                raise
            if not self.folder.is_dir():
                raise InputError(f"{self.folder}: the run folder was removed while the run was going on") from None
            reason = "no space is left on the disk" if isinstance(error, OSError) else error
            raise InputError(f"step {at}: {reason}{self._way_on()}") from error

    def _end(self, done: int) -> None:
        """What a finished run leaves, whether it made all its steps or stopped early."""
        if done < self.trainer.steps:
            best = self._best()
            at = f"; the best was step {best}, whose checkpoint is kept" if best else ""
            self._warn(
                f"stopped early after step {done} of {self.trainer.steps}: no better held-out accuracy in "
                f"{self.config.evaluation.patience} evaluations{at}"
            )
            if self.saved != done:
                with self.stop.deferred():
                    self.save(done)
        write_report(self.folder, self.config.figures)

    def _stopped(self, done: int) -> str:
        """Save what is done and say how to go on."""
        if done and self.saved != done:
            with self.stop.deferred():
                self.save(done)
        return f"stopped after step {done} of {self.trainer.steps}{self._way_on()}"

    def _way_on(self) -> str:
        where = f"from the checkpoint of step {self.saved}" if self.saved else "from the beginning"
        return f"; `rlcsd train --resume {self.folder}` goes on {where}"

    def save(self, step: int) -> None:
        """A checkpoint of the engine as it is after `step`, with all that resuming checks and restores."""
        facts = {
            "logs": log_lengths(self.folder),
            "config": self.config.model_dump(mode="json"),
            "data": data_hash(self.task),
            "threads": torch.get_num_threads(),
            "health": self.trainer.health.state(),
        }
        folder = self.folder / "checkpoints"
        self._check_folder()
        save_checkpoint(folder, self.engine, step, facts)
        self.saved = step
        prune(folder, self.config.keep_last, self._best())

    def _best(self) -> int | None:
        return best_step(self.evaluations) if self.config.keep_best else None

    def _evaluate_if_due(self, step: int) -> None:
        """The evaluation that belongs to `step`, unless it is there already (a resumed run)."""
        c, done = self.config.evaluation, self.evaluations and self.evaluations[-1][0] == step
        due = c.before if step == 0 else step == self.trainer.steps or (c.every and step % c.every == 0)
        if due and not done:
            self.evaluate(step)

    def evaluate(self, step: int) -> list[Summary]:
        """Held-out accuracy now, into the metrics and then, as the sign that it is whole, `evaluations.jsonl`."""
        if not self.task.evaluations:
            self.evaluations.append((step, []))
            return []
        begun = time.perf_counter()
        total = sum(map(len, self.task.evaluations.values()))
        done = 0

        def progress(batch: Sequence[Answered]) -> None:
            nonlocal done
            done += len(batch)
            self._phase("evaluate", done=done, total=total)

        self._phase("evaluate", done=0, total=total)
        settings = EvaluationSettings.of(self.config)
        summaries, answered = evaluation.evaluate(self.engine, self.task, settings, keep=progress)
        figures = {**summary.metrics(summaries), "time/evaluation": time.perf_counter() - begun}
        with self.stop.deferred():
            self._check_folder()
            for tracker in self.trackers:
                tracker.log(figures, step)
            record = {"step": step, "sets": [one.as_dict() for one in summaries], "outcomes": outcomes(answered)}
            append_jsonl(self.folder / "evaluations.jsonl", record)
            self.evaluations.append((step, summaries))
        self.watch("evaluation", {"step": step, "summaries": summaries, "seconds": figures["time/evaluation"]})
        self.stop.check()
        return summaries

    def _open(self, resume: bool) -> int:
        start = self._restore() if resume else 0
        try:
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            write_text(self.folder / "environment.json", json.dumps(environment(self.engine), indent=2))
        except OSError as error:
            raise InputError(f"output_dir={self.config.output_dir}: cannot be written to ({error.strerror})") from None
        self.trackers = open_trackers(
            self.config.trackers, self.folder, self.config.project, self.config.model_dump(), start
        )
        left_out = len(self.task.train) - len(self.trainer.train)
        shared = [str(found) for found in overlaps(self.task.train, self.task.evaluations) if found.normalised]
        facts = {"folder": str(self.folder), "steps": self.trainer.steps, "left_out": left_out, "overlaps": shared}
        c = self.config
        about = {
            "title": f"{c.method['name']} on {self.task.name}, {c.model.path}",
            "threads": torch.get_num_threads() if self.engine.device.type == "cpu" else 0,
            "evaluate_every": c.evaluation.every,
        }
        self.watch("start", {**facts, **about, "start": start, "evaluations": self.evaluations})
        return start

    def _restore(self) -> int:
        """Go back to the newest whole checkpoint: weights and state, and the logs as they were when it was saved.

        A run without a checkpoint begins again, with empty logs.
        """
        folder = self.folder / "checkpoints"
        remove_left_overs(self.folder, alone=True)
        remove_left_overs(folder, alone=True)
        checkpoint, complaints = newest_whole(folder)
        start, facts = 0, {}
        if checkpoint is not None:
            for complaint in complaints:
                self._warn(f"{complaint}; going back to {checkpoint.name}")
            facts = read_facts(checkpoint)
            check_same_run(checkpoint, facts, self.config, self.task)
            planned = facts["config"]["steps"]
            if planned != self.config.steps and self.config.lr_scheduler_type != "constant":
                self._warn(
                    f"steps={self.config.steps}: from here on the learning rate follows lr_scheduler_type="
                    f"{self.config.lr_scheduler_type} over so many steps, not over the {planned} of the run's plan"
                )
            if torch.get_num_threads() != facts["threads"]:
                torch.set_num_threads(facts["threads"])  # another number of threads gives other sums
            start = self.saved = load_checkpoint(checkpoint, self.engine)
            self.trainer.health.load_state(facts.get("health", {}))
            if start > self.trainer.steps:
                raise InputError(f"steps={self.trainer.steps}: the run has already done {start} steps")
        kept = cut_logs(self.folder, facts.get("logs", {}), start)
        self.evaluations = [(record["step"], summaries_of(record)) for record in kept]
        return start

    def _record(self, result: StepResult) -> None:
        self._check_folder()
        for tracker in self.trackers:
            tracker.log(result.metrics, result.step)
        if self.config.log_rollouts:
            kept = rollout_records(result, self.engine.tokenizer, self.config.log_rollouts, self.method)
            append_jsonl(self.folder / "rollouts.jsonl", *kept)
        completion = sample_completion(result) if self._shows(result.step) else None
        facts = {"step": result.step, "metrics": result.metrics}
        self.watch("step", {**facts, "no_update": result.no_update, "completion": completion})
        for warning in result.warnings:
            self._warn(f"step {result.step}: {warning}")

    def _shows(self, step: int) -> bool:
        every = self.config.show_completion_every
        return bool(every) and (step == 1 or step % every == 0)

    def _phase(self, phase: str, **facts: int) -> None:
        self.watch("phase", {"phase": phase, **facts})

    def _check_folder(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: the run folder was removed while the run was going on")

    def _warn(self, message: str) -> None:
        self.watch("warning", {"message": message})

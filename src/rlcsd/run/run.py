"""A training run: it builds task, method, engine and trainer from a config, and keeps everything in a run folder.

`train` is the entry point of a program, `Run` that of the command line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from .. import evaluation
from ..config.load import as_config, to_yaml
from ..config.schema import Config
from ..engine.interface import Engine, build_engine
from ..engine.local.local_engine import with_threads
from ..errors import InputError, OutOfMemoryError
from ..evaluation import (
    Answered,
    EvaluationSettings,
    Summary,
    no_longer_better,
    outcomes,
    sample_answers,
    summaries_of,
    summary,
)
from ..health import DivergedError
from ..prepare import prepare
from ..report.run_report import write_report
from ..report.run_results import method_label
from ..storage import append_jsonl, is_disk_full, remove_left_overs, write_text
from ..tasks.given_task import GivenTaskParameters, data_hash, write_copy
from ..tasks.task import Task, overlaps
from ..trainer import StepResult, Trainer
from .checkpoint import (
    best_step,
    check_same_run,
    checkpoint_writer,
    checkpoints,
    cut_logs,
    load_checkpoint,
    log_lengths,
    newest_whole,
    prune,
    read_facts,
    step_of,
)
from .console import ProgressDisplay, Style
from .folder import (
    RunLock,
    environment,
    lock_new,
    new_folder,
    resumed_config,
    with_given_task,
    with_newest_checkpoint,
    with_task_of_run,
)
from .plan import check_machine
from .push import push
from .result import Result
from .rollout_log import rollout_records, sample_completion, sample_rows
from .stop import Interrupted, StopSignals, StopTraining
from .tracking import Tracker, open_trackers

Watcher = Callable[[str, Mapping[str, Any]], None]
"""Called with each event of a run ("phase", "start", "step", "evaluation", "warning") and its facts."""
OnStep = Callable[[int, Mapping[str, float]], object]
"""Called with the number and the metrics of each step once it is recorded; StopTraining ends the run after it."""


def train(
    config: Config | Mapping[str, Any] | Sequence[str] | None = None,
    task: Task | None = None,
    watch: Watcher | None = None,
    progress: bool | Style = True,
    resume: str | Path | None = None,
    on_step: OnStep | None = None,
) -> Result:
    """Train, and return the run's `Result`: its accuracy before and after, metrics, curves, pages, and the model.

    >>> import rlcsd
    >>> result = rlcsd.train({"method": "grpo", "steps": 1, **settings}, progress=False)
    >>> [row["step"] for row in result.log]
    [1]

    Args:
        config: overrides (`["method=grpo", "steps=20"]`), a mapping (`{"method": "grpo", "sampling": {"max_tokens":
            256}, "method.tau": 0.1}`), a `Config`, the path of a YAML file, or None for the embedded default.
        task: replaces the config's task.
        watch: called with each event of the run and its facts.
        progress: shows the run on stderr: a live view on a terminal or in a notebook, log lines elsewhere. False shows
            nothing; "live", "lines" and "off" choose.
        resume: the folder of a run to resume from its newest checkpoint; `config` is then a list of overrides of keys
            that may change, such as `["steps=60"]`.
        on_step: called with the number and the metrics of each step; it may raise `StopTraining("why")`, and the run
            then ends after this step as after its last: it saves, evaluates, and writes the report.

    Raises:
        InputError: anything wrong with the config or the data, before anything is sampled.
    """
    folder = Path(resume) if resume is not None else None
    if folder is None:
        chosen = as_config(config, "own" if task is not None else None)
    elif isinstance(config, Config | Mapping | str | Path):
        raise InputError('resume: the run has its config; give changes as overrides, for example ["steps=60"]')
    else:
        chosen = resumed_config(folder, list(config or []))
    style: Style = progress if isinstance(progress, str) else "auto" if progress else "off"
    with ProgressDisplay(style, sys.stderr) as display:

        def on_event(event: str, facts: Mapping[str, Any]) -> None:
            display.watch(event, facts)
            if watch is not None:
                watch(event, facts)

        return Run(chosen, task, folder, on_event, on_step).execute(resume=folder is not None)


_WITHOUT_UPDATE = (
    "sample",
    "grade",
    "hint",
    "evaluate",
    "on_step",
)  # phases in which the weights are those of the last step


class Run:
    """One training run and its folder.

    The folder holds `config.yaml`, `environment.json`, `metrics.jsonl`, `tensorboard/`, `rollouts.jsonl` (some groups
    of each step with hints and signals), `evaluations.jsonl`, `events.jsonl` (warnings, steps without an update, and
    the overlap of training and evaluation problems), `checkpoints/`, `report.md` and `report.png`.

    Args:
        task: replaces the config's task.
        folder: the folder of a run that is resumed; None makes a new one.
        watch: called with each event and its facts.
        on_step: called after each step; see `train`.

    Raises:
        InputError: the config, the data or the machine does not allow the run. Nothing is written then.
    """

    def __init__(
        self,
        config: Config,
        task: Task | None = None,
        folder: Path | None = None,
        watch: Watcher | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.watch, self.on_step = watch or (lambda event, facts: None), on_step
        self._step, self._events = 0, list[dict[str, Any]]()  # the step that is done, and events not yet written
        self._stopped_by_user = False
        self._current_phase = ""
        if config.rehearsal:
            raise InputError("rehearsal=true: `rlcsd train` does it; in Python call rlcsd.run.rehearsal.rehearse")
        if folder is not None:
            config, task = with_task_of_run(folder, config, task, self._warn)
        else:  # a resumed run has all three in its config
            config = with_threads(with_newest_checkpoint(config))
            if task is not None:
                config, task = with_given_task(config, task)
        self.config = config
        self._phase(f"building the task {config.task.name}".rstrip())
        prepared = prepare(config, task)
        self.config = config = prepared.config
        self.method, self.task, self._remarks = prepared.method, prepared.task, prepared.warnings
        check_machine(config)
        self.folder = folder or new_folder(config, self.task.name)
        self.lock = RunLock(self.folder)
        self.lock.check()
        self._phase(f"loading the model {config.model.path}")
        self.evaluations: list[tuple[int, list[Summary]]] = []
        self.trackers: list[Tracker] = []
        with StopSignals(self._warn).listening():
            self.engine: Engine = build_engine(config, self.method, prepared.tokenizer, prepared.check_prompts())
            with ExitStack() as undo:
                undo.callback(self.engine.close)
                self.trainer = Trainer(prepared, self.engine, self._phase)
                undo.pop_all()
        self.stop = StopSignals(self._warn)
        self.saved: int | None = None  # the step of the newest checkpoint
        self._saving: tuple[int, int | None, Future[Path]] | None = None  # a checkpoint in progress, and the best step

    def execute(self, resume: bool = False) -> Result:
        """Evaluate, train, evaluate, report.

        With `resume` the run starts at its newest whole checkpoint, or at the beginning if it has none yet.

        Raises:
            InputError: the folder is held by another process, cannot be resumed, or the run has diverged.
            Interrupted: a signal stopped the run; a checkpoint of the last finished step is saved.
        """
        with self.stop.listening(), closing(self.engine), closing(self.task):
            if resume:
                self.lock.acquire()
            else:
                self.lock = lock_new(self.folder, named=self.config.run_name is not None)
                self.folder = self.lock.folder
            try:
                self._train(self._open(resume))
            finally:
                with suppress(Exception):  # an error of it has been reported, unless another one came first
                    self._finish_saving()
                for tracker in self.trackers:
                    with suppress(OSError):  # a full disk has been reported already
                        tracker.close()
                self.lock.release()
        if self.config.push_to_hub:
            self._phase(f"uploading to {self.config.push_to_hub}")
            stopped_early = self.evaluations[-1][0] < self.trainer.steps
            push(self.folder, self.config.push_to_hub, self._best() if stopped_early else None)
        return Result(self.folder, self.task)

    def _train(self, start: int) -> None:
        last = self.trainer.steps
        done, at, begun = start, min(start + 1, last), False
        rule = self.config.evaluation
        try:
            self._evaluate_if_due(start)
            for number in range(start + 1, last + 1):
                if no_longer_better((found for _, found in self.evaluations), rule.patience, rule.min_gain):
                    break
                at = number
                self._finish_saving(wait=False)
                with self.stop.deferred():
                    begun = True
                    with self._profiled(number):
                        result = self.trainer.timed_step(number)
                    done, begun = number, False
                    self._record(result)
                    if number == last or (self.config.save_every and number % self.config.save_every == 0):
                        self.save(number)
                self.stop.check()
                self._call_on_step(result)
                self._evaluate_if_due(number)
                self._save_if_best(number)
                if self._stopped_by_user:
                    break
            self._end(done)
        except Interrupted as interrupted:
            message = self._stopped(done, begun and self._updating)
            self._report_end(message)
            raise Interrupted(interrupted.number, message) from None
        except Exception as error:
            self._save_after(error, done, begun and self._updating)
            where = {"evaluate": f"evaluation after step {done}", "on_step": f"on_step after step {done}"}.get(
                self._current_phase, f"step {at}"
            )
            try:
                self._explain(error, where)
            except InputError as explained:
                self._report_end(str(explained))
                raise
            self._report_end()
            raise

    def _call_on_step(self, result: StepResult) -> None:
        """Tell the user's function of a step, which may end the run after it."""
        if self.on_step is None:
            return
        self._phase("on_step")
        try:
            self.on_step(result.step, result.metrics)
        except StopTraining as stopped:
            self._stopped_by_user = True
            reason = f": {stopped}" if str(stopped) else ""
            self._warn(f"stopped by on_step after step {result.step} of {self.trainer.steps}{reason}")

    @contextmanager
    def _profiled(self, step: int) -> Iterator[None]:
        """Trace a step that `engine.profile_steps` names; chrome://tracing and Perfetto show the file."""
        if step not in getattr(self.config.engine, "profile_steps", ()):
            yield
            return
        with torch.profiler.profile() as profiler:  # of the CPU, and of a GPU where there is one
            yield
        path = self.folder / "profile" / f"step_{step:06d}.json.gz"
        path.parent.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(path))

    @property
    def _updating(self) -> bool:
        """Whether a step that has begun may have changed weights."""
        return self._current_phase not in _WITHOUT_UPDATE

    def _save_after(self, error: Exception, done: int, updating: bool) -> None:
        """Save step `done` after an error, if it has no checkpoint yet.

        `updating`: the error came after the first update of the next step may have begun. Until then the weights are
        those of step `done`. Later they are a little ahead: the step that failed is repeated on resume, from there, and
        a warning says so; what is lost otherwise is every step since the last checkpoint. Not saved is what has
        diverged, and what an engine of several processes is left with after an error while it scores or updates.
        """
        begun = self.trainer.updates_done if updating else 0
        with self.stop.deferred(), suppress(Exception):  # the error that is reported is the first
            self._finish_saving()
            lost = isinstance(error, DivergedError) or is_disk_full(error)
            partial = isinstance(error, OutOfMemoryError) and error.phase == "optimizer step"
            if lost or partial or not done or self.saved == done or (updating and self.config.engine.name != "local"):
                return
            self.save(done, begun)
            self._finish_saving()
            if begun:
                self._warn(_ahead(done, begun))

    def _explain(self, error: Exception, at: str) -> None:
        """Raise InputError for an error that is the user's, or warn how to resume after another one.

        `at` is the step or evaluation in which it came.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: the run folder was removed while the run was going on") from None
        if isinstance(error, InputError) or is_disk_full(error):
            reason = error if isinstance(error, InputError) else "no space is left on the disk"
            override = error.override if isinstance(error, OutOfMemoryError) else None
            raise InputError(f"{at}: {reason}{self._how_to_resume(override)}") from error
        self._warn(f"{at} failed with {type(error).__name__}{self._how_to_resume()}")

    def _report_end(self, message: str = "") -> None:
        """Write the report of a run that did not come to its end, if it can be written."""
        if message:
            self._events.append({"step": self._step, "event": "warning", "message": message})
        with suppress(Exception):
            self._write_events()
            write_report(self.folder, self.config.figures)

    def _end(self, done: int) -> None:
        """Save the last step of a run that stopped early, and write the report."""
        self._finish_saving()
        if done < self.trainer.steps:
            if self.saved != done:
                with self.stop.deferred():
                    self.save(done)
                    self._finish_saving()
            if not self._stopped_by_user:
                self._warn(
                    f"stopped early after step {done} of {self.trainer.steps}: no better held-out accuracy in "
                    f"{self.config.evaluation.patience} evaluations{self._about_best()}"
                )
        self._write_events()
        write_report(self.folder, self.config.figures)

    def _stopped(self, done: int, changing: bool) -> str:
        """Save step `done` unless it is saved; returns a sentence on how to resume.

        `changing`: a second signal came while the next step was at its updates, so the weights are no longer those of
        step `done`, and nothing is saved.
        """
        with self.stop.deferred():
            self._finish_saving()
            if done and self.saved != done and not changing:
                self.save(done)
                self._finish_saving()
        where = f"within step {done + 1}" if changing else f"after step {done}"
        return f"stopped {where} of {self.trainer.steps}{self._how_to_resume()}"

    def _how_to_resume(self, override: str | None = None) -> str:
        where = f"from the checkpoint of step {self.saved}" if self.saved else "from the beginning"
        return f"; `rlcsd train --resume {self.folder}{f' {override}' if override else ''}` goes on {where}"

    def save(self, step: int, begun: int = 0) -> None:
        """Write a checkpoint of the engine, which is at the end of `step`, and prune older ones.

        If the engine gives a copy of itself, a thread writes while the run goes on; `_finish_saving` ends that.
        `begun`: updates of the next step that it has made as well.
        """
        self._finish_saving()
        facts = {
            "logs": log_lengths(self.folder),
            "config": self.config.model_dump(mode="json"),
            "steps": self.trainer.steps,
            "data": data_hash(self.task),
            "threads": torch.get_num_threads(),
            "health": self.trainer.health.state(),
            "extra_problems": self.trainer.extra_problems,
            "begun": begun,
        }
        folder = self.folder / "checkpoints"
        self._check_folder()
        copied = self.engine.snapshot()
        write = checkpoint_writer(folder, self.engine, step, facts, copied)
        best = self._best(step)
        if copied is None:
            write()
            self._end_of_saving(step, best)
        else:
            thread = ThreadPoolExecutor(1, "checkpoint")
            self._saving = step, best, thread.submit(write)
            thread.shutdown(wait=False)

    def _finish_saving(self, wait: bool = True) -> None:
        """Wait for the checkpoint that is written in the background, or, without `wait`, see whether it is done.

        Raises what its thread raised; then the checkpoint does not exist.
        """
        if self._saving is not None and (wait or self._saving[2].done()):
            (step, best, writing), self._saving = self._saving, None
            writing.result()
            self._end_of_saving(step, best)

    def _end_of_saving(self, step: int, best: int | None) -> None:
        self.saved = step
        prune(self.folder / "checkpoints", step, self.config.keep_last, best)

    def _save_if_best(self, step: int) -> None:
        """Save the step that has just been evaluated as the best so far, unless the config saves only at the end."""
        c = self.config
        last = self._saving[0] if self._saving is not None else self.saved
        if c.keep_best and c.save_every and last != step and best_step(self.evaluations) == step:
            with self.stop.deferred():
                self.save(step)
            self.stop.check()

    def _best(self, *more: int) -> int | None:
        """The best evaluated step among those that have a checkpoint, and `more`; pruning keeps it."""
        saved = [*more, *(step_of(path) for path in checkpoints(self.folder / "checkpoints"))]
        return best_step(self.evaluations, saved) if self.config.keep_best else None

    def _about_best(self) -> str:
        """The best step and where its weights are, as the end of a sentence."""
        best, kept = best_step(self.evaluations), self._best()
        if best is None:
            return ""
        if kept is None:
            return f"; the best was step {best}, of which no checkpoint is kept"
        if kept == best:
            return f"; the best was step {best}, whose checkpoint is kept"
        return f"; the best was step {best}, which was not saved; the best of the saved steps, {kept}, is kept"

    def _evaluate_if_due(self, step: int) -> None:
        """Evaluate after `step` if the config asks for it and a resumed run has not done so already."""
        c, done = self.config.evaluation, self.evaluations and self.evaluations[-1][0] == step
        last = self._stopped_by_user or step == self.trainer.steps
        due = c.before if step == 0 else last or (c.every and step % c.every == 0)
        if due and not done:
            self.evaluate(step)

    def evaluate(self, step: int) -> list[Summary]:
        """Measure held-out accuracy. The record in `evaluations.jsonl` is written last: it marks the evaluation as
        complete."""
        if not self.task.evaluations:
            self.evaluations.append((step, []))
            return []
        begun = time.perf_counter()
        total = sum(map(len, self.task.evaluations.values()))
        done = 0

        def count(batch: Sequence[Answered]) -> None:
            nonlocal done
            done += len(batch)
            self._phase("evaluate", done=done, total=total)

        self._phase("evaluate", done=0, total=total)
        settings = EvaluationSettings.of(self.config)
        summaries, answered = evaluation.evaluate(self.engine, self.task, settings, keep=count)
        figures = {**summary.metrics(summaries), "time/evaluation": time.perf_counter() - begun}
        with self.stop.deferred():
            self._check_folder()
            for tracker in self.trackers:
                tracker.log(figures, step)
            record = {"step": step, "sets": [one.as_dict() for one in summaries], "outcomes": outcomes(answered)}
            append_jsonl(self.folder / "evaluations.jsonl", {**record, "samples": sample_answers(answered)})
            self.evaluations.append((step, summaries))
        self.watch("evaluation", {"step": step, "summaries": summaries, "seconds": figures["time/evaluation"]})
        self.stop.check()
        return summaries

    def _open(self, resume: bool) -> int:
        """Restore a resumed run, write config and environment, open the trackers; returns the step to start after."""
        start = self._restore() if resume else 0
        try:
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            if isinstance(self.config.task, GivenTaskParameters) and not resume:
                write_copy(self.folder, self.task)
            write_text(self.folder / "environment.json", json.dumps(environment(self.engine), indent=2))
        except OSError as error:
            raise InputError(f"output_dir={self.config.output_dir}: cannot be written to ({error.strerror})") from None
        self.trackers = open_trackers(
            self.config.trackers, self.folder, self.config.project, self.config.model_dump(), start
        )
        left_out = len(self.task.train) - len(self.trainer.train)
        found = overlaps(self.task.train, self.task.evaluations)
        shared = [str(one) for one in found if one.normalised]
        if start == 0:
            for one in found:
                counts = {"problems": one.problems, "exact": one.exact, "normalised": one.normalised}
                self._events.append({"step": 0, "event": "overlap", "set": one.name, **counts})
        facts = {"folder": str(self.folder), "steps": self.trainer.steps, "left_out": left_out, "overlaps": shared}
        c = self.config
        about = {
            "title": f"{method_label(c.method.name, getattr(c.method, 'objective', None))} on {self.task.name}, "
            f"{c.model.path}",
            "threads": torch.get_num_threads() if self.engine.device.type == "cpu" else 0,
            "evaluate_every": c.evaluation.every,
        }
        self.watch("start", {**facts, **about, "start": start, "evaluations": self.evaluations})
        for remark in self._remarks:
            self._warn(remark)
        return start

    def _restore(self) -> int:
        """Restore weights, state and logs as they were at the newest whole checkpoint; returns its step.

        A run without a checkpoint starts at step 0 with empty logs.
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
            steps = self.trainer.steps
            check_same_run(checkpoint, facts, self.config, self.task, steps)
            # A version before this fact kept no number of steps where epochs decide.
            planned = facts.get("steps") or facts["config"]["steps"] or steps
            if planned != steps and self.config.lr_scheduler_type != "constant":
                self._warn(
                    f"steps={steps}: from here on the learning rate follows lr_scheduler_type="
                    f"{self.config.lr_scheduler_type} over so many steps, not over the {planned} of the run's plan"
                )
            if torch.get_num_threads() != facts["threads"]:
                torch.set_num_threads(facts["threads"])  # another number of threads rounds differently
            start = self.saved = load_checkpoint(checkpoint, self.engine)
            if facts.get("begun"):
                self._warn(_ahead(start, facts["begun"]))
            self.trainer.health.load_state(facts.get("health", {}))
            self.trainer.extra_problems = int(facts.get("extra_problems", 0))
        kept = cut_logs(self.folder, facts.get("logs", {}), start)
        self.evaluations = [(record["step"], summaries_of(record)) for record in kept]
        self._step = start
        return start

    def _record(self, result: StepResult) -> None:
        """Write the metrics and rollouts of a step, and report it as an event."""
        self._check_folder()
        for tracker in self.trackers:
            tracker.log(result.metrics, result.step)
        self._step = result.step
        if result.no_update:
            self._events.append({"step": result.step, "event": "no_update", "message": result.no_update})
        if self.config.log_rollouts:
            kept = rollout_records(result, self.engine.tokenizer, self.config.log_rollouts, self.method)
            append_jsonl(self.folder / "rollouts.jsonl", *kept)
        completion = None
        if self._shows_completion(result.step):
            completion, rows = sample_completion(result), sample_rows(result)
            for tracker in self.trackers:
                tracker.log_samples(rows, result.step)
        facts = {"step": result.step, "metrics": result.metrics}
        self.watch("step", {**facts, "no_update": result.no_update, "completion": completion})
        for warning in result.warnings:
            self._warn(f"step {result.step}: {warning}")
        self._write_events()

    def _shows_completion(self, step: int) -> bool:
        every = self.config.show_completion_every
        return bool(every) and (step == 1 or step % every == 0)

    def _phase(self, phase: str, **facts: int) -> None:
        self._current_phase = phase
        self.watch("phase", {"phase": phase, **facts})

    def _check_folder(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: the run folder was removed while the run was going on")

    def _warn(self, message: str) -> None:
        """Report a warning. A signal handler may call this, so it is written to the log of events later."""
        self.watch("warning", {"message": message})
        self._events.append({"step": self._step, "event": "warning", "message": message})

    def _write_events(self) -> None:
        events, self._events = self._events, []
        append_jsonl(self.folder / "events.jsonl", *events)


def _ahead(step: int, begun: int) -> str:
    updates = "1 update" if begun == 1 else f"{begun} updates"
    return (
        f"the checkpoint of step {step} holds {updates} of step {step + 1} as well, which failed after that and is "
        "repeated from there: a run without the error would have other numbers"
    )

"""`rlcsd train … rehearsal=true`: measure a run before it is paid for.

Three steps of the real sizes in a folder of their own, saved after the second and resumed for the third, then an
evaluation on few problems; from what was measured follow hours, memory and disk of the real run. The steps are few, not
small: neither sampling, which waits for the longest response, nor memory grows in proportion to the prompts, so that
nothing could be concluded from a step with fewer of them.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ..config.schema import Config, VerlEngineConfig
from ..engine.costs import DEVICES, evaluation_seconds, evaluations
from ..engine.local.memory import load_shape
from ..errors import InputError
from ..prepare import prepare
from ..records import Problem
from ..report.run_results import REHEARSAL
from ..storage import read_jsonl, write_text
from ..tasks.task import Task
from .folder import default_name, new_folder, with_newest_checkpoint
from .plan import check_machine
from .run import Run, Watcher
from .stop import Interrupted

STEPS, SAVE_AFTER, PROBLEMS = 3, 2, 64
_GIB = 2**30


@dataclass(frozen=True)
class Rehearsal:
    """What was measured, and what follows for the real run. Seconds, bytes and tokens; `phases` are seconds a step."""

    folder: str
    steps: int
    phases: Mapping[str, float]
    step: float
    tokens: float
    length: float
    truncated: float
    start: float
    save: float
    resume: float
    evaluation: float
    evaluated: int
    problems: int
    evaluations: int
    full_evaluation: float
    saves: int
    checkpoint: int
    kept: int
    logs: int
    host_memory: int
    device_memory: int | None

    @property
    def seconds(self) -> float:
        """Seconds of the real run."""
        return self.start + self.steps * self.step + self.evaluations * self.full_evaluation + self.saves * self.save

    @property
    def disk(self) -> int:
        """Bytes of the real run's folder at most: checkpoints that are kept, one that is being written, and logs."""
        return (self.kept + 1) * self.checkpoint + self.logs * self.steps // STEPS

    def __str__(self) -> str:
        rates = {name: f" ({1e6 * value / self.tokens:.3g} µs a token)" for name, value in self.phases.items()}
        phases = ", ".join(f"{name} {value:.3g} s{rates[name]}" for name, value in self.phases.items())
        device = f", {self.device_memory / _GIB:.2f} GiB of the GPU" if self.device_memory is not None else ""
        hours = [
            (f"{self.steps} steps", self.steps * self.step),
            (f"{self.evaluations} evaluations of {self.problems} problems", self.evaluations * self.full_evaluation),
            (f"{self.saves} checkpoints", self.saves * self.save),
        ]
        parts = ", ".join(f"{what} {seconds / 3600:.3g}" for what, seconds in hours)
        lines = {
            "rehearsal": f"{STEPS} steps in {self.folder}; their checkpoints are removed",
            "step": f"{self.step:.3g} s: {phases}",
            "responses": f"{self.length:.0f} tokens on average, {self.truncated:.0%} cut off; a step has "
            f"{self.tokens:,.0f} tokens",
            "checkpoint": f"{self.checkpoint / _GIB:.3g} GiB, saved in {self.save:.3g} s, resumed in "
            f"{self.resume:.3g} s",
            "evaluation": f"{self.evaluated} problems in {self.evaluation:.3g} s",
            "hours": f"{self.seconds / 3600:.3g} for the whole run ({parts}), if responses stay as long as they are",
            "memory": f"{self.host_memory / _GIB:.2f} GiB of this process at its peak{device}",
            "disk": f"at most {self.disk / _GIB:.3g} GiB: {self.kept} checkpoints, one being written, and logs",
        }
        return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def rehearse(config: Config, watch: Watcher | None = None, task: Task | None = None) -> Rehearsal:
    """Rehearse the run of `config`; the result is also in `rehearsal.json` and `rehearsal.md` of its folder.

    The folder of the real run is neither made nor changed.

    Raises:
        InputError: as the run itself would.
    """
    prepared = prepare(with_newest_checkpoint(config), task)
    config = prepared.config
    check_machine(config)
    new_folder(config, prepared.task.name)  # raises for a name that is taken
    small_task = replace(prepared.task, evaluations=few_problems(prepared.task.evaluations))
    small = _small(config, prepared.task.name)
    listen = watch or (lambda event, facts: None)
    saves: list[float] = []
    loads: list[float] = []

    def stop(event: str, facts: Mapping[str, Any]) -> None:
        listen(event, facts)
        if event == "step" and facts["step"] == SAVE_AFTER:
            first.stop.received = signal.SIGTERM  # the run saves and ends, as a scheduler would end it

    begun = time.perf_counter()
    first = Run(small, small_task, watch=stop)
    start = time.perf_counter() - begun
    _timed(first, "save", saves)
    try:
        first.execute()
    except Interrupted:
        if first.saved != SAVE_AFTER:  # a signal of the user's
            raise
    begun = time.perf_counter()
    second = Run(first.config, small_task, first.folder, listen)
    build = time.perf_counter() - begun
    _timed(second, "save", saves)
    _timed(second, "_restore", loads)
    second.execute(resume=True)
    result = _measured(
        config, second.folder, prepared.steps, start, saves, build + sum(loads), prepared.task, small_task
    )
    write_text(second.folder / "rehearsal.md", str(result) + "\n")
    facts = {**asdict(result), "seconds": result.seconds, "disk": result.disk}
    write_text(second.folder / "rehearsal.json", json.dumps(facts, indent=2))
    shutil.rmtree(second.folder / "checkpoints")
    return result


def few_problems(sets: Mapping[str, Sequence[Problem]], limit: int = PROBLEMS) -> dict[str, list[Problem]]:
    """At most `limit` problems of all sets together (but one of each set), spread evenly over each set."""
    total = sum(map(len, sets.values()))
    if total <= limit:
        return {name: list(problems) for name, problems in sets.items()}
    counts = {name: max(1, len(problems) * limit // total) for name, problems in sets.items()}
    return {name: [problems[n * len(problems) // counts[name]] for n in range(counts[name])]
            for name, problems in sets.items()}  # fmt: skip


def _small(config: Config, task_name: str) -> Config:
    """The real config, but few steps and no trackers, in a folder of its own."""
    stem = config.run_name or default_name(config, task_name)
    evaluation = {"before": False, "every": 0, "patience": 0}
    return config.model_copy(
        update={
            "rehearsal": False,
            "steps": STEPS,
            "save_every": SAVE_AFTER,
            "keep_last": 1,
            "keep_best": False,
            "lr_scheduler_type": "constant",
            "lr_scheduler_kwargs": {},
            "trackers": [],
            "push_to_hub": None,
            "figures": False,
            "show_completion_every": 0,
            "run_name": f"{stem}{REHEARSAL}{time.strftime('%Y%m%d-%H%M%S')}",
            "evaluation": config.evaluation.model_copy(update=evaluation),
        }
    )


def _timed(run: Run, name: str, seconds: list[float]) -> None:
    """Note the seconds of each call of the run's method."""
    method: Callable[..., Any] = getattr(run, name)

    def call(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        result = method(*arguments, **named)
        seconds.append(time.perf_counter() - begun)
        return result

    setattr(run, name, call)


def _measured(
    config: Config, folder: Path, steps: int, start: float, saved: list[float], resume: float, task: Task, small: Task
) -> Rehearsal:
    records = read_jsonl(folder / "metrics.jsonl")
    taken = [record for record in records if "time/step" in record]
    evaluated = [record["time/evaluation"] for record in records if "time/evaluation" in record]

    def middle(name: str) -> float:
        # The first steps of an engine compile and warm up; the median of three leaves out one that did.
        return median([record.get(name, 0.0) for record in taken])

    phases = {name: middle(f"time/{name}") for name in ("sample", "grade", "hint", "score", "update")}
    problems, few = (sum(map(len, one.evaluations.values())) for one in (task, small))
    saves = 1 + (steps - 1) // int(config.save_every) if config.save_every else 1
    best = config.keep_best and problems > 0 and config.evaluation.every > 0
    reserved = [value for one in taken for name, value in one.items() if name.startswith("perf/memory_reserved/")]
    return Rehearsal(
        folder=str(folder),
        steps=steps,
        phases=phases,
        step=middle("time/step"),
        tokens=middle("rollout/tokens"),
        length=middle("rollout/length"),
        truncated=middle("rollout/truncated"),
        start=start,
        save=median(saved),
        resume=resume,
        evaluation=sum(evaluated),
        evaluated=few,
        problems=problems,
        evaluations=evaluations(config, steps) if problems else 0,
        full_evaluation=sum(evaluated) * _growth(config, few, problems),
        saves=saves,
        checkpoint=_bytes(folder / "checkpoints"),
        kept=min(config.keep_last or saves, saves) + int(best),
        logs=sum(
            (folder / name).stat().st_size for name in ("metrics.jsonl", "rollouts.jsonl") if (folder / name).exists()
        ),
        host_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        device_memory=int(max(reserved) * _GIB) if reserved else None,
    )


def _growth(config: Config, few: int, problems: int) -> float:
    """How many times as long the evaluation of all problems takes.

    On a CPU it is proportional to their number. A GPU waits for the longest response in either case: the cost model
    says how much longer.
    """
    if not few:
        return 0.0
    if not torch.cuda.is_available():
        return problems / few
    try:
        shape = load_shape(config.model)
    except InputError:
        return problems / few
    name = torch.cuda.get_device_name(0)
    device = next((one for key, one in DEVICES.items() if key in name), DEVICES["H100"])
    devices = config.engine.gpus if isinstance(config.engine, VerlEngineConfig) else 1
    whole, part = (evaluation_seconds(shape, count, config, device, devices) for count in (problems, few))
    return whole / part


def _bytes(folder: Path) -> int:
    """Bytes of the one checkpoint that is kept."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

"""`rlcsd eval` and `rlcsd.evaluate`: held-out accuracy of any model on any task, or of a run on its own task."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import evaluation
from ..config.load import as_overrides, build_method, literal, split_override
from ..config.schema import Config
from ..engine.interface import build_engine
from ..engine.local.local_engine import with_threads
from ..errors import InputError
from ..evaluation import Answered, EvaluationFolder, EvaluationSettings, Summary
from ..tasks.registry import build_task
from ..tasks.task import Task
from .console import counter
from .folder import evaluated_run, evaluation_config, with_given_task, with_task_of_run

Warn = Callable[[str], None]
_BATCH = 64  # problems whose answers an interrupted evaluation can lose


def evaluate(
    model: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    task: Task | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    warn: Warn = warnings.warn,
) -> list[Summary]:
    """Held-out accuracy: a summary of each evaluation set, and of their average if there are several.

    >>> import rlcsd
    >>> rlcsd.evaluate("runs/mine", ["evaluation.sampling.max_tokens=8"], progress=False)[0].problems
    2

    The model may be any, `rlcsd.evaluate("Qwen/Qwen3-0.6B", ["task=kk_tiny", "evaluation.samples=4"])`, and the task a
    `Task`, `rlcsd.evaluate("runs/mine", task=task)`, where the run's own cannot be rebuilt from its folder.

    Args:
        model: a run's folder, which stands for its newest checkpoint, its task and its evaluation settings; or
            anything that `model.path` takes. None: `overrides` name it.
        overrides: `key=value` overrides, as of `rlcsd eval`, or a mapping of keys to values.
        task: replaces the task; of a run that was given one from Python, the same one.
        out: folder for `eval.json`, `eval.md` and `samples.jsonl`; an interrupted evaluation resumes there.
        progress: shows a counter of problems on stderr.
        warn: told if code that a run refers to has changed since.

    Raises:
        InputError: no such model or task, or a run whose task has to be given again.
    """
    overrides = [*([] if model is None else [f"model.path={literal(str(model))}"]), *as_overrides(overrides)]
    config, task = _chosen(overrides, task, warn)
    folder = EvaluationFolder(Path(out), config) if out is not None else None
    task = task if task is not None else build_task(config.task)
    if not task.evaluations:
        raise InputError(f"task={task.name}: it has no evaluation sets; give task.evaluations.NAME=FILE")
    settings = EvaluationSettings.of(config)
    if folder is not None and settings.batch is None:
        settings = replace(settings, batch=_BATCH)
    with closing(build_engine(with_threads(config), build_method(config))) as engine, closing(task):
        evaluation.check(engine.tokenizer, task, settings, engine.max_sequence, engine.context_length)
        done = folder.open() if folder is not None else []
        total = max(0, sum(map(len, task.evaluations.values())) - len(done))
        with counter("problems", total) if progress else nullcontext(lambda number: None) as count:

            def keep(batch: Sequence[Answered]) -> None:
                if folder is not None:
                    folder.keep(batch)
                count(len(batch))

            summaries, answered = evaluation.evaluate(engine, task, settings, done, keep)
    if folder is not None:
        folder.finish(summaries, answered)
    return summaries


def task_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Keys and values of the overrides that choose or change a task."""
    return [(key, value) for key, value in map(split_override, overrides) if key.partition(".")[0] == "task"]


def _chosen(overrides: Sequence[str], task: Task | None, warn: Warn) -> tuple[Config, Task | None]:
    """The config of the evaluation, and its task if the config alone does not describe it."""
    run = evaluated_run(overrides)
    chosen = task_overrides(overrides)
    other = any(key == "task" for key, _ in chosen)
    for key, value in chosen if task is not None else ():
        if (key == "task" and value != "own") or run is not None:
            raise InputError(f"{key}={value}: not beside task=…, a task given from Python; leave one of the two out")
    config = evaluation_config([*overrides, *(["task=own"] if run is None and task is not None and not other else [])])
    if run is not None and not other:
        return with_task_of_run(run, config, task, warn)
    return (config, None) if task is None else with_given_task(config, task)


def print_warning(message: str) -> None:
    """Say it as `rlcsd` says what concerns the user."""
    print(f"rlcsd: {message}", file=sys.stderr)

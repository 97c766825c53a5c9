"""What a run would do, said before any weights are loaded, and what it still lacks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..config.load import build_method
from ..config.schema import Config
from ..engine.costs import hours_line
from ..engine.interface import check_engine, engine_line, memory_line
from ..engine.local.model import PACKAGED, context_length, load_tokenizer
from ..errors import InputError, MissingError, together
from ..prepare import check_task, fitting_problems, learning_rate_schedule, training_steps
from ..tasks.registry import build_task
from ..tasks.task import Task, overlaps
from .push import check_hub
from .tracking import check_trackers


def plan(config: Config) -> str:
    """Steps, rollouts, memory, the most tokens that the run can ask for, and what is missing here.

    Raises:
        InputError: as the run would, but for what is only missing on this machine.
    """
    method, missing = build_method(config), list[str]()
    task: Task | None = None
    try:
        task = build_task(config.task)
    except MissingError as error:
        missing += error.sentences
    missing += _missing(config)
    steps: int | None = None
    if task is None:
        lines = [f"task       {config.task.get('name', '')}: its data is not here"]
        steps = config.steps
    else:
        check_task(config, task, method)
        problems, left_out = _problems(config, task)
        evaluations = ", ".join(f"{name} {len(problems)}" for name, problems in task.evaluations.items())
        lines = [f"task       {task.name}: {problems} training problems{left_out}; {evaluations}"]
        lines += [f"data       {task.source}"] * bool(task.source)
        steps = training_steps(config, problems)
        learning_rate_schedule(config, steps)
    rollouts = config.prompts_per_step * config.group_size
    updates = config.prompts_per_step // config.prompts_per_update
    most = rollouts * config.sampling.max_tokens
    lines += [
        f"steps      {steps or f'{config.epochs} epochs'}, each {config.prompts_per_step} prompts × "
        f"{config.group_size} rollouts and {updates} optimizer steps",
        f"tokens     at most {most:,} sampled per step" + (f", {steps * most:,} in all" if steps else ""),
        f"engine     {engine_line(config)}",
        f"memory     {memory_line(config, method)}",
        f"hours      {hours_line(config, method, steps)}",
    ]
    if task is not None:
        lines += [f"overlap    {overlap}" for overlap in overlaps(task.train, task.evaluations) if overlap.normalised]
    lines += [f"missing    {sentence}" for sentence in missing]
    return "\n".join(lines)


def _missing(config: Config) -> Sequence[str]:
    """What a run needs and this machine lacks, beside the task's data: a sentence each."""
    try:
        together(
            lambda: check_engine(config),
            lambda: check_trackers(config.trackers),
            lambda: _check_model("model.path", config.model.path, config.model.gguf_file),
            lambda: _check_upload(config.push_to_hub),
            lambda: _check_model("method.teacher_model", config.method.get("teacher_model") or "tiny"),
        )
    except MissingError as error:
        return error.sentences
    return ()


def _check_upload(repository: str | None) -> None:
    """Raise MissingError if a model could not be uploaded from here."""
    try:
        if repository:
            check_hub(repository)
    except InputError as error:
        raise MissingError(str(error)) from None


def _check_model(field: str, path: str, gguf_file: str | None = None) -> None:
    """Raise MissingError unless a model is a folder, one of the package, or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if path in PACKAGED or os.path.isdir(path):
        return
    try:
        if isinstance(try_to_load_from_cache(path, gguf_file or "config.json"), str):
            return
    except HFValidationError:
        raise MissingError(f"{field}={path}: there is no such folder") from None
    raise MissingError(
        f"{field}={path}: neither a folder nor in the cache of the hub; the run fetches it, or `hf download {path}` "
        "beforehand"
    )


def _problems(config: Config, task: Task) -> tuple[int, str]:
    """How many training problems the run will use, and a remark on the others."""
    try:
        tokenizer = load_tokenizer(config.model)
    except InputError:
        if os.path.isdir(config.model.path) or config.model.path in PACKAGED:
            raise  # the run would say the same
        return len(task.train), f" (prompt lengths not checked: there is no tokenizer for {config.model.path} here)"
    fits = len(fitting_problems(tokenizer, task, config, context_length(config.model)))
    left_out = len(task.train) - fits
    return fits, f" ({left_out} longer than max_prompt_tokens are left out)" if left_out else ""

"""The plan of a run: steps, tokens, memory, hours, and what is missing on this machine; `rlcsd train --dry-run`.

No weights are loaded and no network is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config.load import build_method
from ..config.schema import Config, ModelConfig, VerlEngineConfig
from ..engine.costs import hours_line
from ..engine.interface import check_engine, engine_line, keeps_sampling_mask, memory_line
from ..engine.local.memory import checkpoint_bytes, load_shape, loading_bytes
from ..engine.local.model import PACKAGED, load_tokenizer
from ..errors import InputError, MissingError, together
from ..methods.base import Method
from ..prepare import Prepared, prepare, training_prompt, with_whole_steps
from ..tasks.registry import TaskParameters, build_task
from ..tasks.task import overlaps
from .checkpoint import check_same_run, newest_whole, read_facts
from .folder import new_folder, with_newest_checkpoint, with_task_of_run
from .push import check_hub
from .tracking import check_trackers


def plan(config: Config, resume: Path | None = None) -> str:
    """The plan of a run, one fact per line. `resume` is the folder of a run that is to be resumed.

    Raises:
        InputError: as the run would before its first step, except for what is only missing on this machine: that has
            lines of its own.
    """
    prepared, missing = None, list[str]()
    task, checkpoint = None, None
    if resume is not None:
        config, task = with_task_of_run(resume, config, None, missing.append)
        checkpoint, complaints = newest_whole(resume / "checkpoints")
        missing += complaints
    else:
        config = with_newest_checkpoint(config)
    tokenizer = _tokenizer(config.model)
    try:
        sizes = None
        if task is None and isinstance(config.task, TaskParameters):
            preview = config.task.preview(config.prompts_per_step)
            task, sizes = (build_task(preview[0]), preview[1]) if preview is not None else (None, None)
        prepared = prepare(config, task, tokenizer=tokenizer, check_prompts=tokenizer is not None, sizes=sizes)
    except MissingError as error:
        missing += error.sentences
    if resume is None:
        new_folder(config, "")
    missing += _missing(config)
    method, steps = build_method(config), prepared.steps if prepared is not None else config.steps
    if checkpoint is not None:  # the plan draws a few problems only, so data is compared by the run
        check_same_run(checkpoint, read_facts(checkpoint), config, None, steps)
    updates = config.prompts_per_step // config.prompts_per_update
    batches = 1 + config.refill_batches
    tokens = batches * config.prompts_per_step * config.group_size * config.sampling.max_tokens
    evaluated = None
    if prepared is not None:
        evaluated = sum(size for name, size in prepared.sizes.items() if name != "train")
    lines = [
        *_task_lines(config, prepared, lengths_checked=tokenizer is not None),
        f"steps      {steps or f'{config.epochs} epochs'}, each {config.prompts_per_step} prompts × "
        f"{config.group_size} rollouts and {updates} optimizer steps",
        f"tokens     at most {tokens:,} sampled per step" + (f", {steps * tokens:,} in all" if steps else ""),
        *_objective_lines(config, method),
        *_refill_lines(config),
        *_mask_lines(config),
        f"engine     {engine_line(config)}",
        f"memory     {memory_line(_with_longest_prompt(config, prepared, tokenizer), method)}",
        *_storage_lines(config, method, steps, resume),
        f"hours      {hours_line(with_whole_steps(config, steps or 100), method, steps, evaluated)}",
    ]
    if prepared is not None:
        found = overlaps(prepared.task.train, prepared.task.evaluations)
        lines += [f"warning    {sentence}" for sentence in prepared.warnings]
        lines += [f"overlap    {overlap}" for overlap in found if overlap.normalised]
    lines += [f"missing    {sentence}" for sentence in missing]
    return "\n".join(lines)


def check_machine(config: Config) -> None:
    """Raise MissingError, once for all, if this machine lacks a library, a device or an access that a run needs."""
    together(
        lambda: check_engine(config),
        lambda: check_trackers(config.trackers),
        lambda: check_hub(config.push_to_hub),
    )


def _task_lines(config: Config, prepared: Prepared | None, lengths_checked: bool) -> list[str]:
    """The task with the sizes of its sets, and where its data comes from."""
    if prepared is None:
        return [f"task       {config.task.name}: its data is not here"]
    task, drawn = prepared.task, len(prepared.task.train)
    left_out = drawn - len(prepared.problems)
    remark = f" ({left_out} longer than max_prompt_tokens are left out)" if left_out else ""
    if not lengths_checked:
        remark = f" (prompt lengths not checked: there is no tokenizer for {config.model.path} here)"
    elif drawn < prepared.sizes["train"]:
        remark = f" (of {drawn} drawn for this plan, {left_out} are longer than max_prompt_tokens)"
    sets = ", ".join(f"{name} {size}" for name, size in prepared.sizes.items() if name != "train") or "none held out"
    lines = [f"task       {task.name}: {prepared.sizes['train']} training problems{remark}; {sets}"]
    return [*lines, f"data       {task.source}"] if task.source else lines


def _mask_lines(config: Config) -> list[str]:
    """What sampling masks are of, and their largest size on the host, if they are kept."""
    if not keeps_sampling_mask(config):
        return []
    s, size = config.sampling, config.prompts_per_step * config.group_size * config.sampling.max_tokens
    return [
        f"masks      of the tokens that sampling.top_p={s.top_p:g} and sampling.top_k={s.top_k} leave; at most "
        f"{4 * (s.top_k + 1)} bytes a token, {4 * (s.top_k + 1) * size / 2**30:.2g} GiB of host memory in a step"
    ]


def _with_longest_prompt(config: Config, prepared: Prepared | None, tokenizer: Any) -> Config:
    """The config with the tokens of the longest training prompt, if it is known, in place of the limit of prompts."""
    if prepared is None or tokenizer is None:
        return config
    longest = sorted(prepared.problems, key=lambda problem: len(problem.text))[-8:]  # tokenizing all takes too long
    tokens = max(len(training_prompt(tokenizer, prepared.task, config, problem)) for problem in longest)
    return config.model_copy(update={"max_prompt_tokens": min(tokens, config.max_prompt_tokens)})


def _storage_lines(config: Config, method: Method, steps: int | None, resume: Path | None) -> list[str]:
    """What checkpoints take on the disk, and what the host's memory must hold; nothing for an unknown model."""
    try:
        shape = load_shape(config.model)
    except InputError:
        return []
    each = checkpoint_bytes(shape, config, method)
    made = -(-steps // config.save_every) if steps and config.save_every else 1 if not config.save_every else None
    kept = made
    if config.keep_last:
        kept = min(config.keep_last + config.keep_best, made or config.keep_last + config.keep_best)
    count = f"{kept} kept" if kept else "all kept"
    need = each * ((kept or 1) + 1)  # one is written before another is removed
    folder = (resume or Path(config.output_dir)).resolve()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    line = f"disk       about {_gib(each)} for each checkpoint, {count}: {_gib(need)} with the one being written; "
    line += f"{_gib(free)} free in {folder}"
    lines = [line + ("" if need <= free else ": NOT ENOUGH; set a smaller keep_last or another output_dir")]
    verl, background = isinstance(config.engine, VerlEngineConfig), config.save_in_background
    when = "the first node's memory while the model is loaded or saved" if verl else "memory while weights are loaded"
    host = f"host       about {_gib(loading_bytes(shape, config))} of {when}"
    if not verl and (background or (background is None and torch.cuda.is_available())):
        host += f", and {_gib(each)} for the copy of a checkpoint in the background (save_in_background=false: none)"
    return [*lines, host]


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:,.0f} GiB"


def _objective_lines(config: Config, method: Method) -> list[str]:
    """The parts of an objective other than the method's own, and the length penalty."""
    c, lines = method.config, []
    if getattr(c, "objective", "grpo") != "grpo" and method.objective is not None:
        low, high = method.objective.bounds
        lines.append(
            f"objective  {c.objective}: estimator {c.estimator}, ratio {c.ratio} in [{low:.6g}, {high:.6g}], "
            f"surrogate {c.surrogate}, dual clip {c.dual_clip or 'none'}, reduction {c.reduction}"
        )
    limit = config.sampling.max_tokens
    if buffer := config.overlong.buffer_tokens(limit):
        lines.append(
            f"overlong   rewards fall by up to {config.overlong.penalty:g} over the last {buffer:,} of {limit:,} tokens"
        )
    return lines


def _refill_lines(config: Config) -> list[str]:
    n = config.refill_batches
    if not n:
        return []
    return [
        f"refill     at most {n} further batch{'es' * (n > 1)} a step, for groups that are all right or all wrong; "
        "each costs up to the step's sampling once more, and is in the tokens but not in the hours"
    ]


def _missing(config: Config) -> Sequence[str]:
    """What a run needs and this machine lacks, beside the task's data: a sentence each."""
    try:
        together(
            lambda: check_machine(config),
            lambda: _check_model("model.path", config.model.path, config.model.gguf_file),
            lambda: _check_model("method.teacher_model", getattr(config.method, "teacher_model", None) or "tiny"),
        )
    except MissingError as error:
        return error.sentences
    return ()


def _is_local(path: str) -> bool:
    return path in PACKAGED or os.path.isdir(path)


def _check_model(field: str, path: str, gguf_file: str | None = None) -> None:
    """Raise MissingError unless a model is a folder, one of the package, or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if _is_local(path):
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


def _tokenizer(model: ModelConfig) -> Any | None:
    """The model's tokenizer; None if it is not on this machine. Raises InputError for a local model without one."""
    try:
        _check_model("model.path", model.path, model.gguf_file)
        return load_tokenizer(model)
    except InputError:
        if _is_local(model.path):
            raise  # the run would raise the same
        return None

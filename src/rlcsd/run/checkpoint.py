"""Checkpoints of a run: writing, reading and pruning them, and going back to one when a run is resumed.

A checkpoint is a model folder in Hugging Face format with a subfolder `state/` that resuming needs. It is written whole
or not at all, carries a manifest of hashes, and holds no code: tensors are in safetensors, the rest in JSON.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..config.load import validated
from ..config.names import current_names
from ..config.schema import Config, different_keys, is_free
from ..engine.interface import Engine
from ..errors import InputError, first_line
from ..evaluation import Summary, reported_average
from ..storage import (
    damage,
    keep_records,
    read_jsonl,
    records_after,
    remove_folder,
    synced_length,
    whole_folder,
    write_manifest,
)
from ..tasks.given_task import data_hash
from ..tasks.task import Task
from ..validation import flat_config

LOGS = ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl", "events.jsonl")
_STATE, _STEP = "state", "step.json"
Snapshot = Callable[[Path], None]
Evaluations = Sequence[tuple[int, Sequence[Summary]]]  # (step, summaries), in the order of the run


# ------------------------------------------------------------------ writing and reading


def save_checkpoint(folder: Path, engine: Engine, step: int, facts: Mapping[str, Any] | None = None) -> Path:
    """Write `folder/step_NNNNNN`: the policy as a model folder, and `state/` to resume from; returns its path.

    `facts` is kept beside the step, ready for JSON; `read_facts` returns it.
    """
    return checkpoint_writer(folder, engine, step, facts)()


def checkpoint_writer(
    folder: Path, engine: Engine, step: int, facts: Mapping[str, Any] | None = None, copied: Snapshot | None = None
) -> Callable[[], Path]:
    """A function that writes a checkpoint of this moment as `save_checkpoint` does.

    With `copied`, what `engine.snapshot` returned, it may be called later, in another thread. The checkpoint counts
    once its folder has its name, which is the last thing done.
    """
    target = folder / f"step_{step:06d}"
    version, words, spare = random.getstate()
    numbers = {"step": step, "python_random": [version, list(words), spare], **(facts or {})}
    torch_random = _random_states()

    def write() -> Path:
        with whole_folder(target, replace=True) as partial:
            if copied is not None:
                copied(partial)
            else:
                engine.save(partial)
                (partial / _STATE).mkdir()
                engine.save_state(partial / _STATE)
            save_file(torch_random, partial / _STATE / "random.safetensors")
            (partial / _STATE / _STEP).write_text(json.dumps(numbers), encoding="utf-8")
            write_manifest(partial)
        return target

    return write


def read_facts(path: Path) -> dict[str, Any]:
    """The `facts` of a checkpoint and its step. Raises InputError if `path` is no checkpoint."""
    try:
        facts: dict[str, Any] = json.loads((path / _STATE / _STEP).read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"resume={path}: there is no checkpoint (state/{_STEP}) in this folder") from None
    return facts


def load_checkpoint(path: Path, engine: Engine) -> int:
    """Restore the engine and the random states from a checkpoint; returns its step.

    Raises:
        InputError: no checkpoint there, or one of another model.
    """
    state, facts = path / _STATE, read_facts(path)
    try:
        engine.load_state(state)
    except InputError as error:
        raise InputError(f"resume={path}: {error}") from None
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        raise InputError(f"resume={path}: the checkpoint does not fit this model ({first_line(error)})") from None
    _set_random_states(load_file(state / "random.safetensors"))
    version, words, spare = facts["python_random"]
    random.setstate((version, tuple(words), spare))
    return int(facts["step"])


def _random_states() -> dict[str, torch.Tensor]:
    """The states of torch's generators: of the CPU, and of each GPU if the process uses them (dropout of adapters)."""
    gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    return {"torch": torch.get_rng_state(), **{f"cuda{index}": torch.cuda.get_rng_state(index) for index in gpus}}


def _set_random_states(states: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        if (state := states.get(f"cuda{index}")) is not None:  # absent: saved elsewhere, or by an older version
            torch.cuda.set_rng_state(state, index)


# ------------------------------------------------------------------ finding and pruning


def step_of(path: Path) -> int:
    """The training step in a checkpoint's name."""
    return int(path.name.removeprefix("step_"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first, damaged ones included."""
    return sorted((path for path in folder.glob("step_*") if path.name[5:].isdigit()), key=step_of)


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files match its manifest (None: there is no checkpoint), and a sentence about each
    newer one, which is damaged.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
    """
    complaints: list[str] = []
    for path in reversed(checkpoints(folder)):
        reason = damage(path)
        if reason is None:
            return path, complaints
        complaints.append(f"{path}: {reason}")
    if complaints:
        raise InputError(f"{complaints[0]}; no other checkpoint of this run is whole, so it cannot be resumed")
    return None, []


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is not damaged, if any; see `newest_whole`."""
    return newest_whole(folder)[0]


def checkpoint_of(run: Path, step: int | None = None) -> Path:
    """The checkpoint of a run at `step`, by default its newest whole one.

    Raises:
        InputError: there is no run, or no such checkpoint.
    """
    if not (run / "config.yaml").is_file():
        raise InputError(f"{run}: there is no run here (no config.yaml)")
    if step is None:
        newest = latest_checkpoint(run / "checkpoints")
        if newest is None:
            raise InputError(f"{run}: this run has no checkpoint yet")
        return newest
    found = {step_of(path): path for path in checkpoints(run / "checkpoints")}
    if step not in found:
        raise InputError(f"--step {step}: {run} has checkpoints of the steps {', '.join(map(str, found)) or '(none)'}")
    return found[step]


def prune(folder: Path, step: int, keep_last: int | None, best: int | None) -> None:
    """Remove the checkpoints of up to `step`, which has just been saved, but the newest `keep_last` of them (None: all
    stay) and that of step `best`. A later one is damaged, or the run would have gone on from it."""
    saved = [path for path in checkpoints(folder) if step_of(path) <= step]
    for path in saved[: -keep_last if keep_last else 0]:
        if step_of(path) != best:
            remove_folder(path)


def best_step(evaluations: Evaluations, saved: Collection[int] | None = None) -> int | None:
    """The trained step with the highest reported average, the first of equals; of the steps `saved`, if given."""
    rated = [
        (reported_average(summaries), step)
        for step, summaries in evaluations
        if step and summaries and (saved is None or step in saved)
    ]
    return max(rated, key=lambda one: (one[0], -one[1]))[1] if rated else None


# ------------------------------------------------------------------ resuming


def check_same_run(
    checkpoint: Path, facts: Mapping[str, Any], config: Config, task: Task | None, steps: int | None
) -> None:
    """Raise InputError if the config or the data differs from that of the checkpoint's run, except in keys that a
    resumed run may change, or if that run has done more than `steps`, those of the whole run (None: not known).
    `facts` are those of the checkpoint; a key that its version lacked has the default. Without a `task` the data is
    not compared."""
    if steps is not None and facts["step"] > steps:
        key = f"steps={steps}" if config.steps is not None else f"epochs={config.epochs}, which are {steps} steps"
        raise InputError(f"{key}: the run has already done {facts['step']} steps")
    old = validated(current_names(facts["config"]))
    then, now = (flat_config(one.model_dump(mode="json")) for one in (old, config))
    for key in different_keys(then, now):
        if not is_free(key):
            raise InputError(
                f"{key}={now.get(key)}: the run of {checkpoint} has {key}={then.get(key)}; restore that value in "
                "config.yaml, or start a new run"
            )
    if task is not None and facts["data"] != data_hash(task):
        raise InputError(
            f"task={task.name}: the problems are not those that the run of {checkpoint} was trained on; restore the "
            "data, or start a new run"
        )


def log_lengths(folder: Path) -> dict[str, int]:
    """The length in bytes of each log of a run, once it is on the disk."""
    return {name: synced_length(folder / name) for name in LOGS}


def cut_logs(folder: Path, lengths: Mapping[str, int], step: int) -> list[dict[str, Any]]:
    """Cut the logs to their lengths at the checkpoint of `step`; returns the evaluations that are left.

    An evaluation of that step is made after the checkpoint and from its weights. If its record is whole it is kept,
    with its figures in the metrics.
    """
    start = {name: lengths.get(name, 0) for name in LOGS}

    def of_step(name: str) -> list[dict[str, Any]]:
        return [record for record in records_after(folder / name, start[name]) if record.get("step") == step]

    evaluation, figures = of_step("evaluations.jsonl")[:1], of_step("metrics.jsonl")[-1:]
    keep_records(folder / "evaluations.jsonl", start["evaluations.jsonl"], evaluation)
    keep_records(folder / "metrics.jsonl", start["metrics.jsonl"], figures if evaluation else [])
    for name in ("rollouts.jsonl", "events.jsonl"):
        keep_records(folder / name, start[name])
    return read_jsonl(folder / "evaluations.jsonl")

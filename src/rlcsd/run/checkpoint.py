"""Checkpoints: the policy in Hugging Face format, and beside it what resuming needs.

A checkpoint is written whole or not at all, carries a manifest of hashes, and holds no code: tensors are in
safetensors, the rest in JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from ..config.load import changed, from_yaml
from ..config.schema import Config, EvaluationConfig
from ..engine.interface import Engine
from ..errors import InputError, first_line
from ..evaluation import Summary
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
from ..tasks.task import Task

_STATE = "state"  # the subfolder of what resuming needs
_STEP = "step.json"


def save_checkpoint(folder: Path, engine: Engine, step: int, facts: Mapping[str, Any] | None = None) -> Path:
    """`folder/step_NNNNNN`: the policy as a model folder, and `state/` to resume from.

    `facts` is kept beside the step, ready for JSON; see `read_facts`.
    """
    target = folder / f"step_{step:06d}"
    with whole_folder(target, replace=True) as partial:
        engine.save(partial)
        state = partial / _STATE
        state.mkdir()
        engine.save_state(state)
        save_file({"torch": torch.get_rng_state()}, state / "random.safetensors")
        version, words, spare = random.getstate()
        numbers = {"step": step, "python_random": [version, list(words), spare], **(facts or {})}
        (state / _STEP).write_text(json.dumps(numbers), encoding="utf-8")
        write_manifest(partial)
    return target


def step_of(path: Path) -> int:
    """The training step that a checkpoint's name tells."""
    return int(path.name.removeprefix("step_"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first, whether damaged or not."""
    return sorted((path for path in folder.glob("step_*") if path.name[5:].isdigit()), key=step_of)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is whole, if any; see `newest_whole`."""
    return newest_whole(folder)[0]


def newest_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are as they were written, and a sentence about each newer one.

    Raises:
        InputError: there are checkpoints, and all of them are damaged.
    """
    complaints: list[str] = []
    for path in reversed(checkpoints(folder)):
        wrong = damage(path)
        if wrong is None:
            return path, complaints
        complaints.append(f"{path}: {wrong}")
    if complaints:
        raise InputError(f"{complaints[0]}; no other checkpoint of this run is whole, so it cannot be resumed")
    return None, []


def with_newest_checkpoint(config: Config) -> Config:
    """The config with a run's newest whole checkpoint where `model.path` or `method.teacher_model` names its folder.

    Raises:
        InputError: the run has no checkpoint that is whole.
    """
    model = config.model.model_copy(update={"path": _checkpoint_of("model.path", config.model.path)})
    teacher = config.method.get("teacher_model")
    found = {"teacher_model": _checkpoint_of("method.teacher_model", teacher)} if isinstance(teacher, str) else {}
    return config.model_copy(update={"model": model, "method": {**config.method, **found}})


def is_run(folder: Path) -> bool:
    """Is this the folder of a run, and not a model's?"""
    return (folder / "config.yaml").is_file() and not (folder / "config.json").is_file()


def _checkpoint_of(key: str, path: str) -> str:
    folder = Path(path)
    if not is_run(folder):
        return path
    newest = latest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise InputError(f"{key}={path}: this run has no checkpoint yet")
    return str(newest)


def read_facts(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given as facts, with the step."""
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
    torch.set_rng_state(load_file(state / "random.safetensors")["torch"])
    version, words, spare = facts["python_random"]
    random.setstate((version, tuple(words), spare))
    return int(facts["step"])


def prune(folder: Path, keep_last: int | None, best: int | None) -> None:
    """Remove all checkpoints but the newest `keep_last` (None: all stay) and that of step `best`."""
    for path in checkpoints(folder)[: -keep_last if keep_last else 0]:
        if step_of(path) != best:
            remove_folder(path)


# ------------------------------------------------------------------ best
# Which evaluation of a run is its best, and whether the run still gets better.

Evaluations = Sequence[tuple[int, Sequence[Summary]]]


def _mean(sets: Sequence[Summary]) -> float:
    return sum(one.mean for one in sets) / len(sets)


def best_step(evaluations: Evaluations) -> int | None:
    """The trained step with the highest mean accuracy over the evaluation sets, the first of equals."""
    rated = [(_mean(sets), step) for step, sets in evaluations if step and sets]
    return max(rated, key=lambda one: (one[0], -one[1]))[1] if rated else None


def no_longer_better(evaluations: Evaluations, config: EvaluationConfig) -> bool:
    """Whether the last `patience` evaluations brought no mean accuracy that is better by more than `min_gain`."""
    best, in_a_row = float("-inf"), 0
    for _, sets in evaluations:
        if not sets:
            continue
        better = _mean(sets) > best + config.min_gain
        best, in_a_row = (_mean(sets), 0) if better else (best, in_a_row + 1)
    return bool(config.patience) and in_a_row >= config.patience


# ------------------------------------------------------------------ resume
# Going back to the last checkpoint: which settings must be those of the checkpoint, and what the logs keep.

# Of a cluster: where its rows are computed, which changes rounding (and, by the servers, what is drawn).
CLUSTER_KEYS = (
    "nodes", "gpus_per_node", "ray_address", "share_prefixes", "sequence_parallel", "offload", "attention",
    "tensor_parallel", "rollout_memory", "rollout_rows", "rollout_eager", "timeout",
)  # fmt: skip
# Keys that a resumed run may change: how long, what is written and watched, and budgets that change rounding alone.
MAY_CHANGE = (
    "steps", "epochs", "save_every", "keep_last", "keep_best", "log_rollouts", "show_completion_every", "trackers",
    "project", "figures", "output_dir", "run_name", "evaluation.every", "evaluation.patience",
    "evaluation.min_gain", "push_to_hub", "guard", "engine.micro_batch_tokens",
    "engine.score_tokens", "engine.head_chunk", "engine.self_check", "engine.vllm_memory",
    *(f"engine.{key}" for key in CLUSTER_KEYS),
)  # fmt: skip
LOGS = ("metrics.jsonl", "rollouts.jsonl", "evaluations.jsonl")


def resumed_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of the run in `folder`, changed by overrides of keys that may change.

    Raises:
        InputError: there is no run, or a key may not change.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(
            f"--resume {folder}: no such file {path}; if the run ended before it wrote its config, start it again"
        )
    config = from_yaml(path)
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if not _free(key):
            raise InputError(
                f"{override}: a resumed run keeps its {key}, or it would be another run; these keys may change: "
                f"{', '.join(MAY_CHANGE)}. A new run from its weights: `rlcsd train model.path={folder} {override}`"
            )
    return changed(config, overrides)


def plugins_of(folder: Path) -> list[str]:
    """The code outside the package that a run's config names, such as `mine.py:Method`; read without running it."""
    try:
        values = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError):
        return []  # `resumed_config` says what is wrong
    flat = _flat(values) if isinstance(values, dict) else {}
    named = [(key, flat.get(key)) for key in ("method.name", "task.name", "task.verifier")]
    rewards = flat.get("task.rewards")
    for number, reward in enumerate(rewards if isinstance(rewards, list) else []):
        named.append((f"task.rewards.{number}.verifier", reward.get("verifier") if isinstance(reward, dict) else None))
    return [f"{key}={value}" for key, value in named if isinstance(value, str) and ":" in value]


def data_hash(task: Task) -> str:
    """A hash of all problems of a task, in their order."""
    digest = hashlib.sha256()
    for problems in (task.train, *(task.evaluations[name] for name in sorted(task.evaluations))):
        for problem in problems:
            record = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
            if not problem.history:
                del record["history"]  # the hash of problems without a chat is what it has always been
            digest.update(json.dumps(_canonical(record), sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _canonical(value: Any) -> Any:
    """What a program may have put into a problem, as JSON that is the same in every process."""
    if isinstance(value, Mapping):
        return {_key(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_canonical(item), sort_keys=True) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    if callable(value) or str(value) == object.__repr__(value):
        return getattr(value, "__qualname__", type(value).__qualname__)  # its text would name a place in memory
    return str(value)


def _key(key: Any) -> str:
    plain = key is None or isinstance(key, str | int | float)
    return next(iter(json.loads(json.dumps({key: 0})))) if plain else str(_canonical(key))


def check_same_run(checkpoint: Path, facts: Mapping[str, Any], config: Config, task: Task) -> None:
    """Raise InputError if a key or the data is not what the checkpoint's run had."""
    then, now = _flat(facts["config"]), _flat(json.loads(json.dumps(config.model_dump())))
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key) and not _free(key):
            raise InputError(
                f"{key}={now.get(key)}: the run of {checkpoint} has {key}={then.get(key)}; restore that value in "
                "config.yaml, or start a new run"
            )
    if facts["data"] != data_hash(task):
        raise InputError(
            f"task={task.name}: the problems are not those that the run of {checkpoint} was trained on; restore the "
            "data, or start a new run"
        )


def log_lengths(folder: Path) -> dict[str, int]:
    """The length in bytes of each log, all of it on the disk."""
    return {name: synced_length(folder / name) for name in LOGS}


def cut_logs(folder: Path, lengths: Mapping[str, int], step: int) -> list[dict[str, Any]]:
    """Cut the logs to their lengths at the checkpoint of `step`; returns the evaluations that are kept.

    An evaluation of that very step was made after the checkpoint, and from its weights: if its record is whole, it is
    kept, with its figures in the metrics.
    """
    begun = {name: lengths.get(name, 0) for name in LOGS}
    made = [
        r for r in records_after(folder / "evaluations.jsonl", begun["evaluations.jsonl"]) if r.get("step") == step
    ][:1]
    figures = [r for r in records_after(folder / "metrics.jsonl", begun["metrics.jsonl"]) if r.get("step") == step]
    keep_records(folder / "evaluations.jsonl", begun["evaluations.jsonl"], made)
    keep_records(folder / "metrics.jsonl", begun["metrics.jsonl"], figures[-1:] if made else [])
    keep_records(folder / "rollouts.jsonl", begun["rollouts.jsonl"])
    return read_jsonl(folder / "evaluations.jsonl")


def _free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

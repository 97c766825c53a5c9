"""Going back to the last checkpoint: which settings must be those of the checkpoint, and what the logs keep."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..config.load import changed, from_yaml
from ..config.schema import Config
from ..errors import InputError
from ..folders import keep_records, read_jsonl, records_after, synced_length
from ..tasks.base import Task

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

"""Checkpoints: the policy in Hugging Face format, and beside it what resuming needs.

A checkpoint is written whole or not at all, carries a manifest of hashes, and holds no code: tensors are in
safetensors, the rest in JSON.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..config.schema import Config
from ..engine.base import Engine
from ..errors import InputError, first_line
from ..folders import remove_folder, whole_folder
from ..manifest import damage, write_manifest

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

"""Checkpoints: the policy in Hugging Face format, and beside it what resuming needs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..engine.base import Engine
from ..errors import InputError, first_line
from ..folders import whole_folder

_STATE = "state"  # the subfolder of what resuming needs
_STEP = "step.json"


def save_checkpoint(folder: Path, engine: Engine, step: int) -> Path:
    """`folder/step_NNNNNN`: the policy as a model folder, and `state/` to resume from."""
    target = folder / f"step_{step:06d}"
    with whole_folder(target, replace=True) as partial:
        engine.save(partial)
        state = partial / _STATE
        state.mkdir()
        engine.save_state(state)
        save_file({"torch": torch.get_rng_state()}, state / "random.safetensors")
        version, words, spare = random.getstate()
        (state / _STEP).write_text(
            json.dumps({"step": step, "python_random": [version, list(words), spare]}), encoding="utf-8"
        )
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in `folder`, if any."""
    whole = sorted(path for path in folder.glob("step_*") if (path / _STATE / _STEP).is_file())
    return whole[-1] if whole else None


def load_checkpoint(path: Path, engine: Engine) -> int:
    """Restore the engine and the random states from a checkpoint; returns its step.

    Raises:
        InputError: no checkpoint there, or one of another model.
    """
    state = path / _STATE
    if not (state / _STEP).is_file():
        raise InputError(f"resume={path}: there is no checkpoint (state/{_STEP}) in this folder")
    try:
        engine.load_state(state)
    except (RuntimeError, KeyError, ValueError, OSError) as error:
        raise InputError(f"resume={path}: the checkpoint does not fit this model ({first_line(error)})") from None
    torch.set_rng_state(load_file(state / "random.safetensors")["torch"])
    facts = json.loads((state / _STEP).read_text(encoding="utf-8"))
    version, words, spare = facts["python_random"]
    random.setstate((version, tuple(words), spare))
    return int(facts["step"])

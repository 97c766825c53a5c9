"""The optimizer: AdamW with float32 moments, or with moments in 8 bits (bitsandbytes), optionally paged out of GPU
memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...config.schema import Config
from ...errors import MissingError

_EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def check_optimizer(config: Config) -> None:
    """Raise MissingError if what `engine.optimizer` names needs a library that is not installed."""
    name = config.engine.optimizer
    if name in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise MissingError(f"engine.optimizer={name}: moments in 8 bits need pip install 'rlcsd[quantization]'")


def build_optimizer(parameters: Iterable[nn.Parameter], config: Config) -> Any:
    """What `engine.optimizer` names. Raises MissingError as `check_optimizer` does."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    name = config.engine.optimizer
    if name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    check_optimizer(config)
    import bitsandbytes

    return getattr(bitsandbytes.optim, _EIGHT_BIT[name])(parameters, **settings)


# ------------------------------------------------------------------ state
# What resuming needs, in files that hold no code: tensors as safetensors, the rest as JSON.

_TRAINED, _TEACHER, _MOMENTS, _REST = (
    "trained.safetensors",
    "teacher.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
)


def save_training_state(
    folder: Path, trained: Mapping[str, Tensor], teacher: Mapping[str, Tensor], optimizer: Any, optimizer_steps: int
) -> None:
    """Trained weights, the teacher's, the optimizer's moments and settings, into `folder`."""
    _save_tensors(folder / _TRAINED, trained)
    _save_tensors(folder / _TEACHER, teacher)
    whole = optimizer.state_dict()
    moments: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in whole["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                moments[f"{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    _save_tensors(folder / _MOMENTS, moments)
    rest = {"optimizer_steps": optimizer_steps, "groups": whole["param_groups"], "plain": plain}
    (folder / _REST).write_text(json.dumps(rest), encoding="utf-8")


@torch.no_grad()
def load_training_state(
    folder: Path, trained: Mapping[str, nn.Parameter], optimizer: Any
) -> tuple[dict[str, Tensor], int]:
    """Fill the trained parameters and the optimizer; returns the teacher's tensors and the number of optimizer steps.

    Raises:
        ValueError: the state is of a model with other trained parameters.
        OSError: a file is missing.
    """
    weights = load_file(folder / _TRAINED)
    shapes = {name: tuple(parameter.shape) for name, parameter in trained.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in weights.items()}:
        raise ValueError("other parameters are trained")
    for name, parameter in trained.items():
        parameter.copy_(weights[name])
    rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in rest["plain"].items()}
    for key, tensor in load_file(folder / _MOMENTS).items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
    return load_file(folder / _TEACHER), int(rest["optimizer_steps"])


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)

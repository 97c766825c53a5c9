"""The optimizer (AdamW with 8-bit states, or with states in the format of the weights), what a step changes, and the
files to resume from.

State files hold no code: tensors as safetensors, the rest as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...config.schema import Config
from ...errors import MissingError

_EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}  # classes of bitsandbytes
_TRAINED, _TEACHER = "trained.safetensors", "teacher.safetensors"
_STATES, _SETTINGS = "optimizer.safetensors", "optimizer.json"


def check_optimizer(config: Config) -> None:
    """Raise MissingError if `engine.optimizer` needs a library that is not installed."""
    name = config.engine.optimizer
    if name in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise MissingError(f"engine.optimizer={name}: 8-bit optimizer states need pip install 'rlcsd[quantization]'")


def build_optimizer(parameters: Iterable[nn.Parameter], config: Config) -> Any:
    """The optimizer that `engine.optimizer` names. Raises MissingError as `check_optimizer` does."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    name = config.engine.optimizer
    if name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    check_optimizer(config)
    import bitsandbytes

    return getattr(bitsandbytes.optim, _EIGHT_BIT[name])(parameters, **settings)


# ------------------------------------------------------------------ what a step changes

_WATCHED = 2**22  # weights that are compared before and after a step


def watched_values(weights: Sequence[Tensor]) -> list[Tensor]:
    """Copies of up to 4 million of the weights, evenly spaced: all of a small model.

    A step in a narrow format changes few weights, which no norm shows; a copy of all would cost as much as a teacher.
    """
    total = sum(weight.numel() for weight in weights)
    stride = -(-total // _WATCHED) | 1  # odd, so that it does not stay in the same columns
    return [weight.detach().flatten()[::stride].clone() for weight in weights]


def changed_counts(before: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[int, int]:
    """How many of the watched weights have another stored value than `before`, and how many are watched."""
    after = watched_values(weights)
    changed = [(new != old).sum() for new, old in zip(after, before, strict=True)]
    return int(torch.stack(changed).sum()), sum(len(old) for old in before)


# ------------------------------------------------------------------ files


# Trained weights and the teacher's own weights by name, the optimizer's state dict, and the number of its steps.
TrainingState = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Any], int]


def save_training_state(
    folder: Path,
    trained: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    optimizer_steps: int,
) -> None:
    """Write a `TrainingState` into `folder`."""
    _save_tensors(folder / _TRAINED, trained)
    _save_tensors(folder / _TEACHER, teacher)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in optimizer["state"].items():
        for name, value in _flat(values):
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    _save_tensors(folder / _STATES, tensors)
    rest = {"optimizer_steps": optimizer_steps, "groups": optimizer["param_groups"], "plain": plain}
    (folder / _SETTINGS).write_text(json.dumps(rest), encoding="utf-8")


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
    rest = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in rest["plain"].items()}
    for key, tensor in load_file(folder / _STATES).items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
    return load_file(folder / _TEACHER), int(rest["optimizer_steps"])


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The state of one parameter. bitsandbytes puts what is in 8 bits into a dict of its own, and reads it without."""
    for name, value in values.items():
        yield from _flat(value) if isinstance(value, Mapping) else [(name, value)]


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)

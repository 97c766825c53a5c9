"""Save and load the trainer's state in shards: trained weights, their AdamW moments, and a teacher that moves.

Each rank writes its part of every tensor, and any number of ranks reads the parts that it needs. Files are
safetensors and JSON, which hold no code. FSDP2 shards a tensor along its first dimension, so a part is a range of
rows: `rank_00003.safetensors` holds parts by name, `rank_00003.json` the first row of each, and `state.json` the whole
shapes with the number of optimizer steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from .rank import Rank
from .sharded_model import local_shard

_INDEX = "state.json"


def save_state(rank: Rank, folder: Path, number: int) -> None:
    """Write the part of this rank, which is rank `number`."""
    with rank.ready("train"):
        _write_parts(folder, _state_tensors(rank), {"optimizer_steps": rank.optimizer_steps}, number)


def load_state(rank: Rank, folder: Path) -> None:
    """Load this rank's part. Raises ValueError if the state is of another model, OSError if a file is missing."""
    saved = SavedState(folder)
    optimizer, named, moving = (rank.engine.optimizer, rank.network.named_trainable(), rank.moving_teacher())
    expected = {f"weight/{n}" for n in named} | {f"teacher/{n}" for n in (moving.shards if moving else ())}
    if expected != {name for name in saved.shapes if not name.startswith("moment/")}:
        raise ValueError("other parameters are trained, or another teacher follows them")
    with rank.ready("train"), torch.no_grad():
        for name, parameter in named.items():
            local_shard(parameter).copy_(saved.part(f"weight/{name}", parameter))
            optimizer.state.pop(parameter, None)
            moments = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}  # AdamW's
            for key, like in moments.items():
                if f"moment/{key}/{name}" in saved.shapes:
                    optimizer.state[parameter][key] = _sharded_like(like, saved.part(f"moment/{key}/{name}", like))
        if moving is not None:
            moving.load({n: saved.part(f"teacher/{n}", named[n]) for n in moving.shards})
        rank.network.reshard()
    rank.optimizer_steps = int(saved.facts["optimizer_steps"])


def _state_tensors(rank: Rank) -> dict[str, tuple[Tensor, Tensor]]:
    """By name: a tensor that is sharded as the one to save, and this rank's part of the latter."""
    named = rank.network.named_trainable()
    tensors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parameter in named.items():
        tensors[f"weight/{name}"] = (parameter, local_shard(parameter))
        for key, value in rank.engine.optimizer.state.get(parameter, {}).items():
            tensors[f"moment/{key}/{name}"] = (value, local_shard(value))
    teacher = rank.moving_teacher()
    if teacher is not None:
        tensors |= {f"teacher/{name}": (named[name], shard) for name, shard in teacher.shards.items()}
    return tensors


def _sharded_like(like: Tensor, part: Tensor) -> Tensor:
    """A new tensor with the sharding of `like` whose local part is `part`; a scalar is returned as it is."""
    if not like.ndim:
        return part
    tensor = torch.zeros_like(like)
    local_shard(tensor).copy_(part)
    return tensor.detach()


def _shape_and_first_row(tensor: Tensor) -> tuple[tuple[int, ...], int]:
    """The whole shape of a sharded or plain tensor, and the first row of this rank's part."""
    if not isinstance(tensor, DTensor):
        return tuple(tensor.shape), 0
    assert all(not isinstance(p, Shard) or p.dim == 0 for p in tensor.placements)
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(tensor.shape), offset[0] if offset else 0


def _write_parts(
    folder: Path, tensors: Mapping[str, tuple[Tensor, Tensor]], facts: Mapping[str, Any], number: int
) -> None:
    """Write rank `number`'s part of each tensor; rank 0 also writes whole tensors that are not sharded, and `facts`."""
    shapes, first_rows, parts = {}, {}, {}
    for name, (like, part) in tensors.items():
        shapes[name], first = _shape_and_first_row(like)
        if number == 0 or isinstance(like, DTensor):
            first_rows[name], parts[name] = (first, part.detach().cpu().contiguous().clone())
    save_file(parts, folder / f"rank_{number:05d}.safetensors")
    (folder / f"rank_{number:05d}.json").write_text(json.dumps(first_rows), encoding="utf-8")
    if number == 0:
        index = {"shapes": shapes, "facts": dict(facts)}
        (folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")


class SavedState:
    """A saved state, read part by part. Raises OSError if it is not there."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        self.shapes: dict[str, list[int]] = index["shapes"]
        self.facts: dict[str, Any] = index["facts"]
        self.files = [
            (path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
            for path in sorted(folder.glob("rank_*.safetensors"))
        ]

    def part(self, name: str, like: Tensor) -> Tensor:
        """This rank's part of the saved tensor `name`, which must have the shape of `like` and gets its sharding.

        Raises:
            ValueError: there is none of that name and shape, or rows of it are missing.
        """
        shape, first = _shape_and_first_row(like)
        if list(shape) != self.shapes.get(name):
            raise ValueError(f"{name} has the shape {self.shapes.get(name)}, and {list(shape)} is needed")
        if not shape:
            return self._scalar(name)
        part = torch.empty_like(local_shard(like), device="cpu")
        missing = len(part)
        for path, first_rows in self.files:
            if name not in first_rows or not missing:
                continue
            with safe_open(path, framework="pt") as file:
                stored = file.get_slice(name)
                begin, count = first_rows[name], stored.get_shape()[0]
                start, end = max(first, begin), min(first + len(part), begin + count)
                if start < end:
                    part[start - first : end - first] = stored[start - begin : end - begin]
                    missing -= end - start
        if missing:
            raise ValueError(f"{missing} rows of {name} are missing")
        return part

    def _scalar(self, name: str) -> Tensor:
        path = next(path for path, first_rows in self.files if name in first_rows)
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

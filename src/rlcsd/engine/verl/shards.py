"""State in shards: each rank writes its part of every tensor, and any number of ranks reads the parts that it needs.

Files are safetensors and JSON, which hold no code. FSDP2 cuts a tensor along its first dimension, so a part is a range
of rows: `rank_00003.safetensors` holds parts by name, `rank_00003.json` the first row of each, and `state.json` the
whole shapes and what is no tensor.
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

_WHOLE = "state.json"


def part_of(tensor: Tensor) -> tuple[tuple[int, ...], int]:
    """The whole shape of a sharded or plain tensor, and the first row of this rank's part. Scalars have shape ()."""
    if not isinstance(tensor, DTensor):
        return tuple(tensor.shape), 0
    assert all(not isinstance(p, Shard) or p.dim == 0 for p in tensor.placements)
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(tensor.shape), offset[0] if offset else 0


def save_parts(folder: Path, tensors: Mapping[str, tuple[Tensor, Tensor]], facts: Mapping[str, Any], rank: int) -> None:
    """This rank's part of each tensor: `(a tensor sharded as it, its part)`; rank 0 also writes `facts`."""
    shapes, firsts, parts = {}, {}, {}
    for name, (like, part) in tensors.items():
        shapes[name], first = part_of(like)
        if rank == 0 or isinstance(like, DTensor):
            firsts[name], parts[name] = first, part.detach().cpu().contiguous().clone()
    save_file(parts, folder / f"rank_{rank:05d}.safetensors")
    (folder / f"rank_{rank:05d}.json").write_text(json.dumps(firsts), encoding="utf-8")
    if rank == 0:
        whole = {"shapes": shapes, "facts": dict(facts)}
        (folder / _WHOLE).write_text(json.dumps(whole), encoding="utf-8")


class Saved:
    """A saved state, read part by part."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError if it is not there."""
        whole = json.loads((folder / _WHOLE).read_text(encoding="utf-8"))
        self.shapes: dict[str, list[int]] = whole["shapes"]
        self.facts: dict[str, Any] = whole["facts"]
        self.files = [
            (path, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
            for path in sorted(folder.glob("rank_*.safetensors"))
        ]

    def part(self, name: str, like: Tensor) -> Tensor:
        """This rank's part of a tensor that is sharded as `like`.

        Raises:
            ValueError: there is none of that name and shape, or rows of it are missing.
        """
        shape, first = part_of(like)
        if list(shape) != self.shapes.get(name):
            raise ValueError(f"{name} has the shape {self.shapes.get(name)}, and {list(shape)} is needed")
        wanted = local_shard(like)
        found = torch.empty_like(wanted, device="cpu")
        if not shape:
            return self._scalar(name)
        missing = len(found)
        for path, firsts in self.files:
            if name not in firsts or not missing:
                continue
            with safe_open(path, framework="pt") as file:
                stored = file.get_slice(name)
                begin, count = firsts[name], stored.get_shape()[0]
                start, end = max(first, begin), min(first + len(found), begin + count)
                if start < end:
                    found[start - first : end - first] = stored[start - begin : end - begin]
                    missing -= end - start
        if missing:
            raise ValueError(f"{missing} rows of {name} are missing")
        return found

    def _scalar(self, name: str) -> Tensor:
        path = next(path for path, firsts in self.files if name in firsts)
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)


# ------------------------------------------------------------------ rank_state
# What a rank saves and any number of ranks load: trained weights, their moments, a teacher that moves.


def save_state(rank: Rank, folder: Path, number: int) -> None:
    """Write this rank's part; it is rank `number`."""
    with rank.ready("train"):
        save_parts(folder, _tensors(rank), {"optimizer_steps": rank.optimizer_steps}, number)


def load_state(rank: Rank, folder: Path) -> None:
    """Raises ValueError if the state is not one of this model, OSError if a file is missing."""
    saved = Saved(folder)
    optimizer, named, moving = rank.engine.optimizer, rank.network.named_trainable(), rank.moving_teacher()
    expected = {f"weight/{n}" for n in named} | {f"teacher/{n}" for n in (moving.shards if moving else ())}
    if expected != {name for name in saved.shapes if not name.startswith("moment/")}:
        raise ValueError("other parameters are trained, or another teacher follows them")
    with rank.ready("train"), torch.no_grad():
        for name, parameter in named.items():
            local_shard(parameter).copy_(saved.part(f"weight/{name}", parameter))
            optimizer.state.pop(parameter, None)
            for key, like in _moments(parameter).items():
                if f"moment/{key}/{name}" in saved.shapes:
                    optimizer.state[parameter][key] = _filled(like, saved.part(f"moment/{key}/{name}", like))
        if moving is not None:
            moving.load({n: saved.part(f"teacher/{n}", named[n]) for n in moving.shards})
        rank.network.reshard()
    rank.optimizer_steps = int(saved.facts["optimizer_steps"])


def _tensors(rank: Rank) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, a tensor sharded as what is to be saved, and this rank's part."""
    named = rank.network.named_trainable()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parameter in named.items():
        found[f"weight/{name}"] = (parameter, local_shard(parameter))
        for key, value in rank.engine.optimizer.state.get(parameter, {}).items():
            found[f"moment/{key}/{name}"] = (value, local_shard(value))
    teacher = rank.moving_teacher()
    if teacher is not None:
        found |= {f"teacher/{name}": (named[name], shard) for name, shard in teacher.shards.items()}
    return found


def _moments(parameter: Tensor) -> dict[str, Tensor]:
    """What AdamW keeps for a parameter."""
    return {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}


def _filled(like: Tensor, part: Tensor) -> Tensor:
    """A tensor sharded as `like` with this part."""
    if not like.ndim:
        return part
    made = torch.zeros_like(like)
    local_shard(made).copy_(part)
    return made.detach()

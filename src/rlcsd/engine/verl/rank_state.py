"""What a rank saves and any number of ranks load: trained weights, their moments, a teacher that moves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from . import state
from .rank import Rank
from .shadows import local


def save_state(rank: Rank, folder: Path, number: int) -> None:
    """Write this rank's part; it is rank `number`."""
    with rank.ready("train"):
        state.save(folder, _tensors(rank), {"optimizer_steps": rank.optimizer_steps}, number)


def load_state(rank: Rank, folder: Path) -> None:
    """Raises ValueError if the state is not one of this model, OSError if a file is missing."""
    saved = state.Saved(folder)
    optimizer, named, moving = rank.engine.optimizer, rank.network.named_trainable(), rank.moving_teacher()
    expected = {f"weight/{n}" for n in named} | {f"teacher/{n}" for n in (moving.shards if moving else ())}
    if expected != {name for name in saved.shapes if not name.startswith("moment/")}:
        raise ValueError("other parameters are trained, or another teacher follows them")
    with rank.ready("train"), torch.no_grad():
        for name, parameter in named.items():
            local(parameter).copy_(saved.part(f"weight/{name}", parameter))
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
        found[f"weight/{name}"] = (parameter, local(parameter))
        for key, value in rank.engine.optimizer.state.get(parameter, {}).items():
            found[f"moment/{key}/{name}"] = (value, local(value))
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
    local(made).copy_(part)
    return made.detach()

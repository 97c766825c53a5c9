"""Second sets of weights in a worker's shards: the teacher that follows the policy, and the reference.

A shadow holds the shards of the trained parameters alone; adapters and full models are the same to it. To score under
it, its shards and the policy's change places and change back afterwards, so there is one sharded module in a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...methods.base import TeacherSchedule
from .model import ShardedNetwork


def local(tensor: Tensor) -> Tensor:
    """This rank's shard, which shares memory with `tensor`."""
    plain: Any = tensor.detach()
    return plain.to_local() if hasattr(plain, "to_local") else plain


class Shadow:
    """One more set of the trained weights. `on_cpu` keeps it in host memory while it is not used."""

    def __init__(self, network: ShardedNetwork, schedule: TeacherSchedule, on_cpu: bool) -> None:
        self.network, self.schedule = network, schedule
        place = torch.device("cpu") if on_cpu else None
        self.shards = {name: local(p).to(place or p.device, copy=True) for name, p in self._trained()}

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.network.named_trainable().items()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The shadow's weights where the policy's are."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._trained():
            shard, mine = local(parameter), self.shards[name]
            kept = shard.to(mine.device, copy=True)
            shard.copy_(mine)
            mine.copy_(kept)
        self.network.reshard()  # or the next forward would use what was gathered before

    def follow(self, optimizer_step: int) -> None:
        """To be called after optimizer step number `optimizer_step` (from 1)."""
        if self.schedule.due(optimizer_step):
            for name, parameter in self._trained():
                self.schedule.move(self.shards[name], local(parameter).to(self.shards[name].device))

    @torch.no_grad()
    def load(self, shards: Mapping[str, Tensor]) -> None:
        for name, shard in shards.items():
            self.shards[name].copy_(shard)

"""The policy in one worker: FSDP2 shards behind the interface of the local engine's `Network`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from ...methods.base import TeacherSchedule
from ...records import Pair
from ..head import HeadOutput
from ..local.model import Network, without_dropout
from .compat import gather_outputs_and_unpad, ulysses_pad_and_slice_inputs

FILLER = Pair((0,), (0,))  # a row that does not count, for a rank that has none left


class ShardedNetwork(Network):
    """`model` is sharded, so its weights are only there inside a forward of the whole: see `inside`."""

    def __init__(self, model: Any, head_chunk: int, sequence_parallel: int = 1) -> None:
        super().__init__(model, head_chunk)
        self.sequence_parallel = sequence_parallel
        self.computed = 0  # tokens, padding included, that went through the backbone
        without_dropout(model)
        self.units = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for unit in self.units:  # the root (embedding and head) stays together from forward to backward
            unit.set_reshard_after_forward(unit is not model, recurse=False)
        model.rlcsd_inside = lambda function, *arguments: function(*arguments)
        register_fsdp_forward_method(model, "rlcsd_inside")

    def hidden(self, cache: Any = None, **inputs: Any) -> Tensor:
        self.computed += inputs["input_ids"].numel()
        return super().hidden(cache, **inputs)

    def inside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)` as one forward of the sharded model; FSDP2 finds outputs in dicts and tuples alone."""
        return self.model.rlcsd_inside(function, *arguments)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """All weights whole on this rank, so that ranks may run different numbers of forward passes."""
        for unit in self.units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in self.units:
                unit.set_reshard_after_forward(unit is not self.model, recurse=False)
            self.reshard()

    def reshard(self) -> None:
        """Drop what was gathered: weights that changed since are gathered anew by the next forward."""
        for unit in self.units:
            unit.reshard()

    def packed(
        self,
        pairs: Sequence[Pair],
        *,
        top_k: int = 0,
        support: Tensor | None = None,
        entropy: bool = True,
    ) -> HeadOutput:
        """Figures of the response tokens of rows laid end to end in one sequence, one forward pass on every rank.

        With sequence parallelism each rank of a group has a slice of the sequence; the columns are gathered.
        """
        rows = [(*pair.context, *pair.response) for pair in pairs]
        ids = torch.tensor([token for row in rows for token in row], device=self.device)
        positions = torch.cat([torch.arange(len(row)) for row in rows]).to(self.device)
        ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
        where = torch.cat(
            [torch.arange(end - len(p.response) - 1, end - 1) for end, p in zip(ends, pairs, strict=True)]
        ).to(self.device)
        found = self.inside(self._columns, ids, positions, where, support, top_k, entropy)
        return HeadOutput(found["log_prob"], found.get("entropy"), found.get("topk_ids"), found.get("topk_log_prob"))

    def _columns(
        self, ids: Tensor, positions: Tensor, where: Tensor, support: Tensor | None, top_k: int, entropy: bool
    ) -> dict[str, Tensor]:
        labels = ids[where + 1]
        if self.sequence_parallel == 1:
            hidden = self.hidden(input_ids=ids[None], position_ids=positions[None], use_cache=False)[0, where]
            return self._head(hidden, labels, support, top_k, entropy)
        width = -(-len(ids) // self.sequence_parallel)
        mine, places, padding = ulysses_pad_and_slice_inputs(ids[None], positions[None], self.sequence_parallel)
        hidden = self.hidden(input_ids=mine, position_ids=places, use_cache=False)[0]
        first = width * (torch.distributed.get_rank() % self.sequence_parallel)
        here = (where >= first) & (where < first + width)
        part = None if support is None else support[here]
        local = self._head(hidden[where[here] - first], labels[here], part, top_k, entropy)
        whole = {}
        for name, column in local.items():
            slots = column.new_zeros(width, *column.shape[1:])
            slots = slots.index_put((where[here] - first,), column)
            whole[name] = gather_outputs_and_unpad(slots, gather_dim=0, unpad_dim=0, padding_size=padding)[where]
        return whole

    def _head(
        self, hidden: Tensor, labels: Tensor, support: Tensor | None, top_k: int, entropy: bool
    ) -> dict[str, Tensor]:
        out = self.head.top_k(hidden, labels, top_k) if top_k else self.head(hidden, labels, support, entropy)
        columns = {
            "log_prob": out.log_prob,
            "entropy": out.entropy,
            "topk_ids": out.topk_ids if top_k else None,
            "topk_log_prob": out.topk_log_prob,
        }
        return {name: column for name, column in columns.items() if column is not None}


# ------------------------------------------------------------------ shadows
# Second sets of weights in a worker's shards: the teacher that follows the policy, and the reference.
#
# A shadow holds the shards of the trained parameters alone; adapters and full models are the same to it. To score under
# it, its shards and the policy's change places and change back afterwards, so there is one sharded module in a worker.


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's shard, which shares memory with `tensor`."""
    plain: Any = tensor.detach()
    return plain.to_local() if hasattr(plain, "to_local") else plain


class Shadow:
    """One more set of the trained weights. `on_cpu` keeps it in host memory while it is not used."""

    def __init__(self, network: ShardedNetwork, schedule: TeacherSchedule, on_cpu: bool) -> None:
        self.network, self.schedule = network, schedule
        place = torch.device("cpu") if on_cpu else None
        self.shards = {name: local_shard(p).to(place or p.device, copy=True) for name, p in self._trained()}

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
            shard, mine = local_shard(parameter), self.shards[name]
            kept = shard.to(mine.device, copy=True)
            shard.copy_(mine)
            mine.copy_(kept)
        self.network.reshard()  # or the next forward would use what was gathered before

    def follow(self, optimizer_step: int) -> None:
        """To be called after optimizer step number `optimizer_step` (from 1)."""
        if self.schedule.due(optimizer_step):
            for name, parameter in self._trained():
                self.schedule.move(self.shards[name], local_shard(parameter).to(self.shards[name].device))

    @torch.no_grad()
    def load(self, shards: Mapping[str, Tensor]) -> None:
        for name, shard in shards.items():
            self.shards[name].copy_(shard)

"""The model of one worker in FSDP2 shards, behind the interface of the local engine's `Network`, and weight copies.

`n` is the number of response tokens, `S` that of all tokens of packed rows, `k` that of top-k ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from ...layout import joined_masks
from ...methods.base import TeacherSchedule
from ...records import Pair, SamplingMask
from ..head import HeadOutput
from ..local.model import Network, disable_dropout
from .compat import gather_outputs_and_unpad, ulysses_pad_and_slice_inputs

FILLER = Pair((0,), (0,))  # a row that counts for nothing, computed by a rank that has no rows left


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's shard, sharing memory with `tensor`; a plain tensor is its own shard."""
    plain: Any = tensor.detach()
    return plain.to_local() if hasattr(plain, "to_local") else plain


class ShardedNetwork(Network):
    """A `Network` whose weights exist only during a forward pass of the whole model, so code that needs them runs in
    `run_inside` or under `gathered`.

    `sequence_parallel` ranks share each sequence (Ulysses).
    """

    def __init__(self, model: Any, head_chunk: int, sequence_parallel: int = 1) -> None:
        super().__init__(model, head_chunk)
        self.sequence_parallel = sequence_parallel
        self.computed = 0  # tokens, padding included, that went through the backbone
        disable_dropout(model)
        self.units = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for unit in self.units:  # the root (embedding and head) stays gathered from forward to backward
            unit.set_reshard_after_forward(unit is not model, recurse=False)
        model.rlcsd_inside = lambda function, *arguments: function(*arguments)
        register_fsdp_forward_method(model, "rlcsd_inside")

    def hidden(self, cache: Any = None, **inputs: Any) -> Tensor:
        self.computed += inputs["input_ids"].numel()
        return super().hidden(cache, **inputs)

    def run_inside(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function(*arguments)` as one forward pass of the sharded model.

        Its result must be a tensor, or a tuple or dict of tensors: FSDP2 finds outputs in no other type.
        """
        return self.model.rlcsd_inside(function, *arguments)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep all weights whole on this rank, so that ranks may run different numbers of forward passes."""
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
        """Drop gathered weights, so that the next forward pass gathers the current ones."""
        for unit in self.units:
            unit.reshard()

    def packed(
        self, pairs: Sequence[Pair], *, top_k: int = 0, topk_ids: Tensor | None = None, entropy: bool = True
    ) -> HeadOutput:
        """Log-probs and entropies of the response tokens of rows packed into one sequence: one forward pass per rank.

        `topk_ids [n, k]` are token ids whose log-probs are wanted; `top_k` asks for the k most likely ones instead.
        With sampling masks in the pairs the log of the kept mass is computed as well. With sequence parallelism each
        rank of a group has a slice of the sequence; the columns are gathered.
        """
        rows = [(*pair.context, *pair.response) for pair in pairs]
        ids = torch.tensor([token for row in rows for token in row], device=self.device)
        positions = torch.cat([torch.arange(len(row)) for row in rows]).to(self.device)
        ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
        predicting = torch.cat(
            [torch.arange(end - len(p.response) - 1, end - 1) for end, p in zip(ends, pairs, strict=True)]
        ).to(self.device)
        columns = partial(self._columns, kept=joined_masks(pairs))  # FSDP2 looks through arguments for tensors
        found = self.run_inside(columns, ids, positions, predicting, topk_ids, top_k, entropy)
        return HeadOutput(**{name: found.get(name) for name in HeadOutput.__annotations__})

    def _columns(
        self,
        ids: Tensor,
        positions: Tensor,
        predicting: Tensor,
        topk_ids: Tensor | None,
        top_k: int,
        entropy: bool,
        kept: SamplingMask | None,
    ) -> dict[str, Tensor]:
        """Columns of `HeadOutput` at the positions `predicting [n]` of packed rows `ids [S]`."""
        labels = ids[predicting + 1]
        if self.sequence_parallel == 1:
            hidden = self.hidden(input_ids=ids[None], position_ids=positions[None], use_cache=False)[0, predicting]
            return self._head_columns(hidden, labels, topk_ids, top_k, entropy, kept)
        width = -(-len(ids) // self.sequence_parallel)
        slice_ids, slice_positions, padding = ulysses_pad_and_slice_inputs(
            ids[None], positions[None], self.sequence_parallel
        )
        hidden = self.hidden(input_ids=slice_ids, position_ids=slice_positions, use_cache=False)[0]
        first = width * (torch.distributed.get_rank() % self.sequence_parallel)
        here = (predicting >= first) & (predicting < first + width)
        offsets = predicting[here] - first
        columns = self._head_columns(
            hidden[offsets],
            labels[here],
            None if topk_ids is None else topk_ids[here],
            top_k,
            entropy,
            None if kept is None else kept.at(here.cpu().nonzero()[:, 0]),
        )
        whole = {}
        for name, column in columns.items():
            padded = column.new_zeros(width, *column.shape[1:]).index_put((offsets,), column)
            gathered = gather_outputs_and_unpad(padded, gather_dim=0, unpad_dim=0, padding_size=padding)
            whole[name] = gathered[predicting]
        return whole

    def _head_columns(
        self,
        hidden: Tensor,
        labels: Tensor,
        topk_ids: Tensor | None,
        top_k: int,
        entropy: bool,
        kept: SamplingMask | None,
    ) -> dict[str, Tensor]:
        if top_k:
            out = self.head.top_k(hidden, labels, top_k, kept)
        else:
            out = self.head(hidden, labels, topk_ids, entropy, kept)
        columns = {
            "log_prob": out.log_prob,
            "entropy": out.entropy,
            "topk_ids": out.topk_ids if top_k else None,
            "topk_log_prob": out.topk_log_prob,
            "log_kept_mass": out.log_kept_mass,
        }
        return {name: column for name, column in columns.items() if column is not None}


class WeightCopy:
    """A second set of the trained weights, as shards: the teacher that follows the policy, or the reference.

    To score under it, its shards and the policy's are swapped and swapped back, so a worker holds one sharded module.
    Full models and adapters work alike. With `on_cpu` it stays in host memory while it is not used.
    """

    def __init__(self, network: ShardedNetwork, schedule: TeacherSchedule, on_cpu: bool) -> None:
        self.network, self.schedule = network, schedule
        device = torch.device("cpu") if on_cpu else None
        self.shards = {
            name: local_shard(parameter).to(device or parameter.device, copy=True)
            for name, parameter in network.named_trainable().items()
        }

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Exchange these weights with the policy's inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.network.named_trainable().items():
            policy, copy = local_shard(parameter), self.shards[name]
            before = policy.to(copy.device, copy=True)
            policy.copy_(copy)
            copy.copy_(before)
        self.network.reshard()  # or the next forward pass would use weights gathered before

    def follow(self, optimizer_step: int) -> None:
        """Move towards the policy if the schedule says so. Called after each optimizer step, counted from 1."""
        if self.schedule.due(optimizer_step):
            for name, parameter in self.network.named_trainable().items():
                self.schedule.move(self.shards[name], local_shard(parameter).to(self.shards[name].device))

    @torch.no_grad()
    def load(self, shards: Mapping[str, Tensor]) -> None:
        for name, shard in shards.items():
            self.shards[name].copy_(shard)

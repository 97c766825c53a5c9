"""The Ray actor on each GPU: the methods that the driver calls on all ranks, and weight export."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError, first_line
from ..local.lora import write_base
from . import shards
from .compat import (
    ActorRolloutRefWorker,
    adapters,
    full_weights,
    get_device_name,
    start_process_group,
    watch_weight_transfer,
)
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .rank import Rank
from .settings import engine_settings
from .sharded_model import ShardedNetwork


class RlcsdWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """One rank, and its half of the rollout server.

    `config` is verl's and `run` this project's. Role `actor` only scores (another teacher model), `actor_rollout`
    trains and feeds servers as well. Every method is called on all ranks, also on those without rows.
    """

    def __init__(self, config: Any, role: str, run: Config) -> None:
        super().__init__(config=config, role=role)
        self.run = run

    def start(self, policy: bool) -> int:
        """Load and shard the model; returns this rank's index among the data-parallel ranks."""
        if get_device_name() == "cpu":
            torch.set_num_threads(1)
        start_process_group(engine_settings(self.run).timeout)
        torch.manual_seed(self.run.seed)
        self.init_model()
        if self.rollout is not None:
            watch_weight_transfer(self.rollout, engine_settings(self.run).timeout)
        self.mine = Rank(self.actor.engine, self.run, policy)
        return int(self.actor.engine.get_data_parallel_rank())

    def score(self, task: ScoreTask) -> Columns:
        return self.mine.score(task)

    def check(self, rows: Rows, seed: int) -> dict[str, Tensor]:
        return self.mine.check(rows, seed)

    def fill_adapters(self, seed: int | None) -> None:
        self.mine.fill_adapters(seed)

    def update(self, task: UpdateTask) -> Updated:
        return self.mine.update(task)

    def gradient(self, task: UpdateTask) -> dict[str, Tensor]:
        """See `Rank.gradient`; empty on ranks other than the first."""
        found = self.mine.gradient(task)
        return found if self.rank == 0 else {}

    def square_sum(self) -> float:
        return self.mine.square_sum()

    # ------------------------------------------------------------------ top-k log-probs

    def topk_count(self) -> int:
        """How many sets of top-k log-probs this rank stores a part of."""
        return len(self.mine.topk)

    def send_topk(self, key: int) -> list[Any]:
        """Put this rank's top-k ids and log-probs into Ray's object store, for the workers of another model.

        Returns a reference in a list, which Ray does not resolve on its way; `[None]` if this rank has none.
        """
        handle = self.mine.topk_handles.get(key)
        if handle is None:
            return [None]
        ids = self.mine.topk.ids_at(handle, range(len(handle.lengths)))
        columns = (ids, *self.mine.topk.log_probs(handle))
        return [ray.put((handle.lengths, *(c if c is None else c.cpu() for c in columns)))]

    def receive_topk(self, sent: tuple[int, list[Any]]) -> None:
        """Store what `send_topk` of the same rank of another model returned for a key."""
        key, (reference,) = sent
        if reference is None:
            return
        topk, handles, device = (self.mine.topk, self.mine.topk_handles, self.mine.network.device)
        lengths, ids, *columns = ray.get(reference)
        if key not in handles:
            handles[key] = topk.add(ids.to(device), lengths, None)
        teacher, contrast = (c if c is None else c.to(device) for c in columns)
        topk.set_log_probs(handles[key], teacher, contrast)

    def release(self, key: int) -> None:
        """Forget this rank's part of the top-k log-probs."""
        if key in self.mine.topk_handles:
            self.mine.topk.release(self.mine.topk_handles.pop(key))

    # ------------------------------------------------------------------ saving

    def export(self, folder: str) -> None:
        """Write the policy in Hugging Face format; the driver adds the tokenizer."""
        with self.mine.ready("eval"):
            _export(self.mine.network, self.actor.model_config, Path(folder), self.rank)
        if self.run.model.lora is not None and self.rank == 0:
            write_base(Path(folder), self.run.model)
        dist.barrier()

    def save_state(self, folder: str) -> None:
        shards.save_state(self.mine, Path(folder), self.rank)
        dist.barrier()

    def load_state(self, folder: str) -> None:
        """See `shards.load_state`. Raises InputError for a state that does not fit."""
        try:
            shards.load_state(self.mine, Path(folder))
        except (ValueError, OSError) as error:
            raise InputError(f"the checkpoint does not fit this model ({first_line(error)})") from error
        dist.barrier()


def _export(network: ShardedNetwork, model_config: Any, folder: Path, rank: int) -> None:
    """Weights as they are trained, or adapters alone. All ranks gather, rank 0 writes."""
    from transformers import AutoModelForCausalLM

    if network.core is not network.model:
        adapter = {name: tensor.cpu().clone() for name, tensor in adapters(network.model) if rank == 0}
        if rank == 0:
            network.model.peft_config["default"].save_pretrained(folder)
            save_file(adapter, folder / "adapter_model.safetensors")
        return
    weights = {name: tensor.cpu().clone() for name, tensor in full_weights(network.model) if rank == 0}
    if rank:
        return
    config = copy.deepcopy(model_config.hf_config)
    config.dtype = next(iter(weights.values())).dtype
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    empty.generation_config = model_config.generation_config
    empty.save_pretrained(folder, state_dict=weights)

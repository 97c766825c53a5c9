"""What runs on each GPU: an actor whose methods the driver calls on all ranks, and the rollout server's other half.

Every rank is called with a part of the work, some with none, and all of them run the same number of sharded forward
passes: those that have none left run one on a filler.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM

from ...config.schema import Config
from ...errors import InputError, first_line
from . import rank, shards
from .compat import ActorRolloutRefWorker, get_device_name, start_process_group, whole, whole_weights
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .rank import Rank
from .settings import engine_settings
from .sharded_model import ShardedNetwork


class RlcsdWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """One rank. `config` is verl's and `run` this project's. Role `actor` only scores, `actor_rollout` does all."""

    def __init__(self, config: Any, role: str, run: Config) -> None:
        super().__init__(config=config, role=role)
        self.run = run

    def start(self, policy: bool) -> int:
        """Load the model and shard it; returns this rank's place among those that have rows of their own."""
        if get_device_name() == "cpu":
            torch.set_num_threads(1)
        start_process_group(engine_settings(self.run).timeout)
        torch.manual_seed(self.run.seed)
        self.init_model()
        self.mine = Rank(self.actor.engine, self.run, policy)
        return int(self.actor.engine.get_data_parallel_rank())

    def score(self, task: ScoreTask) -> Columns:
        return rank.score(self.mine, task)

    def check(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return rank.check(self.mine, rows)

    def update(self, task: UpdateTask) -> Updated:
        return rank.update(self.mine, task)

    def gradient(self, task: UpdateTask) -> dict[str, Tensor]:
        """See `updating.gradient`; nothing on ranks other than the first."""
        found = rank.gradient(self.mine, task)
        return found if self.rank == 0 else {}

    def squares(self) -> float:
        return rank.squares(self.mine)

    def kept(self) -> int:
        """How many supports this rank has a part of."""
        return len(self.mine.supports)

    def lend(self, key: int) -> list[Any]:
        return lend(self.mine, key)

    def borrow(self, lent: tuple[int, list[Any]]) -> None:
        borrow(self.mine, lent[0], lent[1][0])

    def release(self, key: int) -> None:
        release(self.mine, key)

    def export(self, folder: str) -> None:
        """The policy in Hugging Face format; the tokenizer is the driver's."""
        with self.mine.ready("eval"):
            export(self.mine.network, self.actor.model_config, Path(folder), self.rank)
        dist.barrier()

    def save_state(self, folder: str) -> None:
        shards.save_state(self.mine, Path(folder), self.rank)
        dist.barrier()

    def load_state(self, folder: str) -> None:
        """See `rank_state.load_state`. Raises InputError for what that raises."""
        try:
            shards.load_state(self.mine, Path(folder))
        except (ValueError, OSError) as error:
            raise InputError(f"the checkpoint does not fit this model ({first_line(error)})") from error
        dist.barrier()


# ------------------------------------------------------------------ lending
# Supports that two models need: each rank's part goes from worker to worker, not through the driver.


def lend(rank: Rank, key: int) -> list[Any]:
    """A reference to this rank's part of a support, for the workers of another model: ids, log-probs, lengths."""
    held = rank.held.get(key)
    if held is None:
        return [None]
    ids = rank.supports.ids_at(held, range(len(held.lengths)))
    columns = (ids, *rank.supports.log_probs(held))
    return [ray.put((held.lengths, *(c if c is None else c.cpu() for c in columns)))]


def borrow(rank: Rank, key: int, reference: Any) -> None:
    """This rank's part of a support, as it is with the workers of another model."""
    if reference is None:
        return
    lengths, ids, *columns = ray.get(reference)
    if key not in rank.held:
        rank.held[key] = rank.supports.add(ids.to(rank.network.device), lengths, None)
    teacher, wrong = (c if c is None else c.to(rank.network.device) for c in columns)
    rank.supports.set_log_probs(rank.held[key], teacher, wrong)


def release(rank: Rank, key: int) -> None:
    """Forget this rank's part of a support."""
    if key in rank.held:
        rank.supports.release(rank.held.pop(key))


# ------------------------------------------------------------------ export
# The policy of all ranks as one model folder in Hugging Face format.


def export(network: ShardedNetwork, model_config: Any, folder: Path, rank: int) -> None:
    """Weights in float32, adapters merged and saved themselves under `adapter/`. Every rank gathers; rank 0 writes."""
    adapters = {
        name: tensor.cpu().clone()
        for name, parameter in network.model.named_parameters()
        if "lora_" in name
        for tensor in [whole(parameter)]
        if rank == 0
    }
    weights = {name: tensor.cpu().clone() for name, tensor in whole_weights(network.model) if rank == 0}
    if rank:
        return
    if adapters:
        _save_adapter(network.model, adapters, folder / "adapter")
    config = copy.deepcopy(model_config.hf_config)
    config.dtype = torch.float32
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    empty.generation_config = model_config.generation_config
    empty.save_pretrained(folder, state_dict=weights)


def _save_adapter(model: Any, adapters: dict[str, torch.Tensor], folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir()
    model.peft_config["default"].save_pretrained(folder)
    save_file(get_peft_model_state_dict(model, state_dict=adapters), folder / "adapter_model.safetensors")

"""What runs on each GPU: an actor whose methods the driver calls on all ranks, and the rollout server's other half.

Every rank is called with a part of the work, some with none, and all of them run the same number of sharded forward
passes: those that have none left run one on a filler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError, first_line
from . import lending, rank_state, scoring, updating
from .export import export
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .private import ActorRolloutRefWorker, get_device_name, start_process_group
from .rank import Rank
from .settings import engine_settings


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
        return scoring.score(self.mine, task)

    def check(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return scoring.check(self.mine, rows)

    def update(self, task: UpdateTask) -> Updated:
        return updating.update(self.mine, task)

    def gradient(self, task: UpdateTask) -> dict[str, Tensor]:
        """See `updating.gradient`; nothing on ranks other than the first."""
        found = updating.gradient(self.mine, task)
        return found if self.rank == 0 else {}

    def squares(self) -> float:
        return updating.squares(self.mine)

    def kept(self) -> int:
        """How many supports this rank has a part of."""
        return len(self.mine.supports)

    def lend(self, key: int) -> list[Any]:
        return lending.lend(self.mine, key)

    def borrow(self, lent: tuple[int, list[Any]]) -> None:
        lending.borrow(self.mine, lent[0], lent[1][0])

    def release(self, key: int) -> None:
        lending.release(self.mine, key)

    def export(self, folder: str) -> None:
        """The policy in Hugging Face format; the tokenizer is the driver's."""
        with self.mine.ready("eval"):
            export(self.mine.network, self.actor.model_config, Path(folder), self.rank)
        dist.barrier()

    def save_state(self, folder: str) -> None:
        rank_state.save_state(self.mine, Path(folder), self.rank)
        dist.barrier()

    def load_state(self, folder: str) -> None:
        """See `rank_state.load_state`. Raises InputError for what that raises."""
        try:
            rank_state.load_state(self.mine, Path(folder))
        except (ValueError, OSError) as error:
            raise InputError(f"the checkpoint does not fit this model ({first_line(error)})") from error
        dist.barrier()

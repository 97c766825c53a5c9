"""What one rank holds: the model's shards, the weights that follow it, and its part of each support."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...config.load import build_method
from ...config.schema import Config
from ...methods.base import HintedConfig, TeacherSchedule
from ...methods.losses import Regularisers
from ...records import Pair, TopKHandle
from ..local.batching import micro_batches
from ..local.supports import SupportStore
from .model import ShardedNetwork
from .settings import engine_settings
from .shadows import Shadow


class Rank:
    """One rank's share of a model. `engine` is verl's, with the model in shards.

    The `policy` also has its teacher and its reference; another model as the teacher has neither.
    """

    def __init__(self, engine: Any, run: Config, policy: bool) -> None:
        self.engine, self.run, self.settings = engine, run, engine_settings(run)
        self.network = ShardedNetwork(engine.module, self.settings.head_chunk, self.settings.sequence_parallel)
        self.supports, self.held = SupportStore(), dict[int, TopKHandle]()  # by the driver's key
        self.method, self.optimizer_steps = build_method(run), 0
        self.regularisers = Regularisers(run.kl_coefficient, run.entropy_coefficient)
        self.shadows: dict[str, Shadow] = {}
        if policy:
            self._add_shadows()

    def _add_shadows(self) -> None:
        wanted, on_cpu = self.method.config, self.settings.offload == "all"
        fixed = TeacherSchedule("fixed")
        with self.ready("eval"):
            if isinstance(wanted, HintedConfig) and wanted.teacher != "model":
                schedule = TeacherSchedule(wanted.teacher, wanted.ema_rate, wanted.snapshot_every)
                self.shadows["teacher"] = Shadow(self.network, schedule, on_cpu)
            if self.regularisers.kl > 0:
                teacher = self.shadows.get("teacher")
                same = teacher if teacher is not None and teacher.schedule == fixed else None
                self.shadows["reference"] = same or Shadow(self.network, fixed, on_cpu)

    @contextmanager
    def ready(self, mode: str) -> Iterator[None]:
        """Weights (in mode `train` moments too) on the device; offloaded again afterwards if the settings say so."""
        with self.engine.train_mode() if mode == "train" else self.engine.eval_mode():
            yield

    def moving_teacher(self) -> Shadow | None:
        """The teacher whose weights change, and so belong to the state."""
        teacher = self.shadows.get("teacher")
        return teacher if teacher is not None and teacher.schedule.moves else None


def chunks(pairs: Sequence[Pair], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """This rank's rows in micro-batches, and then empty ones until every rank has had as many.

    So all ranks run the same number of sharded forward passes, as their collectives demand.
    """
    lengths = [len(pair.context) + len(pair.response) for pair in pairs]
    mine = list(micro_batches(lengths, rows, budget))
    most = torch.tensor(len(mine))
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    yield from mine
    yield from [[] for _ in range(int(most) - len(mine))]


def whole(tensor: Any) -> Tensor:
    """A gradient of all ranks on the CPU; every rank takes part."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).cpu()

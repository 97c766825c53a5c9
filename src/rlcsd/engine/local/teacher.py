"""The teacher's weights in one process: a frozen twin of the policy, moved by the method's schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from ...methods.base import TeacherSchedule
from .network import Network


class Teacher:
    """With adapters only the adapter exists twice: `Network.twin` shares every frozen tensor."""

    def __init__(self, policy: Network, schedule: TeacherSchedule, other: Network | None = None) -> None:
        """`other` is the teacher itself for kind `model`; every other kind starts as a twin of the policy."""
        self.schedule = schedule
        self.network = policy.twin() if other is None else other
        self._followed = sorted(policy.named_trainable()) if other is None else []

    def follow(self, policy: Network, optimizer_step: int) -> None:
        """To be called after optimizer step number `optimizer_step` (from 1)."""
        if not self.schedule.due(optimizer_step):
            return
        theirs, ours = dict(policy.model.named_parameters()), dict(self.network.model.named_parameters())
        for name in self._followed:
            self.schedule.move(ours[name], theirs[name])

    def state(self) -> dict[str, Tensor]:
        """The teacher's own tensors by name; none for a schedule that never moves and for another model."""
        if not self.schedule.moves:
            return {}
        ours = dict(self.network.model.named_parameters())
        return {name: ours[name].detach() for name in self._followed}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        ours = dict(self.network.model.named_parameters())
        for name, tensor in state.items():
            ours[name].copy_(tensor)

"""When and how the teacher's weights follow the policy: the schedule, without any network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TeacherKind = Literal["fixed", "ema", "snapshot", "model"]


@dataclass(frozen=True)
class TeacherSchedule:
    """`fixed` keeps the weights of step 0 and `model` those of another model; `ema` takes in a share of the policy
    after each optimizer step (SDPO, arXiv 2601.20802); `snapshot` copies the policy every so many steps (RLSD)."""

    kind: TeacherKind
    ema_rate: float = 0.05
    snapshot_every: int = 10

    @property
    def moves(self) -> bool:
        """Does the teacher ever follow the policy?"""
        return self.kind in ("ema", "snapshot")

    def due(self, optimizer_step: int) -> bool:
        """Does the teacher move after optimizer step number `optimizer_step` (from 1)?"""
        return self.kind == "ema" or (self.kind == "snapshot" and optimizer_step % self.snapshot_every == 0)

    @torch.no_grad()
    def move(self, teacher: Tensor, policy: Tensor) -> None:
        """One tensor of the teacher after a step that is due: θ_T ← (1 − rate) θ_T + rate θ, or θ_T ← θ. In place."""
        if self.kind == "ema":
            teacher.lerp_(policy, self.ema_rate)
        else:
            teacher.copy_(policy)

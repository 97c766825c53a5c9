"""GRPO (arXiv 2402.03300): the verifier alone; every token of a response gets its advantage."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ..records import TokenBatch
from .base import CreditMethod, MethodConfig


class GRPOConfig(MethodConfig):
    epsilon: float = Field(0.2, gt=0, lt=1, description="PPO clip range")
    dual_clip: float = Field(3.0, gt=1, description="bound of the loss for A < 0")


class GRPO(CreditMethod):
    """Dual-clip PPO on the group advantage."""

    name = "grpo"
    Config = GRPOConfig
    ratio_clamp = 20.0

    def __init__(self, config: GRPOConfig) -> None:
        super().__init__(config)
        self.dual_clip = config.dual_clip

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        return batch.advantage

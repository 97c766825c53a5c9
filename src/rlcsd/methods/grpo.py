"""GRPO (arXiv 2402.03300), and the baselines that are GRPO with another objective: the verifier alone.

Every token of a response gets the response's advantage.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from ..records import TokenBatch
from .base import CreditMethod, MethodConfig
from .objective import OBJECTIVE, ObjectiveConfig


class GRPOConfig(ObjectiveConfig, MethodConfig):
    dual_clip: float | None = Field(3.0, gt=1, description="bound of the loss for A < 0, in |A|; null: none")


class GRPO(CreditMethod):
    """Dual-clip PPO on the group advantage, or another objective on it."""

    name = "grpo"
    Config = GRPOConfig
    ratio_clamp = 20.0

    def advantages(self, log_prob: Tensor, batch: TokenBatch) -> Tensor:
        return batch.advantage


# ------------------------------------------------------------------ named objectives on GRPO's advantages


class DAPOConfig(GRPOConfig):
    objective: Literal["dapo"] = Field("dapo", description=OBJECTIVE)


class DAPO(GRPO):
    """DAPO (arXiv 2503.14476): a higher upper clip bound; its refills and length penalty are config keys."""

    name = "dapo"
    Config = DAPOConfig


class DrGRPOConfig(GRPOConfig):
    objective: Literal["dr_grpo"] = Field("dr_grpo", description=OBJECTIVE)


class DrGRPO(GRPO):
    """Dr. GRPO (arXiv 2503.20783): neither the group's standard deviation nor the response's length divides."""

    name = "dr_grpo"
    Config = DrGRPOConfig


class GSPOConfig(GRPOConfig):
    objective: Literal["gspo"] = Field("gspo", description=OBJECTIVE)


class GSPO(GRPO):
    """GSPO (arXiv 2507.18071): the clip range bounds the ratio of the whole response."""

    name = "gspo"
    Config = GSPOConfig


class CISPOConfig(GRPOConfig):
    objective: Literal["cispo"] = Field("cispo", description=OBJECTIVE)


class CISPO(GRPO):
    """CISPO (arXiv 2506.13585): the ratio is capped, and no token loses its gradient."""

    name = "cispo"
    Config = CISPOConfig


class RLOOConfig(GRPOConfig):
    objective: Literal["rloo"] = Field("rloo", description=OBJECTIVE)


class RLOO(GRPO):
    """RLOO (arXiv 2402.14740): a reward minus the mean of the group's other rewards, in GRPO's loss."""

    name = "rloo"
    Config = RLOOConfig

"""RLSD with contrastive evidence: the wrong-hint teacher replaces the policy as the baseline."""

from __future__ import annotations

from torch import Tensor

from ..records import Evidence
from .base import ContrastConfig
from .contrast import Contrastive
from .rlsd import RLSD, RLSDConfig


class RLSDContrastConfig(ContrastConfig, RLSDConfig):
    pass


class RLSDContrast(Contrastive, RLSD):
    """As `rlsd`, with log π_T(y|h_c) − log π_T(y|h_w), clamped to ±60, as the log-weight."""

    name = "rlsd_ectr"
    Config = RLSDContrastConfig
    loss_columns = ("weight", "contrast", "lam")

    def log_weight(self, log_prob: Tensor, evidence: Evidence) -> Tensor:
        assert evidence.contrast is not None
        return evidence.contrast.clamp(-60, 60)

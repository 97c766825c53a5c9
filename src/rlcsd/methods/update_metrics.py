"""Figures of an update: sums over any part of a mini-batch, and the metrics that the added sums amount to."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ..metrics import Max, Mean, Metrics, Sum
from ..records import Evidence
from .base import Method
from .ppo import clipped

NO_STEP: Metrics = {"update/skipped": Sum(0), "update/empty": Sum(1)}  # of an update with nothing to learn from


def step_metrics(growth: float, norm: float, learning_rate: float, stepped: bool) -> Metrics:
    """What an optimizer step did; without a finite gradient it was skipped. `growth` is the weights' over the run."""
    return {
        "actor/weight_growth": Max(growth if math.isfinite(growth) else math.inf),
        "actor/grad_norm": Mean(norm),
        "actor/learning_rate": Mean(learning_rate),
        "update/skipped": Sum(not stepped),
        "update/empty": Sum(0),
    }


def update_sums(loss: float, log_prob: Tensor, part: Evidence, method: Method) -> dict[str, float]:
    """Sums over the tokens of `part`, which add up over micro-batches and ranks.

    `loss` is the part's loss and `log_prob [n]` the current policy's, without gradient.
    """
    log_ratio = log_prob - part.old_log_prob
    sums = {"tokens": float(len(part)), "loss": loss, "actor/kl_to_old": float((-log_ratio).sum())}
    epsilon = getattr(method.config, "epsilon", None)
    if epsilon is not None:
        sums["actor/clip_fraction"] = float(clipped(method.clipped_advantage(log_prob, part), log_ratio, epsilon).sum())
    return sums


def update_metrics(sums: Mapping[str, float], updated: int, rows: int) -> Metrics:
    """The metrics of a mini-batch from its added `sums`; `updated` of its `rows` had a gradient."""
    tokens = sums.get("tokens", 0.0)
    means = {name: Mean(value / max(tokens, 1.0), tokens) for name, value in sums.items() if "/" in name}
    return {
        **means,
        "actor/loss": Mean(sums.get("loss", 0.0)),
        "actor/updated_share": Mean(updated / max(rows, 1), rows),
    }

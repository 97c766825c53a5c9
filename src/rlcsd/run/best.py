"""Which evaluation of a run is its best, and whether the run still gets better."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.schema import EvaluationConfig
from ..evaluation import Summary

Evaluations = Sequence[tuple[int, Sequence[Summary]]]


def _mean(sets: Sequence[Summary]) -> float:
    return sum(one.mean for one in sets) / len(sets)


def best_step(evaluations: Evaluations) -> int | None:
    """The trained step with the highest mean accuracy over the evaluation sets, the first of equals."""
    rated = [(_mean(sets), step) for step, sets in evaluations if step and sets]
    return max(rated, key=lambda one: (one[0], -one[1]))[1] if rated else None


def no_longer_better(evaluations: Evaluations, config: EvaluationConfig) -> bool:
    """Whether the last `patience` evaluations brought no mean accuracy that is better by more than `min_gain`."""
    best, in_a_row = float("-inf"), 0
    for _, sets in evaluations:
        if not sets:
            continue
        better = _mean(sets) > best + config.min_gain
        best, in_a_row = (_mean(sets), 0) if better else (best, in_a_row + 1)
    return bool(config.patience) and in_a_row >= config.patience

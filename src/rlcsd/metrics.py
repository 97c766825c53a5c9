"""Figures for the log, each with the way in which several of them become one.

A training step makes several optimizer updates, and an update several micro-batches of unequal size. So a figure
carries its reduction: a mean its weight (tokens or rollouts), a distribution its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_FOR_QUANTILES = 2**24  # the limit of torch.quantile


class Metric(Protocol):
    """One figure.

    `merged` takes all figures of one name and `results` gives what is logged, by a suffix of the name.
    """

    def merged(self, others: Sequence[Self]) -> Self: ...

    def results(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class Mean:
    """A mean over `weight` tokens, rollouts or updates. Means over nothing (weight 0) are not logged."""

    value: float
    weight: float = 1.0

    def merged(self, others: Sequence[Mean]) -> Mean:
        if len(others) == 1:
            return others[0]
        total = sum(one.weight for one in others)
        return (
            Mean(sum(one.value * one.weight for one in others if one.weight) / total, total)
            if total
            else Mean(0.0, 0.0)
        )

    def results(self) -> dict[str, float]:
        return {"": self.value} if self.weight else {}


@dataclass(frozen=True)
class Sum:
    """A count or a sum."""

    value: float

    def merged(self, others: Sequence[Sum]) -> Sum:
        return Sum(sum(one.value for one in others))

    def results(self) -> dict[str, float]:
        return {"": self.value}


@dataclass(frozen=True)
class Max:
    """The largest."""

    value: float

    def merged(self, others: Sequence[Max]) -> Max:
        return Max(max(one.value for one in others))

    def results(self) -> dict[str, float]:
        return {"": self.value}


@dataclass(frozen=True)
class Distribution:
    """Values `[n]` of which mean, mean size, standard deviation and percentiles are logged, of all of them together."""

    values: Tensor

    def merged(self, others: Sequence[Distribution]) -> Distribution:
        return Distribution(torch.cat([one.values.double().cpu() for one in others]))

    def results(self) -> dict[str, float]:
        values = self.values.double().cpu()
        if not len(values):
            return {}
        results = {"/mean": values.mean(), "/abs_mean": values.abs().mean(), "/std": values.std(correction=0)}
        if len(values) <= _MOST_FOR_QUANTILES:
            levels = torch.tensor(_QUANTILES, dtype=values.dtype)
            results |= {f"/p{round(100 * q):02d}": v for q, v in zip(_QUANTILES, values.quantile(levels), strict=True)}
        return {suffix: float(value) for suffix, value in results.items()}


Metrics = Mapping[str, Metric | float]


def combined(records: Sequence[Metrics]) -> dict[str, float]:
    """Several records as one, each figure by its own reduction. A plain number counts as a mean of weight 1."""
    by_name: dict[str, list[Metric]] = {}
    for record in records:
        for name, value in record.items():
            by_name.setdefault(name, []).append(Mean(float(value)) if isinstance(value, int | float) else value)
    logged: dict[str, float] = {}
    for name in sorted(by_name):
        figures = by_name[name]
        logged |= {name + suffix: value for suffix, value in figures[0].merged(figures).results().items()}
    return logged

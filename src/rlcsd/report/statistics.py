"""Means with intervals, paired differences with p-values, and Holm's correction for several tests.

Values are those of seeds or of problems. Seeds are few and roughly normal, so they get Student's t. Outcomes of
problems are many and far from normal (0 or 1), so they are resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 9999


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` values and its interval; `low` and `high` are None where one value tells nothing of it."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences a − b over `count` pairs, its interval, and a two-sided p-value.

    The p-value is that of "no difference". `low`, `high` and `p` are None for a single pair.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    count: int


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean and t-interval; several equal values have an interval of width 0.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    array = _finite(values)
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Estimate(mean, None, None, count)
    half = float(stats.t.ppf((1 + level) / 2, count - 1) * stats.sem(array))
    return Estimate(mean, mean - half, mean + half, count)


def paired_difference(
    a: Sequence[float] | Mapping[Any, float],
    b: Sequence[float] | Mapping[Any, float],
    *,
    by: Literal["t", "resampling"] = "t",
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """How much larger `a` is than `b` on average, pair by pair.

    Two sequences are paired by place; two mappings by key, over the keys that both have. `t` is the paired t-test and
    its interval (seeds). `resampling` takes the percentile bootstrap over pairs for the interval and random changes of
    sign of the differences for the p-value (problems); `seed` decides what is drawn.

    Raises:
        ValueError: no pair, sequences of unequal length, or a value that is not finite.
    """
    difference = _finite(_differences(a, b))
    mean, count = float(difference.mean()), len(difference)
    if count < 2:
        return Difference(mean, None, None, None, count)
    if not np.any(difference):
        return Difference(0.0, 0.0, 0.0, 1.0, count)
    if by == "t":
        estimate = mean_interval(difference.tolist(), level)
        # All differences alike: the t-statistic is infinite, and the p-value 0.
        p = float(stats.ttest_1samp(difference, 0.0).pvalue) if np.ptp(difference) else 0.0
        return Difference(mean, estimate.low, estimate.high, p, count)
    low, high = _bootstrap(difference, level, seed)
    return Difference(mean, low, high, _sign_flips(difference, seed), count)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p-value corrected for the number of them (Holm 1979): to reject those below a level has at most that chance
    of any false alarm. None stays None and does not count."""
    known = [place for place, p in enumerate(p_values) if p is not None]
    order = sorted(known, key=lambda place: p_values[place] or 0.0)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * (p_values[place] or 0.0)))
        corrected[place] = largest
    return corrected


def _differences(a: Sequence[float] | Mapping[Any, float], b: Sequence[float] | Mapping[Any, float]) -> Sequence[float]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return [a[key] - b[key] for key in a if key in b]
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        raise ValueError("a mapping can only be paired with another mapping")
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values cannot be paired with {len(b)}")
    return [x - y for x, y in zip(a, b, strict=True)]


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not array.size:
        raise ValueError("there is no value")
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite")
    return array


def _bootstrap(values: np.ndarray, level: float, seed: int) -> tuple[float, float]:
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=_RESAMPLES, batch=256, confidence_level=level, method="percentile", rng=seed
    ).confidence_interval
    return float(found.low), float(found.high)


def _sign_flips(values: np.ndarray, seed: int) -> float:
    """The share of assignments of signs whose mean is at least as far from 0 as the one seen; exact for few pairs."""
    changed = values[values != 0]  # equal outcomes say nothing, whatever their sign
    found = stats.permutation_test(
        (changed,), np.sum, permutation_type="samples", n_resamples=_RESAMPLES, batch=256, vectorized=True, rng=seed
    )
    return float(found.pvalue)

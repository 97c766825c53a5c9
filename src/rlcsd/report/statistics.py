"""Means with intervals, paired differences with p-values, and Holm's correction for several tests.

Values belong to seeds or to problems. Seeds are few and roughly normal, so they get Student's t. Outcomes of problems
lie between 0 and 1 and are far from normal, so they get the interval of `evaluation.interval_over_problems` and a test
that flips signs. Where an interval or a p-value would mean nothing there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from ..evaluation import LEAST_PROBLEMS, interval_over_problems

LEVEL = 0.95
SINGLE = "a single pair has no spread"
EQUAL = "all differences are equal, so their spread is unknown"
TWO = "two seeds leave one degree of freedom, with which an interval says nothing"
FEW = f"fewer than {LEAST_PROBLEMS} problems cannot differ significantly"
_FEWEST_SEEDS = 3  # of an interval: that of two values is 13 times as wide as their distance from the mean
_DIGITS = 9  # values that agree in these are equal: 2/3 − 1/3, 1/3 and 1 − 2/3 are not, bit by bit
_EXACT = 20_000  # assignments of signs that are all counted, assignments with equal sums as one
_DRAWS = 9999  # assignments that are drawn where there are more


@dataclass(frozen=True)
class Estimate:
    """A mean of `values` and its interval; `low` and `high` are None where the values do not tell it."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences a − b over `count` pairs, its interval, and the p-value of "no difference".

    `low`, `high` and the two-sided `p` are None where they would mean nothing; `missing` then says why.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    count: int
    missing: str = ""


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean and t-interval. One value, two, or several equal ones, have no interval.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    array = _finite(values)
    mean, every = float(array.mean()), tuple(array.tolist())
    if len(every) < _FEWEST_SEEDS or np.ptp(array) < 10.0**-_DIGITS:
        return Estimate(mean, None, None, every)
    half = float(stats.t.ppf((1 + level) / 2, len(every) - 1) * stats.sem(array))
    return Estimate(mean, mean - half, mean + half, every)


def paired_difference(
    a: Sequence[float] | Mapping[Any, float],
    b: Sequence[float] | Mapping[Any, float],
    *,
    by: Literal["seed", "problem"] = "seed",
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """How much larger `a` is than `b` on average, pair by pair.

    Two sequences are paired by index; two mappings by key, over the keys that both have. Pairs of seeds get the paired
    t-test and its interval. Pairs of problems, whose values lie in [0, 1], get `interval_over_problems` and the
    sign-flip test: the chance that random signs of the differences give a mean at least as far from 0. It is exact
    where the differences have few sizes, as with one sample per problem; else 9,999 assignments are drawn with `seed`.

    Raises:
        ValueError: no pair, sequences of unequal length, or a value that is not finite.
    """
    difference = _finite(_differences(a, b))
    mean, count = float(difference.mean()), len(difference)
    if by == "problem":
        found = interval_over_problems(difference, lowest=-1.0, highest=1.0, level=level)
        if found is None:
            return Difference(mean, None, None, None, count, FEW)
        return Difference(mean, *found, _sign_flips(difference, seed), count)
    estimate = mean_interval(difference.tolist(), level)
    if estimate.low is None:
        reason = SINGLE if count == 1 else EQUAL if np.ptp(difference) < 10.0**-_DIGITS else TWO
        return Difference(mean, None, None, None, count, reason)
    return Difference(mean, estimate.low, estimate.high, float(stats.ttest_1samp(difference, 0.0).pvalue), count)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p-value corrected for the number of them (Holm 1979): to reject those below a level has at most that chance
    of any false alarm. None stays None and does not count."""
    known = [index for index, p in enumerate(p_values) if p is not None]
    order = sorted(known, key=lambda index: p_values[index] or 0.0)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * (p_values[index] or 0.0)))
        corrected[index] = largest
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


def _sign_flips(values: np.ndarray, seed: int) -> float:
    """The chance that random signs give a sum at least as far from 0 as the one seen.

    Values of one size are exchangeable, so only the number of positive ones of each size matters.
    """
    sizes, counts = np.unique(np.abs(values[values.round(_DIGITS) != 0]).round(_DIGITS), return_counts=True)
    seen = abs(values.sum()) - 10.0**-_DIGITS * len(values)
    if np.prod(counts + 1.0) > _EXACT:
        rng = np.random.default_rng(seed)
        sums = sum(
            size * (2 * rng.binomial(count, 0.5, _DRAWS) - count) for size, count in zip(sizes, counts, strict=True)
        )
        return float((1 + (np.abs(sums) >= seen).sum()) / (_DRAWS + 1))
    sums, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        up = np.arange(count + 1)
        sums = np.add.outer(sums, size * (2 * up - count)).ravel()
        chances = np.outer(chances, stats.binom.pmf(up, count, 0.5)).ravel()
    return min(1.0, float(chances[np.abs(sums) >= seen].sum()))

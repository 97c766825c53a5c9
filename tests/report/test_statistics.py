"""Intervals, paired differences and Holm's correction, against other ways to compute them."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rlcsd.report.statistics import holm, mean_interval, paired_difference


def test_the_t_interval_is_that_of_the_tables():
    found = mean_interval([0.6, 0.8])
    assert found.mean == pytest.approx(0.7)
    assert found.half == pytest.approx(12.7062 * 0.1, rel=1e-4)
    assert mean_interval([1.0, 2.0, 3.0, 4.0]).half == pytest.approx(
        3.18245 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5
    )


def test_one_value_has_no_interval():
    found = mean_interval([0.5])
    assert (found.mean, found.low, found.high, found.half) == (0.5, None, None, None)
    assert paired_difference([0.5], [0.4]).p is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match=r"no value|not finite"):
        mean_interval(values)


def test_a_paired_t_test_is_scipys_own():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 1, 7), rng.normal(0, 1, 7)
    found, theirs = paired_difference(list(a), list(b)), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_few_pairs_of_problems_get_the_exact_p_value():
    a, b = [1, 1, 1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 1, 1, 0]
    seen = sum(a) - sum(b)
    sums = [
        sum(s * (x - y) for s, x, y in zip(signs, a, b, strict=True)) for signs in itertools.product((1, -1), repeat=8)
    ]
    exact = np.mean([abs(total) >= abs(seen) for total in sums])
    found = paired_difference(a, b, by="resampling")
    assert found.p == pytest.approx(exact)
    assert found.low <= found.mean <= found.high


def test_many_problems_agree_with_the_normal_law():
    rng = np.random.default_rng(3)
    a, b = (rng.random(400) < 0.55).astype(float), (rng.random(400) < 0.45).astype(float)
    found, t = paired_difference(list(a), list(b), by="resampling"), paired_difference(list(a), list(b))
    assert found.p == pytest.approx(t.p, abs=0.02)
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=0.01)
    assert found == paired_difference(list(a), list(b), by="resampling")  # the same draw again


def test_mappings_are_paired_by_key():
    found = paired_difference({"x": 1.0, "y": 0.0, "only here": 9.0}, {"y": 0.5, "x": 0.5})
    assert (found.mean, found.count) == (0.0, 2)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no value"):
        paired_difference({"x": 1.0}, {"y": 1.0})


def test_no_difference_at_all_and_one_that_never_varies():
    assert paired_difference([1, 0, 1], [1, 0, 1], by="resampling").p == 1.0
    assert paired_difference([1.5, 2.5], [1.0, 2.0]).p == 0.0


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []

"""Intervals, paired differences and Holm's correction, against other ways to compute them."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rlcsd.evaluation import interval_over_problems
from rlcsd.report.statistics import holm, mean_interval, paired_difference


def test_the_t_interval_is_that_of_the_tables():
    assert mean_interval([1.0, 2.0, 3.0, 4.0]).half == pytest.approx(
        3.18245 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5
    )


def test_two_values_are_shown_and_have_no_interval():
    """0.6 and 0.8 were 0.7 ± 1.27: a t-interval with one degree of freedom."""
    found = mean_interval([0.6, 0.8])
    assert (found.mean, found.half, found.values) == (pytest.approx(0.7), None, (0.6, 0.8))
    pair = paired_difference([0.6, 0.9], [0.5, 0.4])
    assert (pair.mean, pair.low, pair.p) == (pytest.approx(0.3), None, None)
    assert "one degree of freedom" in pair.missing


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
    found = paired_difference(a, b, by="problem")
    assert found.p == pytest.approx(exact)
    assert found.low <= found.mean <= found.high


def test_many_problems_agree_with_the_binomial_law():
    rng = np.random.default_rng(3)
    a, b = (rng.random(400) < 0.55).astype(float), (rng.random(400) < 0.45).astype(float)
    found, t = paired_difference(a, b, by="problem"), paired_difference(a, b)
    better, worse = int((a > b).sum()), int((a < b).sum())
    assert found.p == pytest.approx(stats.binomtest(better, better + worse).pvalue)
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=0.01)


def test_differences_of_many_sizes_are_drawn_and_agree_with_scipy():
    rng = np.random.default_rng(4)
    a, b = rng.random(60), rng.random(60) - 0.1
    found = paired_difference(a, b, by="problem")
    theirs = stats.permutation_test((a - b,), np.mean, permutation_type="samples", vectorized=True, batch=500, rng=1)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert found == paired_difference(a, b, by="problem")  # the same draw again
    assert found != paired_difference(a, b, by="problem", seed=1)


@pytest.mark.parametrize("differing", [1, 2, 30])
def test_equal_sizes_are_ties_whatever_their_last_digits_are(differing):
    """2/3 − 1/3, 1/3 and 1 − 2/3 are one size, so that all assignments with as many signs are as far from 0."""
    sizes = [2 / 3 - 1 / 3, 1 / 3, 1 - 2 / 3]
    a = [sizes[i % 3] for i in range(differing)] + [0.0] * 10
    b = [0.0] * len(a)
    assert paired_difference(a, b, by="problem").p == pytest.approx(2 * 0.5**differing)
    mixed = [-size if i == 0 else size for i, size in enumerate(a)]
    if differing == 2:
        assert paired_difference(mixed, b, by="problem").p == 1.0


# ------------------------------------------------------------------ experiments with a known answer


def outcomes(rng, experiments, problems, accuracy, other, samples=1):
    """Two models' shares of correct responses `[experiments, problems]`; problems are alike hard for both."""
    difficulty = rng.normal(size=(experiments, problems))

    def shares(mean):
        latent = 0.8**0.5 * difficulty + 0.2**0.5 * rng.normal(size=difficulty.shape)
        solved = np.where(latent < stats.norm.ppf(mean), 0.9, 0.1) if samples > 1 else latent < stats.norm.ppf(mean)
        return rng.binomial(samples, solved) / samples

    return shares(accuracy), shares(other)


@pytest.mark.parametrize("seeds", [3, 4, 8])
def test_no_difference_between_seeds_is_found_in_one_of_twenty_experiments(seeds):
    """500 null experiments: accuracies of 200 problems."""
    rng = np.random.default_rng(seeds)
    a, b = rng.binomial(200, 0.5, (2, 500, seeds)) / 200
    found = [paired_difference(x, y) for x, y in zip(a, b, strict=True)]
    share = np.mean([one.p is not None and one.p < 0.05 for one in found])
    assert 0.02 <= share <= 0.08
    covered = np.mean([one.low <= 0 <= one.high for one in found if one.low is not None])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize(("problems", "samples"), [(6, 1), (12, 1), (12, 4), (60, 1), (60, 4), (300, 1)])
def test_no_difference_between_problems_is_found_in_at_most_one_of_twenty_experiments(problems, samples):
    """500 null experiments. With few problems the test is exact and rarer still, because p-values come in steps."""
    rng = np.random.default_rng(problems)
    pairs = zip(*outcomes(rng, 500, problems, 0.5, 0.5, samples), strict=True)
    found = [paired_difference(a, b, by="problem") for a, b in pairs]
    share = np.mean([one.p < 0.05 for one in found])
    assert share <= 0.075
    assert problems < 60 or share >= 0.02


@pytest.mark.parametrize("problems", [6, 10, 20, 50, 200])
@pytest.mark.parametrize(("accuracy", "other"), [(0.5, 0.5), (0.6, 0.4), (0.97, 0.9), (0.1, 0.05)])
def test_the_interval_of_a_difference_covers_it(problems, accuracy, other):
    rng = np.random.default_rng(problems)
    pairs = zip(*outcomes(rng, 500, problems, accuracy, other), strict=True)
    found = [interval_over_problems(a - b, lowest=-1.0) for a, b in pairs]
    assert np.mean([low <= accuracy - other <= high for low, high in found]) >= 0.91


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_a_mean_over_seeds_covers_it(seeds):
    rng = np.random.default_rng(seeds)
    found = [mean_interval(one) for one in rng.binomial(100, 0.3, (500, seeds)) / 100]
    covered = [one.low <= 0.3 <= one.high for one in found if one.low is not None]
    assert 0.92 <= np.mean(covered) <= 0.98
    assert len(covered) > 450


# ------------------------------------------------------------------ pairs


def test_mappings_are_paired_by_key():
    found = paired_difference({"x": 1.0, "y": 0.0, "only here": 9.0}, {"y": 0.5, "x": 0.5})
    assert (found.mean, found.count) == (0.0, 2)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="no value"):
        paired_difference({"x": 1.0}, {"y": 1.0})


def test_no_p_value_and_no_interval_where_they_would_mean_nothing():
    same = paired_difference([1, 0, 1] * 2, [1, 0, 1] * 2, by="problem")
    assert (same.mean, same.p) == (0.0, 1.0) and same.low < 0 < same.high
    for a, b, by, reason in (
        ([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], "problem", "fewer than 6 problems"),
        ([1.5, 2.5], [1.0, 2.0], "seed", "all differences are equal"),
        ([0.7, 0.6, 0.5], [0.5, 0.4, 0.3], "seed", "all differences are equal"),  # but for their last digits
        ([0.7, 0.7], [0.7, 0.7], "seed", "all differences are equal"),
        ([0.7], [0.5], "seed", "single pair"),
    ):
        found = paired_difference(a, b, by=by)
        assert (found.low, found.high, found.p) == (None, None, None)
        assert reason in found.missing and found.mean == pytest.approx(np.mean(np.subtract(a, b)))
    equal = mean_interval([0.46, 0.46, 0.46])
    assert (equal.mean, equal.low, equal.half, equal.count) == (pytest.approx(0.46), None, None, 3)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []

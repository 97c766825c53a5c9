"""The group advantage."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.stages.grade import group_advantages


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12))
def test_it_is_the_standard_score_with_the_unbiased_deviation(rewards):
    got = group_advantages(rewards)
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    if len(set(rewards)) == 1:
        assert got == (0.0,) * len(rewards)
    else:
        assert got == pytest.approx([(r - mean) / (std + 1e-6) for r in rewards], abs=1e-6)
        assert group_advantages(rewards, "mean") == pytest.approx([r - mean for r in rewards])


def test_equal_rewards_give_exactly_nothing():
    assert group_advantages([0.1] * 7) == (0.0,) * 7


def test_a_group_of_one_has_mean_zero_and_deviation_one():
    assert group_advantages([1.0]) == pytest.approx((1.0,), abs=1e-5)
    assert group_advantages([0.0]) == (0.0,)

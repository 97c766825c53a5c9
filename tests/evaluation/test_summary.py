"""Estimates and their intervals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.evaluation.summary import Answered, average, bootstrap_interval, markdown_table, pass_at_k, summarise


@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([i < correct for i in range(n)], k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_more_than_n_is_refused():
    with pytest.raises(ValueError, match="pass@5 needs"):
        pass_at_k(4, 1, 5)


def test_the_bootstrap_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval((rng.random(80) < 0.4).astype(float).tolist(), draws=400, seed=trial)
        hits += low <= 0.4 <= high
    assert 0.88 <= hits / 200 <= 0.99


def answered(rewards, lengths=(5, 7), finished=(True, False)):
    passed = tuple(reward == 1 for reward in rewards)
    texts = ("\\boxed{1}", "none")
    return Answered("set", 0, "kind", "q", "a", texts, tuple(map(float, rewards)), lengths, finished, passed)


def test_a_summary_counts_what_it_names():
    summary = summarise("set", [answered((1, 0)), answered((1, 1)), answered((0, 0))])
    assert summary.mean == pytest.approx(0.5)
    assert summary.pass_at == {1: pytest.approx(0.5), 2: pytest.approx(2 / 3)}
    assert (summary.boxed, summary.truncated, summary.length, summary.problems) == (0.5, 0.5, 6.0, 3)
    assert summary.low <= summary.mean <= summary.high
    assert "0.500" in markdown_table([summary])
    assert markdown_table([summary], [summary]).count("0.500") == 2


def test_the_average_counts_sets_alike_whatever_their_size():
    good, bad = [answered((1, 1))] * 3, [answered((0, 0)), answered((1, 0))]
    found = average([good, bad])
    assert found.mean == pytest.approx((1.0 + 0.25) / 2)
    assert found.pass_at[2] == pytest.approx((1.0 + 0.5) / 2)
    assert found.problems == 5
    assert 0.5 <= found.low <= found.mean <= found.high <= 0.75


def test_the_interval_of_several_sets_is_narrower_than_that_of_one():
    rng = np.random.default_rng(1)
    sets = [(rng.random(50) < 0.5).astype(float).tolist() for _ in range(4)]
    one, four = bootstrap_interval(sets[0]), bootstrap_interval(*sets)
    assert (four[1] - four[0]) < 0.7 * (one[1] - one[0])

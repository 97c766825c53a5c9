"""Estimates and their intervals."""

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.evaluation.summary import (
    Answered,
    average,
    interval_over_problems,
    markdown_table,
    outcomes,
    pass_at_k,
    reported,
    reported_average,
    summaries_of,
    summarise,
)


@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([i < correct for i in range(n)], k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


def test_pass_at_more_than_n_is_refused():
    with pytest.raises(ValueError, match="pass@5 needs"):
        pass_at_k(4, 1, 5)


@pytest.mark.parametrize("problems", [6, 8, 12, 20, 50, 200])
@pytest.mark.parametrize("samples", [1, 4])
def test_the_interval_covers_the_accuracy_as_often_as_it_says(problems, samples):
    """500 simulated evaluations of models that solve few, half, or nearly all of the problems."""
    rng = np.random.default_rng(problems)
    for accuracy in (0.03, 0.5, 0.95):
        chances = (
            rng.beta(accuracy, 1 - accuracy, (500, problems)) if samples > 1 else np.full((500, problems), accuracy)
        )
        rates = rng.binomial(samples, chances) / samples
        found = [interval_over_problems(one) for one in rates]
        assert np.mean([low <= accuracy <= high for low, high in found]) >= 0.91


def test_the_interval_of_several_sets_covers_their_average():
    rng = np.random.default_rng(3)
    for accuracies, sizes in (((0.02, 0.5, 0.98), (30, 60, 30)), ((0.97,) * 4, (50,) * 4)):
        sets = [rng.random((500, size)) < accuracy for accuracy, size in zip(accuracies, sizes, strict=True)]
        found = [interval_over_problems(*(one[trial] for one in sets)) for trial in range(500)]
        assert np.mean([low <= np.mean(accuracies) <= high for low, high in found]) >= 0.92


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_problems_that_all_come_out_alike_leave_doubt(share):
    low, high = interval_over_problems([share] * 30)
    assert low <= share <= high and high - low > 0.05
    low, high = interval_over_problems(*[[share] * 30] * 4)
    assert low <= share <= high and high - low > 0.01


def test_a_few_problems_have_no_interval():
    assert interval_over_problems([1.0, 0.0, 1.0, 0.0, 1.0]) is None
    assert interval_over_problems([1.0, 0.0] * 10, [1.0]) is None
    summary = summarise("set", [answered((1, 0))] * 5)
    assert (summary.low, summary.high, summary.rate) == (None, None, "0.500")
    assert "[95 %]" in markdown_table([summary]) and "None" not in markdown_table([summary], [summary])


def answered(rewards, lengths=(5, 7), finished=(True, False)):
    passed = tuple(reward == 1 for reward in rewards)
    texts = ("\\boxed{1}", "none")
    return Answered("set", 0, "kind", "q", "a", texts, tuple(map(float, rewards)), lengths, finished, passed)


def test_a_summary_counts_what_it_names():
    summary = summarise("set", [answered((1, 0)), answered((1, 1)), answered((0, 0))] * 2)
    assert summary.mean == pytest.approx(0.5)
    assert summary.pass_at == {1: pytest.approx(0.5), 2: pytest.approx(2 / 3)}
    assert (summary.boxed, summary.truncated, summary.length, summary.problems) == (0.5, 0.5, 6.0, 6)
    assert summary.low <= summary.mean <= summary.high
    assert "0.500" in markdown_table([summary])
    assert markdown_table([summary], [summary]).count("0.500") == 2


def test_the_average_counts_sets_alike_whatever_their_size():
    good, bad = [answered((1, 1))] * 9, [answered((0, 0)), answered((1, 0))] * 3
    found = average([good, bad])
    assert found.mean == pytest.approx((1.0 + 0.25) / 2)
    assert found.pass_at[2] == pytest.approx((1.0 + 0.5) / 2)
    assert found.problems == 15
    assert 0.4 <= found.low <= found.mean <= found.high <= 0.8
    assert reported_average([summarise("good", good), summarise("bad", bad), found]) == found.mean


def test_the_kinds_of_a_set_count_once_in_the_reported_average():
    kinds = [summarise("set: easy", [answered((1, 1))]), summarise("set: hard", [answered((0, 0))])]
    assert reported_average([summarise("set", [answered((1, 1))] * 3 + [answered((0, 0))]), *kinds]) == 0.75
    with pytest.raises(ValueError, match="no average"):
        reported_average([])


def test_the_interval_of_several_sets_is_narrower_than_that_of_one():
    rng = np.random.default_rng(1)
    sets = [(rng.random(50) < 0.5).astype(float) for _ in range(4)]
    one, four = interval_over_problems(sets[0]), interval_over_problems(*sets)
    assert (four[1] - four[0]) < 0.7 * (one[1] - one[0])


def test_a_problem_that_is_asked_twice_counts_twice():
    one, other = answered((1, 0)), replace(answered((1, 1)), question="another")
    found = outcomes([one, other, replace(one, index=2, passed=(False, False)), replace(one, index=3)])["set"]
    assert list(found.values()) == [0.5, 1.0, 0.0, 0.5] and other.identity in found
    again = outcomes([other, one])["set"]
    assert found[one.identity] == again[one.identity]  # a key does not depend on the order of other problems


def test_summaries_are_read_back_as_they_were_written():
    summaries = [summarise("set", [answered((1, 0))] * 8), average([[answered((1, 1))] * 2, [answered((0, 0))]])]
    record = json.loads(json.dumps({"sets": [one.as_dict() for one in summaries]}))
    assert summaries_of(record) == summaries


def test_the_reported_summary_is_the_average_though_a_set_has_the_same_mean():
    sets = [SimpleNamespace(name=name, mean=0.5) for name in ("a", "b", "average")]
    assert reported(sets).name == "average" and reported(sets[:1]).name == "a"

"""Figures of unequal parts become one by their own reduction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.metrics import Distribution, Max, Mean, Sum, combined

parts = st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=9), min_size=1, max_size=4)


@given(parts)
def test_a_mean_of_parts_is_the_mean_of_everything(values):
    found = combined([{"a": Mean(float(np.mean(part)), len(part))} for part in values])
    assert found["a"] == pytest.approx(np.mean(np.concatenate(values)), abs=1e-12)


@given(parts)
def test_percentiles_of_parts_are_those_of_everything(values):
    found = combined([{"e": Distribution(torch.tensor(part, dtype=torch.float64))} for part in values])
    whole = np.concatenate(values)
    assert found["e/mean"] == pytest.approx(whole.mean(), abs=1e-12)
    assert found["e/abs_mean"] == pytest.approx(np.abs(whole).mean(), abs=1e-12)
    assert found["e/std"] == pytest.approx(whole.std(), abs=1e-9)
    for q in (5, 25, 50, 75, 95):
        assert found[f"e/p{q:02d}"] == pytest.approx(np.percentile(whole, q), abs=1e-9)


def test_sums_add_up_maxima_stay_and_plain_numbers_are_averaged():
    assert combined([{"n": Sum(2), "m": Max(1.0), "x": 1.0}, {"n": Sum(3), "m": Max(4.0), "x": 2.0}]) == {
        "m": 4.0,
        "n": 5.0,
        "x": 1.5,
    }


def test_what_was_never_measured_is_not_logged():
    assert combined([{"a": Mean(0.0, 0), "e": Distribution(torch.zeros(0))}, {}]) == {}
    assert combined([{"a": Mean(0.0, 0)}, {"a": Mean(2.0, 5)}]) == {"a": 2.0}

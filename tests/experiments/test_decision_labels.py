"""The signal on right and wrong decisions."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.experiments.decision_labels import auc, decision_kinds
from rlcsd.experiments.roll_call import Supply, draw_problems

values = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(values, values)
def test_the_auc_counts_pairs(positive, negative):
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)
    found = auc(np.array(positive, dtype=float), np.array(negative, dtype=float))
    assert math.isclose(found, won / len(positive) / len(negative))


def test_without_one_of_the_two_there_is_no_auc():
    assert math.isnan(auc(np.zeros(0), np.ones(3)))


def test_kinds_name_the_labels_of_a_response():
    problem = draw_problems([2], 1, "val", Supply())[0]
    assert problem.solution is not None
    text = problem.solution
    offsets = [(i, i + 1) for i in range(len(text))]
    kinds = decision_kinds(problem, text, offsets)
    assert kinds.count("right") == 4  # two verdicts, two claims in the box
    assert kinds.count("wrong") == 0
    turned = text.replace(": true.", ": ?.").replace(": false.", ": true.").replace(": ?.", ": false.")
    assert decision_kinds(problem, turned, [(i, i + 1) for i in range(len(turned))]).count("wrong") >= 2

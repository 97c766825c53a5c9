"""Smoothing and colours of figures."""

import numpy as np
import pytest

from rlcsd.report.figures import colours, smoothed


def test_moving_means_keep_a_line_straight_and_take_noise_away():
    line = [0.5 * i for i in range(40)]
    assert smoothed(line).tolist() == pytest.approx(line)
    noise = np.random.default_rng(0).normal(size=200)
    assert smoothed(noise).std() < 0.4 * noise.std()
    assert smoothed([3.0]).tolist() == [3.0] and smoothed([]).tolist() == []


def test_a_method_keeps_its_colour_and_no_two_share_one():
    labels = ["rlcsd", "mine", "grpo", "rlcsd tau1"]
    chosen = colours(labels)
    assert len(set(chosen.values())) == 4
    assert chosen["grpo"] == colours(["grpo"])["grpo"]

"""Smoothing and colours of figures."""

import numpy as np
import pytest

from rlcsd.errors import InputError
from rlcsd.report.figures import colours, draw_signals, smoothed


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
    swept = colours(["method=rlcsd", "method=grpo"], {"method=rlcsd": "rlcsd", "method=grpo": "grpo"})
    assert [*swept.values()] == [chosen["rlcsd"], chosen["grpo"]]


def test_a_figure_of_signals_has_every_kind_of_token_or_says_that_there_is_none():
    signals = {"teacher_gap": 0.5, "contrast": 1.0}
    figure = draw_signals(
        {"correct": {"conclusion": signals}, "wrong": {"conclusion": signals, "premise": signals}}, None
    )
    shown = {label.get_text() for axis in figure.axes for label in axis.get_xticklabels()}
    assert any("premise" in label for label in shown), shown
    with pytest.raises(InputError, match="no token is of a kind"):
        draw_signals({}, None)

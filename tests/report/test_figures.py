"""Smoothing, colours, and the report of one run."""

import numpy as np
import pytest

from rlcsd.report.figures import colours, smoothed
from rlcsd.report.run_report import write_report

from .folders import write_config
from .test_comparison import write_run


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


@pytest.mark.parametrize("evaluations", [0, 1, 2])
def test_the_report_of_a_run(tmp_path, evaluations):
    run = write_run(tmp_path / "run", sets=("seen", "unseen: 4 people", "unseen: 5 people", "unseen"))
    kept = (run / "evaluations.jsonl").read_text().splitlines()[:evaluations]
    (run / "evaluations.jsonl").write_text("".join(line + "\n" for line in kept))
    write_config(run, learning_rate=1e-4, group_size=8, kl_coefficient=0.0, task={"name": "a_task"})
    assert "![training dynamics](report.png)" in write_report(run).read_text()
    assert (run / "report.png").stat().st_size > 0
    drawing = (run / "report.svg").read_text()
    assert "Training reward" in drawing and "rlcsd on a_task, tiny, seed 0" in drawing
    assert ("step 8" in drawing) == (evaluations == 2) and ("not evaluated yet" in drawing) == (evaluations == 0)

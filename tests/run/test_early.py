"""Stopping early: when, what is kept, and that a stopped run can be resumed."""

from __future__ import annotations

from dataclasses import replace

import pytest

import rlcsd
from rlcsd.config.schema import EvaluationConfig
from rlcsd.evaluation import Summary
from rlcsd.run import Run
from rlcsd.run.checkpoint import best_step, checkpoints, no_longer_better
from rlcsd.storage import read_jsonl

SET = Summary("s", 4, 1, 0.5, 0.4, 0.6, {1: 0.5}, 1.0, 0.0, 9.0)


def evaluations(*means: float):
    return [(2 * number, [replace(SET, mean=mean)]) for number, mean in enumerate(means)]


@pytest.mark.parametrize(
    ("means", "patience", "min_gain", "stops"),
    [
        ((0.5, 0.5, 0.5), 2, 0.0, True),
        ((0.5, 0.5, 0.6), 2, 0.0, False),
        ((0.5, 0.6, 0.55, 0.6), 2, 0.0, True),
        ((0.5, 0.52, 0.54), 2, 0.05, True),
        ((0.5, 0.4), 2, 0.0, False),
        ((0.5, 0.1, 0.1, 0.1), 0, 0.0, False),
    ],
)
def test_when_a_run_no_longer_gets_better(means, patience, min_gain, stops):
    config = EvaluationConfig(patience=patience, min_gain=min_gain)
    assert no_longer_better(evaluations(*means), config) == stops


def test_the_best_step_is_the_first_of_equals_and_was_trained():
    assert best_step(evaluations(0.9, 0.5, 0.6, 0.6)) == 4
    assert best_step(evaluations(0.9, 0.5, 0.6, 0.7), saved=[2, 4]) == 4
    assert best_step([]) is None


def test_best_is_the_reported_average_whatever_kinds_the_sets_have():
    """One set has two kinds: a mean over all summaries would count it three times, and find step 20 better."""
    names = ("small", "large", "large: a", "large: b", "average")
    means = {10: (0.9, 0.2, 0.2, 0.2, 0.55), 20: (0.5, 0.4, 0.4, 0.4, 0.45)}
    found = [
        (step, [replace(SET, name=name, mean=mean) for name, mean in zip(names, values, strict=True)])
        for step, values in means.items()
    ]
    assert best_step(found) == 10
    assert no_longer_better(found, EvaluationConfig(patience=1))


def test_patience_needs_evaluations():
    with pytest.raises(rlcsd.InputError, match=r"set evaluation\.every"):
        rlcsd.load_config(["evaluation.patience=2", "evaluation.every=0"])


def test_a_stopped_run_is_whole_and_goes_further_when_it_may(tiny_config):
    settings = ("steps=6", "evaluation.every=1", "evaluation.patience=2", "evaluation.min_gain=1.0", "save_every=0")
    told = []
    run = Run(tiny_config(*settings), watch=lambda event, facts: told.append(facts.get("message", "")))
    result = run.execute()
    (stopped,) = [message for message in told if "stopped early after step 2 of 6" in message]
    best = max((1, 2), key=lambda step: (sum(one.mean for one in dict(run.evaluations)[step][-1:]), -step))
    kept = "whose checkpoint is kept" if best == 2 else "which was not saved; the best of the saved steps, 2, is kept"
    assert stopped.endswith(f"the best was step {best}, {kept}")
    assert [path.name for path in checkpoints(run.folder / "checkpoints")] == ["step_000002"]
    assert (run.folder / "report.md").is_file()
    assert result["after"]
    again = rlcsd.train([], resume=run.folder, progress=False)
    assert again["after"] == result["after"]
    rlcsd.train(["evaluation.patience=0", "steps=3"], resume=run.folder, progress=False)
    assert [r["step"] for r in read_jsonl(run.folder / "evaluations.jsonl")] == [0, 1, 2, 3]

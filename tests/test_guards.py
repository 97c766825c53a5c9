"""Divergence: what is noticed, what is skipped, what stops the run, and that no diverged weights are saved."""

from __future__ import annotations

import math

import pytest

import rlcsd
from rlcsd.config.schema import GuardConfig
from rlcsd.guards import Guards
from rlcsd.run import Run
from rlcsd.run.checkpoint import checkpoints

FINE = {"rollout/reward": 0.5, "rollout/length": 50.0, "actor/entropy": 0.3}


def guards(**values) -> Guards:
    return Guards(GuardConfig.model_validate(values))


@pytest.mark.parametrize(
    ("settings", "figures", "phrase"),
    [
        ({}, {"actor/entropy": math.nan}, "actor/entropy is not finite"),
        ({"entropy": [0.1, 2.0]}, {"actor/entropy": 2.5}, "outside guard.entropy=[0.1, 2]"),
        ({"entropy": [0.1, 2.0]}, {"actor/entropy": 0.05}, "outside guard.entropy"),
        ({"length": [10, 100]}, {"rollout/length": 101}, "outside guard.length"),
        ({"no_reward_steps": 1}, {"rollout/reward": 0.0}, "no rollout has had a reward for 1 steps"),
    ],
)
def test_what_is_noticed_before_the_update(settings, figures, phrase):
    assert guards(**settings).before_update(FINE) == []
    (found,) = guards(**settings).before_update({**FINE, **figures})
    assert phrase in found


def test_reward_anywhere_in_between_starts_the_count_again():
    watch = guards(no_reward_steps=2)
    rewards = [0.0, 0.1, 0.0, 0.0]
    assert [bool(watch.before_update({**FINE, "rollout/reward": reward})) for reward in rewards] == [0, 0, 0, 1]


def test_skip_is_patient_and_stop_is_not():
    watch = guards(patience=3)
    for wrong in (["x"], ["x"], [], ["x"], ["x"]):
        watch.decide(wrong)
    with pytest.raises(rlcsd.InputError, match="3 steps in a row"):
        watch.decide(["x"])
    with pytest.raises(rlcsd.InputError, match="the run has diverged"):
        guards(policy="stop").decide(["x"])


@pytest.mark.parametrize("rate", ["1e6", "1e30", "10"])
def test_a_learning_rate_that_destroys_the_weights_stops_the_run_and_saves_nothing_of_it(rate, tiny_config, tmp_path):
    overrides = (f"learning_rate={rate}", "warmup_steps=0", "save_every=1", "run_name=run", "steps=4", "method=grpo")
    with pytest.raises(rlcsd.InputError, match="times as large as at the start"):
        Run(tiny_config(*overrides)).execute()
    assert checkpoints(tmp_path / "run/checkpoints") == []


def test_a_gradient_that_is_never_finite_stops_the_run(tiny_config, monkeypatch):
    from rlcsd.engine.local import engine

    monkeypatch.setattr(engine.torch.nn.utils, "clip_grad_norm_", lambda *_: engine.torch.tensor(math.nan))
    warnings = []

    def watch(event, facts):
        if event == "warning" and "not finite" in facts["message"]:  # a busy machine is warned of too
            warnings.append(facts["message"])

    with pytest.raises(rlcsd.InputError, match="not finite"):
        Run(tiny_config("method=grpo", "steps=9", "learning_rate=1e-4"), watch=watch).execute()
    assert len([message for message in warnings if "not finite" in message]) == 2


def test_a_skipped_step_leaves_the_weights_as_they_are(tiny_config, tmp_path):
    overrides = ("guard.length=[1000,2000]", "guard.patience=5", "learning_rate=1e-2", "warmup_steps=0", "run_name=run")
    run = Run(tiny_config(*overrides))
    before = [parameter.clone() for parameter in run.engine.policy.trainable()]
    run.execute()
    assert all((a == b).all() for a, b in zip(before, run.engine.policy.trainable(), strict=True))
    from rlcsd.folders import read_jsonl

    steps = [r for r in read_jsonl(tmp_path / "run/metrics.jsonl") if "time/step" in r]
    assert [record["guard/skipped"] for record in steps] == [1, 1]

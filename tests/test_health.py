"""Divergence: what is noticed, what is skipped, what stops the run, and that no diverged weights are saved."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

import rlcsd
from rlcsd.config.load import load
from rlcsd.config.schema import GuardConfig
from rlcsd.health import Guards, Health, StallCounter
from rlcsd.methods import METHODS
from rlcsd.records import Group, Problem, Rollout, Sample, Verdict
from rlcsd.run import Run
from rlcsd.run.checkpoint import checkpoints
from rlcsd.run.folder import resumed_config
from rlcsd.tasks.task import Task

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


@pytest.mark.parametrize("rate", ["10", pytest.param("1e6", marks=pytest.mark.slow), "1e30"])
def test_a_learning_rate_that_destroys_the_weights_stops_the_run_and_saves_nothing_of_it(rate, tiny_config, tmp_path):
    overrides = (f"learning_rate={rate}", "warmup_steps=0", "save_every=1", "run_name=run", "steps=4", "method=grpo")
    with pytest.raises(rlcsd.InputError, match="times as large as at the start"):
        Run(tiny_config(*overrides)).execute()
    assert checkpoints(tmp_path / "run/checkpoints") == []


def test_a_gradient_that_is_never_finite_stops_the_run(tiny_config, monkeypatch):
    from rlcsd.engine.local import local_engine

    monkeypatch.setattr(local_engine.torch.nn.utils, "clip_grad_norm_", lambda *_: local_engine.torch.tensor(math.nan))
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
    from rlcsd.storage import read_jsonl

    steps = [r for r in read_jsonl(tmp_path / "run/metrics.jsonl") if "time/step" in r]
    assert [record["guard/skipped"] for record in steps] == [1, 1]


# ------------------------------------------------------------------ steps without an update


SAMPLE = Sample((1, 2), torch.zeros(2), torch.zeros(2), True, 0.1)


def group(*rewards: float, advantages: tuple[float, ...] | None = None) -> Group:
    rollouts = tuple(Rollout(SAMPLE, "text", Verdict(reward >= 1, reward), "4") for reward in rewards)
    return Group(Problem("?", "4"), (1,), rollouts, advantages or tuple(0.0 for _ in rewards))


GOOD = {"update/count": 4.0, "rollout/truncated": 0.0, "rollout/answered": 1.0, "hints/usable_share": 1.0}
MIXED = group(0, 1, advantages=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("groups", "metrics", "reason", "advice"),
    [
        ([group(0, 0)] * 3, {"update/empty": 4.0}, "all wrong in 3 of 3", "easier problems"),
        ([group(0, 0)], {"update/empty": 4.0, "rollout/truncated": 0.9}, "all wrong", "raise sampling.max_tokens: 90%"),
        ([group(0, 0)], {"update/empty": 4.0, "rollout/answered": 0.1}, "all wrong", "in 10% an answer can be read"),
        ([group(1, 1)] * 2, {"update/empty": 4.0}, "all right in 2 of 2", "harder problems"),
        ([MIXED], {"update/count": 0.0, "hints/usable_share": 0.0, "hints/without_wrong": 2.0},
         "2 rollouts lack a wrong hint", "raise group_size"),
        ([MIXED], {"update/count": 0.0, "hints/usable_share": 0.0, "hints/without_feedback": 2.0},
         "gave no feedback on 2 rollouts", "feedback=…"),
        ([MIXED], {"update/count": 0.0, "hints/no_room": 2.0}, "no room for a hint", "max_teacher_tokens"),
        ([MIXED], {"update/count": 0.0, "hints/usable_share": 0.0, "hints/no_room": 2.0, "hints/without_wrong": 1.0},
         "2 rollouts leave no room for a hint", "max_teacher_tokens"),
        ([MIXED], {"update/skipped": 4.0}, "no gradient was finite", "lower learning_rate"),
        ([MIXED], {"update/count": 0.0, "guard/skipped": 1.0}, "look wrong (guard)", "guard"),
    ],
)  # fmt: skip
def test_the_reason_and_after_three_steps_the_advice(groups, metrics, reason, advice):
    stall, method = StallCounter(), METHODS["rlcsd"].from_fields()
    first, second, third = (stall.after_step(groups, {**GOOD, **metrics}, method) for _ in range(3))
    assert reason in first
    assert first == second
    assert third.startswith(first)
    assert re.search(rf"step 3 in a row without one: .*{re.escape(advice)}", third)


def test_rollouts_that_were_all_rejected_are_the_reason():
    rejected = {**GOOD, "update/count": 0.0, "correction/rejected": 1.0}
    told = StallCounter().after_step([MIXED], rejected, METHODS["grpo"].from_fields())
    assert "outside the band of rollout_rejection" in told


@pytest.mark.parametrize("name", ["sdpo", "opsd_ectr", "rlcsd", "srpo"])
def test_the_advice_about_hints_is_one_that_the_method_takes(name):
    method, stall = METHODS[name].from_fields(), StallCounter()
    lacking = {**GOOD, "update/count": 0.0, "hints/usable_share": 0.0, "hints/without_correct": 2.0}
    told = [stall.after_step([MIXED], lacking, method) for _ in range(3)][2]
    assert ("method.unusable=plain" in told) == (name in ("rlcsd", "srpo"))
    assert ("of both kinds" in told) == (name in ("opsd_ectr", "rlcsd"))


def unanswered(*finished: bool) -> Group:
    """A right rollout, and wrong ones in which no answer can be read."""
    wrong = [Rollout(replace(SAMPLE, finished=one), "It is 5.", Verdict(False, 0.0), None) for one in finished]
    rollouts = (Rollout(SAMPLE, "It is 4.", Verdict(True, 1.0), None), *wrong)
    return Group(Problem("?", "4"), (1,), rollouts, (1.0, *[-1.0] * len(wrong)))


LACKING = {**GOOD, "update/count": 0.0, "hints/usable_share": 0.0, "hints/without_wrong": 2.0}


def test_a_step_from_whose_responses_no_hint_can_come_is_named_once_and_the_advice_is_how_to_read_them():
    health, method = Health(load().guard), METHODS["rlcsd"].from_fields()
    first = health.hints([unanswered(True, True)], LACKING, method)
    assert len(first) == 1 and "no answer can be read in any of the 2 wrong responses" in first[0]
    assert "Task(answer_of=…)" in first[0]
    assert health.hints([unanswered(True, True)], LACKING, method) == []
    told = [health.stall.after_step([unanswered(True)], LACKING, method) for _ in range(3)]
    assert "answer_of" in told[2] and "group_size" not in told[2]
    by_text = Health(load().guard).hints([unanswered(False)], LACKING, method, by_text=True)
    assert "each of the 1 wrong responses is empty or was cut off" in by_text[0]
    assert Health(load().guard).hints([unanswered(False, True)], LACKING, method, by_text=True) == []


def test_what_is_said_once_is_not_said_again_after_a_resume_and_not_twice_in_a_step():
    health, method = Health(load().guard), METHODS["rlcsd"].from_fields(unusable="plain")
    first = health.hints([unanswered(True, True)], LACKING, method)
    assert len(first) == 1 and "no answer can be read" in first[0] and "method.unusable=plain" in first[0]
    resumed = Health(load().guard)
    resumed.load_state(health.state())
    assert resumed.hints([unanswered(True, True)], LACKING, METHODS["rlcsd"].from_fields()) == []


def test_responses_that_were_cut_off_need_more_tokens_and_no_other_way_to_read_answers():
    told = Health(load().guard).hints([unanswered(False, False, True)], LACKING, METHODS["rlcsd"].from_fields())
    assert "2 of them were cut off: raise sampling.max_tokens" in told[0]


def test_numbers_that_never_reach_what_is_correct_are_named():
    stall, method = StallCounter(), METHODS["rlcsd"].from_fields()
    halves = [group(0, 0.5, advantages=(-1.0, 1.0))]
    lacking = {**GOOD, "update/count": 0.0, "hints/usable_share": 0.0, "hints/without_correct": 2.0}
    told = [stall.after_step(halves, lacking, method) for _ in range(3)]
    assert "the best reward is 0.5" in told[0] and "task.success" in told[2]


def test_steps_that_only_regularisers_have_made_are_named():
    health, method = Health(load().guard), METHODS["grpo"].from_fields()
    told = [health.advantages([group(0, 0)] * 2, GOOD, method) for _ in range(4)]
    assert [len(each) for each in told] == [1, 0, 1, 0]
    assert "all wrong in 2 of 2" in told[0][0] and "kl_coefficient" in told[0][0] and "3 steps in a row" in told[2][0]
    assert (
        health.advantages([MIXED], GOOD, method)
        == health.advantages([group(0, 0)], {**GOOD, "update/empty": 4.0}, method)
        == []
    )
    assert health.advantages([group(0, 0)], GOOD, METHODS["opsd"].from_fields()) == []


def test_steps_of_plain_grpo_under_another_name_are_named():
    health, method = Health(load().guard), METHODS["rlcsd"].from_fields(unusable="plain")
    plain = {**LACKING, "update/count": 4.0}
    told = [health.hints([MIXED], plain, method) for _ in range(4)]
    assert [len(each) for each in told] == [1, 0, 1, 0]
    assert "the update was that of plain advantages, as in grpo" in told[0][0] and "raise group_size" in told[0][0]
    assert "the update in 3 steps in a row was" in told[2][0]
    assert health.hints([MIXED], {**plain, "hints/usable_share": 0.5}, method) == []
    resumed = Health(load().guard)
    resumed.load_state({"steps_without_hints": 2})
    assert len(resumed.hints([MIXED], plain, method)) == 1


def test_an_update_ends_the_count():
    stall, method = StallCounter(), METHODS["grpo"].from_fields()
    nothing = {**GOOD, "update/empty": 4.0}
    for _ in range(2):
        assert "in a row" not in stall.after_step([group(1, 1)], nothing, method)
    assert stall.after_step([MIXED], {**GOOD, "update/empty": 3.0}, method) is None
    assert "in a row" not in stall.after_step([group(1, 1)], nothing, method)


@pytest.mark.parametrize("method", ["grpo", "rlcsd"])
def test_a_task_that_nobody_solves_is_named_at_each_step(method, tiny_config):
    problems = [Problem(f"Is {n} even?", "yes") for n in range(4)]
    task = Task("hopeless", problems, {"again": problems}, lambda response, answer: False)
    told = []
    run = Run(
        tiny_config(f"method={method}", "steps=3", "sampling.max_tokens=8", "kl_coefficient=0"),
        task,
        watch=lambda event, facts: told.append(facts["no_update"]) if event == "step" else None,
    )
    run.execute()
    assert len(told) == 3
    assert all("all wrong in 4 of 4" in reason for reason in told)
    assert ["in a row" in reason for reason in told] == [False, False, True]


def test_a_resumed_run_goes_on_counting(tiny_config, tmp_path):
    """Two steps without a reward before the interruption and one after it are three in a row."""
    problems = [Problem(f"Is {n} even?", "yes") for n in range(4)]
    task = Task("hopeless", problems, {"again": problems}, lambda response, answer: False)
    overrides = ("method=grpo", "sampling.max_tokens=8", "kl_coefficient=0", "save_every=1", "run_name=run", "steps=4",
                 "guard.no_reward_steps=3", "guard.policy=stop")  # fmt: skip

    def interrupt(event, facts):
        if event == "step" and facts["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(tiny_config(*overrides), task, watch=interrupt).execute()
    assert [checkpoint.name for checkpoint in checkpoints(tmp_path / "run/checkpoints")]
    resumed = []
    with pytest.raises(rlcsd.InputError, match="no rollout has had a reward for 3 steps"):
        Run(
            resumed_config(tmp_path / "run"),
            task,
            folder=tmp_path / "run",
            watch=lambda event, facts: resumed.append(facts["step"]) if event == "step" else None,
        ).execute(resume=True)
    assert resumed == [2]  # done again from the checkpoint of step 1; the third step stops the run


def test_a_run_all_of_whose_responses_are_cut_says_so_once(tiny_config):
    warnings = []

    def watch(event, facts):
        if event == "warning" and "cut off" in facts["message"]:
            warnings.append(facts["message"])

    Run(tiny_config("method=grpo", "steps=2", "sampling.max_tokens=2"), watch=watch).execute()
    (message,) = warnings
    assert "sampling.max_tokens=2" in message
    assert "<|im_end|>" in message

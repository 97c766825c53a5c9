"""A step without an update says why, and after three what to change."""

from __future__ import annotations

import re

import pytest
import torch

from rlcsd.methods import METHODS
from rlcsd.records import Group, Problem, Rollout, Sample, Verdict
from rlcsd.run import Run
from rlcsd.stall import Stall
from rlcsd.tasks.base import Task


def group(*rewards: float, advantages: tuple[float, ...] | None = None) -> Group:
    sample = Sample((1, 2), torch.zeros(2), torch.zeros(2), True, 0.1)
    rollouts = tuple(Rollout(sample, "text", Verdict(reward >= 1, reward), "4") for reward in rewards)
    return Group(Problem("?", "4"), (1,), rollouts, advantages or tuple(0.0 for _ in rewards))


GOOD = {"update/count": 4.0, "rollout/truncated": 0.0, "rollout/boxed": 1.0, "hints/usable_share": 1.0}
MIXED = group(0, 1, advantages=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("groups", "metrics", "reason", "advice"),
    [
        ([group(0, 0)] * 3, {"update/empty": 4.0}, "all wrong in 3 of 3", "easier problems"),
        ([group(0, 0)], {"update/empty": 4.0, "rollout/truncated": 0.9}, "all wrong", "raise sampling.max_tokens: 90%"),
        ([group(0, 0)], {"update/empty": 4.0, "rollout/boxed": 0.1}, "all wrong", "10% hold a boxed answer"),
        ([group(1, 1)] * 2, {"update/empty": 4.0}, "all right in 2 of 2", "harder problems"),
        ([MIXED], {"update/count": 0.0, "hints/usable_share": 0.0, "hints/without_wrong": 2.0},
         "2 rollouts lack a wrong hint", "raise group_size"),
        ([MIXED], {"update/count": 0.0, "hints/usable_share": 0.0, "hints/without_feedback": 2.0},
         "gave no feedback on 2 rollouts", "feedback=…"),
        ([MIXED], {"update/count": 0.0, "hints/no_room": 2.0}, "no room for a hint", "max_teacher_tokens"),
        ([MIXED], {"update/skipped": 4.0}, "no gradient was finite", "lower learning_rate"),
        ([MIXED], {"update/count": 0.0, "guard/skipped": 1.0}, "look wrong (guard)", "guard"),
    ],
)  # fmt: skip
def test_the_reason_and_after_three_steps_the_advice(groups, metrics, reason, advice):
    stall, method = Stall(), METHODS["rlcsd"].from_fields()
    first, second, third = (stall.after_step(groups, {**GOOD, **metrics}, method) for _ in range(3))
    assert reason in first
    assert first == second
    assert third.startswith(first)
    assert re.search(rf"step 3 in a row without one: .*{re.escape(advice)}", third)


def test_an_update_ends_the_count():
    stall, method = Stall(), METHODS["grpo"].from_fields()
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

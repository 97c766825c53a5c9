"""The group advantage, and the length penalty on the reward."""

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.config.schema import ModelConfig, OverlongConfig
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.records import Problem, Sample
from rlcsd.stages.grade import Overlong, grade, group_advantages, rollout_metrics
from rlcsd.stages.refill import refilled
from rlcsd.tasks.task import Task


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12))
def test_it_is_the_standard_score_with_the_unbiased_deviation(rewards):
    got = group_advantages(rewards)
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    if len(set(rewards)) == 1:
        assert got == (0.0,) * len(rewards)
    else:
        assert got == pytest.approx([(r - mean) / (std + 1e-6) for r in rewards], abs=1e-6)
        assert group_advantages(rewards, "mean") == pytest.approx([r - mean for r in rewards])


def test_equal_rewards_give_exactly_nothing():
    assert group_advantages([0.1] * 7) == (0.0,) * 7


def test_a_group_of_one_has_mean_zero_and_deviation_one():
    assert group_advantages([1.0]) == pytest.approx((1.0,), abs=1e-5)
    assert group_advantages([0.0]) == (0.0,)


def test_each_estimator_on_one_group_of_four():
    """Rewards 1, 0, 0, 1/2: mean 3/8, sum of squared deviations 11/16, so s = √(11/48); the others' means 1/6, 1/2, 1/2,
    1/3."""
    rewards = [1.0, 0.0, 0.0, 0.5]
    s = (11 / 48) ** 0.5
    assert group_advantages(rewards) == pytest.approx([0.625 / s, -0.375 / s, -0.375 / s, 0.125 / s], rel=1e-5)
    assert group_advantages(rewards, "mean") == pytest.approx([0.625, -0.375, -0.375, 0.125])
    assert group_advantages(rewards, "leave_one_out") == pytest.approx([5 / 6, -1 / 2, -1 / 2, 1 / 6])
    assert group_advantages([0.7], "leave_one_out") == group_advantages([0.7], "mean") == (0.7,)


def test_the_penalty_falls_linearly_over_the_buffer():
    """The paper's numbers: L = 20,480, C = 4,096."""
    paper = Overlong(20480, 4096)
    lengths = (1, 16384, 17408, 18432, 20479, 20480)
    assert [paper.reward(n) for n in lengths] == [0.0, 0.0, -0.25, -0.5, -4095 / 4096, -1.0]
    assert Overlong(100, 20, 0.5).reward(90) == -0.25


def graded(lengths: list[int], correct: list[bool], **options):
    """One group of responses of these lengths."""
    tokenizer = load_tokenizer(ModelConfig())
    right, wrong = (tokenizer(text, add_special_tokens=False).input_ids[0] for text in ("A", "B"))
    samples = [
        Sample(((right if good else wrong),) * n, None, torch.zeros(0), True)
        for n, good in zip(lengths, correct, strict=True)
    ]
    verifier = lambda response, answer: answer in response  # noqa: E731
    task = Task("fixed", [Problem("Q?", "A")], {}, verifier, verifier_seconds=None)
    return grade(tokenizer, task, task.train, [[1]], [samples], **options)[0]


def test_a_box_in_a_thought_that_the_prompt_opens_is_no_answer():
    tokenizer = load_tokenizer(ModelConfig())
    opened, *texts = (
        tokenizer(text, add_special_tokens=False).input_ids
        for text in ("Q?\n<think>\n", r"say \boxed{A}, no", r"hm</think> \boxed{A}")
    )
    samples = [Sample(tuple(ids), None, torch.zeros(0), True) for ids in texts]
    task = Task("fixed", [Problem("Q?", "A")], {}, "exact")
    group = grade(tokenizer, task, task.train, [opened], [samples])[0]
    assert [(rollout.is_correct, rollout.answer) for rollout in group.rollouts] == [(False, None), (True, "A")]


def test_the_penalty_is_in_the_reward_and_not_in_the_verdict():
    lengths, correct = [10, 18, 20, 20], [True, True, True, True]
    group = graded(lengths, correct, estimator="mean", overlong=Overlong(20, 4))
    assert [rollout.reward for rollout in group.rollouts] == [1.0, 0.5, 0.0, 0.0]
    assert all(rollout.is_correct for rollout in group.rollouts)
    assert group.advantages == pytest.approx((0.625, 0.125, -0.375, -0.375))
    metrics = rollout_metrics([group])
    assert metrics["rollout/accuracy"].value == 1.0 and metrics["rollout/reward"].value == 0.375
    assert metrics["reward/overlong"].value == -0.625
    without = graded(lengths, correct)
    assert without.advantages == (0.0,) * 4 and "reward/overlong" not in rollout_metrics([without])
    first, second, *others = group.rollouts
    again = replace(group, rollouts=(replace(first, verdict=replace(first.verdict, attempts=3)), second, *others))
    assert rollout_metrics([again])["verifier/retries"].value == 1  # responses, not attempts
    # A refill judges accuracy: the group is replaced, although its shaped rewards differ.
    mixed = graded([5, 5], [True, False])
    assert refilled([group], lambda batch, count: [mixed], 1).groups == [mixed]


@pytest.mark.parametrize(
    ("buffer", "limit", "tokens"), [(0.2, 20480, 4096), (0.2, 256, 51), (0.001, 256, 1), (30, 256, 30), (0, 256, 0)]
)
def test_the_buffer_is_in_tokens_or_a_share_of_the_longest_response(buffer, limit, tokens):
    assert OverlongConfig(buffer=buffer).buffer_tokens(limit) == tokens

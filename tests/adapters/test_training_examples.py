"""Rollouts of another project's trainer: those without a reward say nothing of their group."""

from __future__ import annotations

import math
import random

import pytest
import torch

from rlcsd.adapters.training_examples import (
    BatchHealth,
    RewardedResponse,
    build_examples,
    build_groups,
    nothing_usable,
    problem_of,
    stays_in_update,
    total_rewards,
)
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.methods.rlcsd import RLCSD
from rlcsd.records import Problem
from rlcsd.stages.hint import TeacherPrompts


@pytest.mark.parametrize("seed", range(5))
def test_a_response_without_a_reward_is_no_hint_and_stays_out(seed):
    problem, method = Problem("Who?", "B"), RLCSD.from_fields()
    prompts = TeacherPrompts(load_tokenizer(ModelConfig()), 512, instruction="")
    texts = [r"\boxed{B}", r"\boxed{B} too", r"\boxed{A}", r"\boxed{C} and nobody says of what worth"]
    responses = [
        RewardedResponse(problem, text, (5, 6), reward)
        for text, reward in zip(texts, (1.0, 1.0, 0.0, math.nan), strict=True)
    ]
    rows, _ = build_examples(build_groups(responses, 4, method), method, prompts, random.Random(seed))
    assert [stays_in_update(row, method) for row in rows] == [True, True, False, False]  # 2 has no wrong sibling
    shown = [hint.text for row in rows[:2] for hint in (row.hints.correct, *row.hints.wrong)]
    assert texts[2] in shown and texts[3] not in shown
    mean = 2 / 3
    deviation = math.sqrt((2 * (1 - mean) ** 2 + mean**2) / 2) + 1e-6
    expected = [(1 - mean) / deviation] * 2 + [-mean / deviation, 0.0]
    assert [row.advantage for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize(("answer", "text"), [(None, ""), (3.0, "3"), ("B", "B")])
def test_an_answer_is_read_as_in_a_task(answer, text):
    row = {"prompt": [{"role": "user", "content": "Who?"}], "answer": answer}
    assert problem_of(row, "answer", "solution") == Problem("Who?", text)


def test_a_single_judged_response_of_a_group_has_nothing_to_be_compared_with():
    responses = [RewardedResponse(Problem("Who?", "B"), "B", (5,), reward) for reward in (1.0, math.nan)]
    prompts = TeacherPrompts(load_tokenizer(ModelConfig()), 512, instruction="")
    method = RLCSD.from_fields()
    rows, _ = build_examples(build_groups(responses, 2, method), method, prompts, random.Random(0))
    assert [row.advantage for row in rows] == [0.0, 0.0]


def test_rewards_are_weighted_and_what_no_function_judges_is_not_zero():
    rewards = torch.tensor([[1.0, 0.5], [math.nan, 0.5], [math.nan, math.nan]])
    found = total_rewards(rewards, torch.tensor([1.0, 0.1]))
    assert found[:2] == pytest.approx([1.05, 0.05]) and math.isnan(found[2])


@pytest.mark.parametrize("success", [0.7, 0.9, 1.0, 3.3, 70.7, 1000.1])
def test_rewards_in_float32_are_correct_where_they_were_meant_to_be(success):
    """0.9 in float32 is less than 0.9, which once made correct responses wrong ones, and wrong hints."""
    rewards = torch.tensor([[success, 0.0], [0.7 * success, 0.3 * success], [success, -0.1 * success]])
    method, prompts = RLCSD.from_fields(), TeacherPrompts(load_tokenizer(ModelConfig()), 512, instruction="")
    totals = total_rewards(rewards, torch.ones(2))
    assert rewards.dtype == torch.float32
    problem = Problem("Who?", "B")
    responses = [RewardedResponse(problem, rf"\boxed{{{i}}}", (5, 6), total) for i, total in enumerate(totals)]
    rows, _ = build_examples(build_groups(responses, 3, method, success), method, prompts, random.Random(0))
    assert [row.rollout.is_correct for row in rows] == [True, True, False]


def test_a_batch_without_a_usable_hint_says_what_the_rewards_are():
    responses = [RewardedResponse(Problem("Who?", "B"), "B", (5,), reward) for reward in (0.2, 0.5, math.nan)]
    said = nothing_usable(responses, RLCSD.from_fields(), success=1.0)
    assert "0 of 3 responses are correct, with rewards from 0.2 to 0.5 and success=1" in said
    assert "no reward function judged" in nothing_usable(responses[2:], RLCSD.from_fields(), success=1.0)


def batch(texts, rewards, method, by_text=False):
    prompts = TeacherPrompts(load_tokenizer(ModelConfig()), 512, instruction="", by_text=by_text)
    responses = [RewardedResponse(Problem("Who?", "B"), t, (5, 6), r) for t, r in zip(texts, rewards, strict=True)]
    groups = build_groups(responses, 4, method)
    return groups, *build_examples(groups, method, prompts, random.Random(0))


def test_a_batch_has_the_counts_and_warnings_of_a_run():
    """By hand: four responses without boxes, one of them right, so none has a wrong hint and three a correct one."""
    method = RLCSD.from_fields()
    health = BatchHealth(method, {"group_size": "num_generations"})
    texts, rewards = ["It is B.", "It is A.", "It is C.", "It is D."], [1.0, 0.0, 0.0, 0.0]
    figures, told = health.after_batch(*batch(texts, rewards, method), by_text=False)
    assert (figures["groups/mixed"], figures["groups/lone_winner"], figures["rollout/accuracy"]) == (1.0, 1.0, 0.25)
    assert (figures["hints/usable_share"], figures["hints/updated_share"], figures["update/empty"]) == (0.0, 0.0, 1.0)
    assert (figures["hints/without_correct"], figures["hints/without_wrong"]) == (1, 3)
    assert len(told) == 2 and all("no answer can be read in any of the 3 wrong responses" in one for one in told)
    figures, told = BatchHealth(method, {}).after_batch(*batch(texts, rewards, method, by_text=True), by_text=True)
    assert (figures["hints/usable_share"], figures["update/empty"], told) == (0.75, 0.0, [])
    alike = batch([r"\boxed{B}"] * 4, [1.0] * 4, method)
    assert "all right in 1 of 1" in health.after_batch(*alike, by_text=False)[1][-1]

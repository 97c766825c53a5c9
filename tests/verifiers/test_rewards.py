"""What verifiers may look like and return, what becomes of it, and how a bad one is named."""

from __future__ import annotations

import functools
import os
import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd import InputError, Problem, Reward, Task, Verdict
from rlcsd.verifiers import grade
from rlcsd.verifiers.rewards import Form, form_of

PROBLEM = Problem("Q?", "gold", extra={"column": "value"})


class Methods:
    def whole(self, response, problem):
        return problem.extra["column"] == response

    def answer(self, response, answer):
        return answer == response

    @staticmethod
    def static(response, problem):
        return problem.answer == response

    @classmethod
    def of_class(cls, response, problem):
        return problem.answer == response

    def __call__(self, response, problem):
        return problem.answer == response


def decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def typed(text: str, row: Problem) -> bool:
    return row.answer == text


def scaled(response, problem, scale=1.0):
    return scale * (problem.answer == response)


def configured(settings, response, problem):
    return problem.answer == response


def by_name(response, *, problem):
    return problem.answer == response


WHOLE, ANSWER, NAMED = Form(True), Form(False), Form(True, "problem")


@pytest.mark.parametrize(
    ("verifier", "form"),
    [
        (lambda response, answer: answer == response, ANSWER),
        (lambda r, a: a == r, ANSWER),
        (lambda response, problem: problem.answer == response, WHOLE),
        (typed, WHOLE),
        (Methods().whole, WHOLE),
        (Methods().answer, ANSWER),
        (Methods.static, WHOLE),
        (Methods.of_class, WHOLE),
        (Methods(), WHOLE),
        (decorated(typed), WHOLE),
        (decorated(lambda r, a: a == r), ANSWER),
        (functools.partial(scaled, scale=2), WHOLE),
        (functools.partial(configured, {}), WHOLE),
        (by_name, NAMED),
        (functools.partial(lambda response, scale, problem: problem.answer == response, scale=2), NAMED),
        (lambda *both: both[0] == both[1], ANSWER),
        (str.__eq__, ANSWER),
    ],
)
def test_the_signature_decides_between_the_answer_and_the_problem(verifier, form):
    assert form_of(verifier) == form
    right = "value" if verifier == Methods().whole or getattr(verifier, "__name__", "") == "whole" else "gold"
    for task in (Task("t", [PROBLEM], {}, verifier), Task("t", [PROBLEM], {}, verifier, verifier_seconds=None)):
        ((good, bad),) = task.judge([PROBLEM], [(right, "other")])
        assert (good.correct, bad.correct) == (True, False)


class Batched:
    def __call__(self, response, problem):
        raise AssertionError("the batch is asked")

    def batch(self, responses, problems):
        return [p.extra["column"] == r for r, p in zip(responses, problems, strict=True)]


def test_a_batch_may_take_problems_too():
    assert [v.correct for v in grade(Batched(), ["value", "x"], [PROBLEM, PROBLEM])] == [True, False]


@pytest.mark.parametrize(
    ("returned", "success", "verdict"),
    [
        (True, 1.0, Verdict(True, 1.0)),
        (False, 1.0, Verdict(False, 0.0)),
        (True, 2.0, Verdict(True, 1.0)),  # a bool says itself what is correct
        (0.1, 1.0, Verdict(False, 0.1)),
        (1, 1.0, Verdict(True, 1.0)),
        (0.7 + 0.2 + 0.1, 1.0, Verdict(True, 0.7 + 0.2 + 0.1)),  # 0.9999999999999999
        (float(np.float32(0.7) + np.float32(0.2) + np.float32(0.1)), 1.0, None),
        (-1, 1.0, Verdict(False, -1.0)),
        (-1, -1.0, Verdict(True, -1.0)),
        (0.5, 0.5, Verdict(True, 0.5)),
        (0.0, 0.0, Verdict(True, 0.0)),
        (np.bool_(True), 1.0, Verdict(True, 1.0)),
        (np.float32(0.5), 1.0, Verdict(False, 0.5)),
        (torch.tensor(1.0), 1.0, Verdict(True, 1.0)),
        (torch.tensor([True]), 1.0, Verdict(True, 1.0)),
        (Decimal("0.5"), 0.5, Verdict(True, 0.5)),
        (Fraction(1, 2), 1.0, Verdict(False, 0.5)),
        (Verdict(True, Decimal("0.25"), {"a": np.float16(1)}), 1.0, Verdict(True, 0.25, {"a": 1.0})),
        (Verdict(True, 0.3, {"a": 1}, "so"), 1.0, Verdict(True, 0.3, {"a": 1.0}, "so")),
        (Verdict(np.bool_(False), np.float64(2.0)), 1.0, Verdict(False, 2.0)),
        (Verdict(False, 2.0, feedback=""), 1.0, Verdict(False, 2.0)),
    ],
)
@pytest.mark.parametrize("seconds", [10.0, None])
def test_what_a_verifier_may_return(returned, success, verdict, seconds):
    task = Task("t", [PROBLEM], {}, lambda r, a: returned, success=success, verifier_seconds=seconds)
    (((found),),) = task.judge([PROBLEM], [("x",)])
    assert found == verdict if verdict is not None else found.correct
    assert bool(found) == found.correct and float(found) == found.reward


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("yes", "returned 'yes'; it must return a bool"),
        (None, "returned None"),
        (float("nan"), "returned nan"),
        ([1, 2], "returned [1, 2]"),
        (10**400, "returned 1000"),
        (Decimal("NaN"), "returned Decimal('NaN')"),
        (Decimal("sNaN"), "returned Decimal('sNaN')"),
        (1 + 0j, "returned (1+0j)"),
        (Verdict("yes", 1.0), "correct='yes', which must be True or False"),
        (Verdict(True, float("inf")), "reward=inf, which must be a finite number"),
        (Verdict(True, 1.0, {"a": None}), "parts={'a': None}, which must map names to finite numbers"),
        (Verdict(True, 1.0, [1]), "parts=[1], which must"),
        (Verdict(True, 1.0, {}, 3), "feedback=3, which must be a text or None"),
    ],
)
@pytest.mark.parametrize("seconds", [10.0, None])
def test_nonsense_is_named_with_its_row(returned, said, seconds):
    def mine(response, problem):
        return returned if problem.answer == "2" else True

    problems = [Problem("Q1?", "1"), Problem("Q2?", "2")]
    with pytest.raises(InputError) as error:
        Task("t", problems, {}, mine, verifier_seconds=seconds)
    assert said in str(error.value)
    assert "task=t: problem 1 in 'train' cannot be verified (verifier 'mine'" in str(error.value)


def test_one_that_raises_hangs_or_dies_later_is_named_with_its_row():
    def mine(response, problem):
        if response == "raise":
            return {}["no such key"]
        if response == "hang":
            time.sleep(60)
        if response == "die":
            os._exit(3)
        return True

    task = Task("t", [Problem("Q1?", "1")], {"test": [Problem("Q2?", "2")]}, mine, verifier_seconds=1.0)
    (held_out,) = task.evaluations["test"]
    begun = time.monotonic()
    for response, said in (("raise", "raised KeyError"), ("hang", "took longer than 1 s"), ("die", "exit code 3")):
        with pytest.raises(InputError, match=f"problem 0 in 'test' cannot be verified .*{said}"):
            task.judge([held_out], [("fine", *[response] * 40)])
    assert time.monotonic() - begun < 30  # 40 that hang are not waited for one by one
    assert all(verdict.correct for verdict in task.judge([held_out], [("fine", "fine")])[0])


def test_a_row_that_no_process_can_be_given_is_named():
    odd = Problem("Q?", "1", extra={"column": lambda: 0})
    with pytest.raises(InputError, match=r"problem 0 in 'train' cannot be verified .*verifier_seconds=None"):
        Task("t", [odd], {}, lambda response, problem: True)
    Task("t", [odd], {}, lambda response, problem: True, verifier_seconds=None)
    Task("t", [odd], {}, lambda response, answer: True)


# ------------------------------------------------------------------ several rewards


def boxed(response, answer):
    return "box" in response


def right(response, problem):
    return Verdict(problem.answer in response, float(problem.answer in response), {"size": len(response)}, "look again")


def test_several_rewards_are_a_weighted_sum_each_under_its_name():
    task = Task("t", [PROBLEM], {}, [Reward(boxed, 0.1), Reward(right, 0.9)])
    ((both, form, substance, none),) = task.judge([PROBLEM], [("box gold", "box", "gold", "")])
    assert [v.reward for v in (both, form, substance, none)] == pytest.approx([1.0, 0.1, 0.9, 0.0])
    assert [v.correct for v in (both, form, substance, none)] == [
        True,
        False,
        True,
        False,
    ]  # the largest weight decides
    assert both.parts == {"boxed": 1.0, "right": 1.0, "right/size": 8.0}
    assert both.feedback == "look again"


@given(weights=st.lists(st.integers(-3, 3), min_size=1, max_size=4), marks=st.integers(0, 15), held=st.integers(0, 15))
def test_correct_is_what_the_deciding_rewards_say(weights, marks, held):
    size = len(weights)
    flags = [bool(marks >> i & 1) for i in range(size)]
    outcomes = [bool(held >> i & 1) for i in range(size)]
    rewards = [
        Reward(lambda r, a, outcome=outcome: outcome, weight, f"part{i}", flag)
        for i, (weight, flag, outcome) in enumerate(zip(weights, flags, outcomes, strict=True))
    ]
    if not any(weights):
        with pytest.raises(InputError, match="other than 0"):
            Task("t", [PROBLEM], {}, rewards, verifier_seconds=None)
        return
    ((verdict,),) = Task("t", [PROBLEM], {}, rewards, verifier_seconds=None).judge([PROBLEM], [("x",)])
    assert verdict.reward == sum(w for w, outcome in zip(weights, outcomes, strict=True) if outcome)
    deciding = [i for i in range(size) if flags[i]] or [i for i in range(size) if weights[i] == max(weights)]
    assert verdict.correct == all(outcomes[i] for i in deciding)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ([], "at least one reward"),
        ([Reward(boxed), Reward(boxed, 0.5)], "two rewards are called 'boxed'"),
        ([Reward(boxed, name="my part")], "'my part' cannot be a name in the log"),
        ([boxed], "must hold rlcsd.Reward"),
        ([Reward("exakt")], "did you mean 'exact'"),
        ([Reward(boxed, "0.5")], "the weight of 'boxed' must be a finite number, not '0.5'"),
        ([Reward(boxed, float("nan"))], "the weight of 'boxed' must be a finite number, not nan"),
    ],
)
def test_a_bad_list_of_rewards_is_one_sentence(rewards, said):
    with pytest.raises(InputError, match=said):
        Task("t", [PROBLEM], {}, rewards)


def test_a_part_that_fails_is_named():
    def broken(response, answer):
        raise RuntimeError("no")

    with pytest.raises(InputError, match=r"problem 0 in 'train' cannot be verified \(verifier 'broken' raised"):
        Task("t", [PROBLEM], {}, [Reward(boxed), Reward(broken, 0.1)])


def test_a_batch_that_raises_is_asked_one_by_one_for_the_row():
    class Many:
        def batch(self, responses, answers):
            if "bad" in responses:
                raise ValueError("bad row")
            return [True] * len(responses)

        def __call__(self, response, answer):
            return self.batch([response], [answer])[0]

    task = Task("t", [Problem("Q1?", "1")], {"test": [Problem("Q2?", "2"), Problem("Q3?", "3")]}, Many())
    with pytest.raises(InputError, match=r"problem 1 in 'test' cannot be verified \(.*raised ValueError \(bad row\)"):
        task.judge(list(task.evaluations["test"]), [("fine", "fine"), ("fine", "bad")])

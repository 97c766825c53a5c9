"""The generated sums, their verifier, and that every arm of the study composes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.methods import METHODS

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import smollm2


def test_no_problem_is_drawn_twice_or_shown_solved_before():
    made = smollm2.task()
    problems = [*made.train, *made.evaluations["held_out"]]
    assert len({problem.question for problem in problems}) == len(problems) == 464
    shown = {smollm2.question(terms) for terms in smollm2.SHOTS}
    assert not shown & {problem.question for problem in problems}
    assert all(smollm2.verify(problem.solution, problem.answer).correct for problem in problems)
    assert all(eval(problem.question[8:-1]) == int(problem.answer) for problem in problems)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("7 + 2 = 9, 9 + 5 = 14", "14"),
        ("7 + 2 = 9, 9 + 5 = 14, 14 + 5 = 19", "19"),
        ("7 + 2 + 5 = ", ""),
        ("14", ""),
        ("= 14", ""),
    ],
)
def test_the_answer_is_what_stands_after_the_last_equals_sign(response, answer):
    verdict = smollm2.verify(response, "14")
    assert (verdict.correct, verdict.reward, verdict.answer) == (answer == "14", float(answer == "14"), answer)


def test_every_arm_composes():
    study = smollm2.study()
    assert len(study.seeds) >= 4
    methods = {}
    for arm in study.arms:
        config = load([*study.common, "model.path=tiny", *arm.overrides])
        methods[arm.name] = build_method(config)
        assert (config.save_every, config.kl_coefficient, config.engine.threads) == (10, 0.0, 1)
    for name in ("grpo", "cepo", "rlcsd", "opsa"):
        assert type(methods[name]) is METHODS[name]
    assert methods["dapo"].config.objective == "dapo"
    assert methods["spares"].config.spare == 0.5

"""reasoning-gym: fresh problems from seeds apart, its own scorers, and mistakes in one sentence."""

from __future__ import annotations

import pickle

import pytest

from rlcsd import InputError
from rlcsd.config.load import load
from rlcsd.tasks.reasoning_gym import answer_in, plain
from rlcsd.tasks.registry import build_task
from rlcsd.trainer import Trainer

pytest.importorskip("reasoning_gym")

QUICK = ["chain_sum", "knights_knaves", "spell_backward", "propositional_logic", "prime_factorization"]


def gym(dataset, **values):
    values = {"train_size": 12, "eval_size": 6, "verifier_seconds": None, **values}
    return build_task({"kind": "reasoning_gym", "name": "gym", "dataset": dataset, **values})


@pytest.mark.parametrize("dataset", QUICK)
def test_problems_are_fresh_and_their_own_answers_are_correct(dataset):
    task, again, other = gym(dataset), gym(dataset), gym(dataset, seed=1)
    train = {problem.question for problem in task.train}
    assert len(train) == 12 and len(task.evaluations["fresh"]) == 6
    assert not train & {problem.question for problem in task.evaluations["fresh"]}
    assert task.train == again.train and train != {problem.question for problem in other.train}
    given = [problem for problem in task.train if problem.extra["entry"]["answer"]]
    verdicts = task.judge(
        given, [(f"So \\boxed{{{p.answer}}}", f"<answer>{p.answer}</answer>", "no", "") for p in given]
    )
    for right, tagged, nothing, empty in verdicts:
        assert right.correct and right.reward == 1 and tagged.correct
        assert not nothing.correct and not empty.correct and nothing.reward == empty.reward == 0
    pickle.loads(pickle.dumps(task.train))


def test_partial_marks_are_a_reward_and_not_correct():
    task = gym("countdown", parameters={"min_numbers": 3, "max_numbers": 3}, verifier_seconds=10)
    problem = task.train[0]
    typeset = problem.answer.replace("*", r"\times ")
    ((wrong, latex),) = task.judge([problem], [("\\boxed{1 + 1}", f"\\boxed{{{typeset}}}")])
    assert (wrong.correct, latex.correct) == (False, True) and 0 < wrong.reward < 1


def test_what_no_scorer_can_read_is_wrong():
    task = gym("prime_factorization")  # its scorer raises on letters
    assert [v.correct for v in task.judge(task.train[:1], [("\\boxed{x}", "\\boxed{}", "\\boxed{1 2 3\n4}")])[0]] == [
        False
    ] * 3


def test_several_data_sets_take_turns_and_are_told_apart():
    task = gym(["chain_sum", "spell_backward"], parameters={"chain_sum": {"max_terms": 2}}, train_size=7)
    assert [problem.group for problem in task.train] == ["chain_sum", "spell_backward"] * 3 + ["chain_sum"]
    assert all(problem.question.count("+") + problem.question.count("-") <= 4 for problem in task.train[::2])


def test_answers_are_read_from_boxes_and_tags():
    assert answer_in("<think>\\boxed{1}</think> \\boxed{2}") == "2"
    assert answer_in("<answer>1</answer> <answer> 2 </answer>") == "2"
    assert answer_in("2") is None
    assert plain(r"\text{a} \times \frac{1}{2}") == "a * (1)/(2)"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dataset": "countdwn"}, "did you mean 'countdown'"),
        ({"dataset": "chain_sum", "parameters": {"terms": 3}}, "chain_sum has no such parameter; it has"),
        ({"dataset": "chain_sum", "parameters": {"min_terms": 9, "max_terms": 2}}, "chain_sum refuses it"),
        ({"dataset": ["chain_sum"], "parameters": {"min_terms": 9}}, "with several data sets"),
        ({"dataset": []}, "at least one data set"),
        (
            {"dataset": "chain_sum", "train_size": 400, "parameters": dict.fromkeys(
                ("min_terms", "max_terms", "min_digits", "max_digits"), 1)},
            "different problems were found where 400 were asked for",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(values, said):
    with pytest.raises(InputError, match=said):
        gym(**values)


def test_it_trains_by_name(tiny_config):
    from rlcsd.engine.local.local_engine import LocalEngine
    from rlcsd.prepare import prepare

    overrides = ["task=reasoning_gym", "task.dataset=chain_sum", "task.train_size=8", "task.eval_size=2"]
    assert load(overrides).task["dataset"] == "chain_sum"
    config = tiny_config("sampling.max_tokens=8")
    config = config.model_copy(update={"task": load(overrides).task, "max_prompt_tokens": 2048})
    prepared = prepare(config)
    result = Trainer(prepared, LocalEngine(config, prepared.method)).step(1)
    assert result.metrics["rollout/reward"] == 0 and len(result.groups) == 4

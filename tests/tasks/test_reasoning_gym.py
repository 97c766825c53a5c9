"""reasoning-gym: fresh problems from seeds apart, its own scorers, and mistakes in one sentence."""

from __future__ import annotations

import json
import pickle
import re

import pytest

from rlcsd import InputError, Problem
from rlcsd.config.load import load
from rlcsd.tasks.reasoning_gym import Scorer, answer_in
from rlcsd.tasks.registry import build_task
from rlcsd.trainer import Trainer

factory = pytest.importorskip("reasoning_gym.factory")

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
    assert answer_in("<answer>1</answer>" + "<answer>" * 100_000) == "1"
    assert answer_in("<answer>" * 100_000) is None and answer_in("<answer>a<answer>b</answer>") == "a<answer>b"


def escaped(text: str) -> str:
    """The text as LaTeX that prints it."""
    commands = {"\\": r"\textbackslash ", "×": r"\times ", "→": r"\to ", "∨": r"\lor ", "∧": r"\land ", "¬": r"\neg "}
    return "".join(commands.get(c, f"\\{c}" if c in "_%#&${}" else c) for c in text)


def matrix(text: str) -> str:
    rows = [" & ".join(map(escaped, row.split())) for row in text.split("\n")]
    return r"\begin{bmatrix} " + r" \\ ".join(rows) + r" \end{bmatrix}" if len(rows) > 1 else text


def grouped(text: str) -> str:
    number = re.fullmatch(r"(-?)(\d{4,})(\.\d+)?", text)
    return text if number is None else f"{number[1]}{int(number[2]):,}{number[3] or ''}".replace(",", "{,}")


DRESSES = {
    "LaTeX in dollars": lambda text: f"${escaped(text)}$.".replace("\n", r" \\ "),
    "LaTeX in brackets": lambda text: rf"\[ {escaped(text)} \]".replace("\n", r" \\ "),
    "text": lambda text: rf"\text{{{text}}}",
    "a typewriter": lambda text: rf"\texttt{{{escaped(text)}}}",
    "a matrix": matrix,
    "groups of digits": grouped,
    "a fraction": lambda text: re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\dfrac{\2}{\3}", text),
    "factors": lambda text: re.sub(r"(?<!\*) ?[*×] ?(?!\*)", r" \\cdot ", text) if re.fullmatch(r"[\d\W]+", text) else text,
    "bold": lambda text: f"**{text}**",
    "bold with a full stop": lambda text: f"**{text}.**",
    "code": lambda text: f"`{text}`",
    "a fence": lambda text: f"```text\n{text}\n```",
    "quotes": lambda text: f'"{text}"',
    "a full stop": lambda text: f"{text}.",
}  # fmt: skip
# Of these two, LaTeX as above is not the same content: the one answers in LaTeX itself, the other by columns of spaces.
NOT_ESCAPED = {"fraction_simplification", "futoshiki"}


def own_answer(entry) -> str | None:
    """The generator's answer, or an example of one."""
    examples = ("example_answer", "possible_answer", "example_correct_answer")
    answer = entry["answer"] or next(filter(None, map(entry["metadata"].get, examples)), None)
    return json.dumps(answer) if isinstance(answer, dict) else answer


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("intermediate_integration", "sokoban") else [])
        for name in sorted(set(factory.DATASETS) - {"composite"})
    ],
)
def test_every_generator_takes_its_own_answers_typeset_and_no_others(name):
    dataset = factory.create_dataset(name, seed=11, size=2)
    scorer = Scorer({name: dataset})

    def score(answer, entry) -> float:
        return scorer(f"<answer>{answer}</answer>", Problem("?", "!", extra={"dataset": name, "entry": entry}))

    def plain_score(answer, entry) -> float:
        try:
            return float(dataset.score_answer(answer, entry))
        except Exception:
            return 0.0

    entry, other = dataset[0], dataset[1]
    answer = own_answer(entry)
    for dress, typeset in DRESSES.items() if answer else ():
        if not (name in NOT_ESCAPED and typeset(answer) != answer and "\\" in typeset(answer)):
            assert score(typeset(answer), entry) == 1, (dress, typeset(answer))
    for wrong in {own_answer(other), "nonsense", "0"} - {answer, None}:
        best = plain_score(wrong, entry)
        for dress in ("LaTeX in dollars", "text", "bold with a full stop"):
            typeset = DRESSES[dress](wrong)
            assert score(typeset, entry) <= max(best, plain_score(typeset, entry), 0.01), (dress, typeset)


def test_full_marks_for_anything_are_not_the_answer():
    halting = factory.create_dataset("game_of_life_halting", seed=3, size=20)
    scorer = Scorer({"life": halting})
    for index in range(4):
        problem = Problem("?", "!", extra={"dataset": "life", "entry": halting[index]})
        right = halting[index]["answer"]
        assert [scorer(f"\\boxed{{{text}}}", problem) for text in (right, f"**{right}**", "maybe", str(right != "True"))] == [
            1, 1, 0, 0
        ]  # fmt: skip
    puzzles = factory.create_dataset("puzzle24", seed=3, size=1)
    problem = Problem("?", "!", extra={"dataset": "puzzle24", "entry": puzzles[0]})
    scorer = Scorer({"puzzle24": puzzles})
    assert scorer(f"\\boxed{{{puzzles[0]['answer']}}}", problem) == 1
    assert scorer("\\boxed{6 * 4 * 1 * 1}", problem) < 1


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
    assert load(overrides).task.dataset == "chain_sum"
    config = tiny_config("sampling.max_tokens=8")
    config = config.model_copy(update={"task": load(overrides).task, "max_prompt_tokens": 2048})
    prepared = prepare(config)
    result = Trainer(prepared, LocalEngine(config, prepared.method)).step(1)
    assert result.metrics["rollout/reward"] == 0 and len(result.groups) == 4

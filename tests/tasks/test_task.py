"""A task is checked when it is made; and which problems two sets share."""

from __future__ import annotations

import pytest

from rlcsd import InputError, Problem, Reward, Task
from rlcsd.tasks.task import normalised, overlaps

PROBLEMS = [Problem(f"{n}?", str(n)) for n in range(1000)]


class Counting:
    """A verifier that remembers the answers that it was asked about."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def __call__(self, response: str, answer: str) -> bool:
        self.answers.append(answer)
        return response == answer


def test_a_verifier_is_tried_on_a_fixed_number_of_problems_of_each_set():
    verifier = Counting()
    Task("t", PROBLEMS, {"few": PROBLEMS[:3]}, verifier, verifier_seconds=None)
    assert verifier.answers[-3:] == ["0", "1", "2"]
    tried = [int(answer) for answer in verifier.answers[:-3]]
    assert 32 < len(tried) <= 64 and tried[0] == 0 and tried[-1] > 950 and len(set(tried)) == len(tried)


def test_a_quick_verifier_is_tried_on_every_problem():
    problems = [Problem(f"{n}?", "Ann is a knight") for n in range(300)]
    Task("t", problems, {}, "knights_and_knaves")
    with pytest.raises(InputError, match="problem 201 in 'train' cannot be verified"):
        Task("t", [*problems[:201], Problem("?", "nobody knows"), *problems[201:]], {}, "knights_and_knaves")


def test_an_async_judge_among_rewards_is_tried_on_one_problem():
    judged = []

    async def judge(response, answer):
        judged.append(answer)
        return True

    Task("t", PROBLEMS, {}, [Reward("exact"), Reward(judge, 0.1)])
    assert judged == ["0"]


WORKED = "In May 24 clips,\nso 48 + 24 = 72.\n#### 72"


@pytest.mark.parametrize("verifier", ["math", [Reward("math"), Reward("exact", 0.1)]])
def test_worked_solutions_as_the_answers_of_math_are_named(verifier):
    unusual = ["$$\n72\n$$", r"\begin{pmatrix}1\\2\end{pmatrix}", "1,\n2", "so: \\boxed{72}\nas said"]
    Task("t", [Problem("?", answer) for answer in (*unusual, WORKED, "7\n8")], {}, "math")
    for wrong in (WORKED, "so 48 + 24\nis 72", "1 + " * 300 + "1"):
        with pytest.raises(
            InputError, match=r"task=t: verifier=math .* most answers in 'held' .*(72|1)'; .*task.answer="
        ):
            Task("t", PROBLEMS, {"held": [Problem("?", wrong), Problem("?", wrong), Problem("?", "72")]}, verifier)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": []}, "there are no problems in 'train'"),
        ({"train": iter(PROBLEMS)}, "'train' must be a list of problems, not a list_iterator"),
        ({"train": ["1?"]}, "problem 0 in 'train' must be a rlcsd.Problem, not a str"),
        ({"train": [Problem(" ", "1")]}, "the question of problem 0 in 'train' is empty"),
        ({"evaluations": [PROBLEMS]}, "evaluations must map names to lists of problems"),
        ({"evaluations": {"x": []}}, "there are no problems in 'x'"),
        ({"evaluations": {"x": [Problem("1?", "")]}}, "the answer of problem 0 in 'x' is empty"),
        ({"verifier": 3}, "the verifier must be a function or a name, not 3"),
        ({"verifier": ["exact"]}, "a list of verifiers must hold rlcsd.Reward, not 'exact'"),
        ({"verifier_seconds": 0}, "verifier_seconds must be a number above 0, or None, not 0"),
    ],
)
def test_what_is_no_task_is_named(changed, said):
    fields = {"name": "t", "train": PROBLEMS[:2], "evaluations": {}, "verifier": "exact", **changed}
    with pytest.raises(InputError, match=f"task=t: {said}"):
        Task(**fields)


@pytest.mark.parametrize("name", ["average", "sums: hard", " ", 3])
def test_a_set_whose_name_means_something_else_is_refused(name):
    with pytest.raises(InputError, match="an evaluation set cannot be called"):
        Task("t", PROBLEMS[:1], {name: PROBLEMS[:1]}, "exact")


def test_a_system_prompt_is_for_problems_without_one():
    own = Problem("1?", "1", history=(("system", "Be brief."),))
    task = Task("t", [own, PROBLEMS[0]], {"x": PROBLEMS[:1]}, "exact", system_prompt="Add.")
    assert [problem.history for problem in task.train] == [own.history, (("system", "Add."),)]
    assert task.evaluations["x"][0].history == (("system", "Add."),)


def test_overlap_sees_through_typesetting_and_not_through_operators():
    train = [Problem("Let $x+y=1$. Find  $\\left(x\\right)$.", "1"), Problem("What is 2+2?", "4")]
    sets = {
        "one": [Problem("let x + y = 1, find (x)", "1"), Problem("Let $x-y=1$. Find $(x)$.", "1")],
        "two": [Problem("What is 2+2?", "4")],
    }
    one, two = overlaps(train, sets)
    assert (one.exact, one.normalised, one.problems) == (0, 1, 2)
    assert (two.exact, two.normalised, two.problems) == (1, 1, 1)
    assert "let x + y" in str(one)
    assert normalised("x-y") != normalised("x+y")

"""Kinds of task behind the registry, and tasks from a user's file."""

from __future__ import annotations

import pytest

from rlcsd import InputError, Problem
from rlcsd.tasks import registry
from rlcsd.tasks.own_data import FileParameters
from rlcsd.tasks.registry import PythonTaskParameters, TaskParameters, build_task, register, task_parameters

MODULE = """
from rlcsd import Problem, Task

def task(size=2):
    problems = [Problem(f"{n} + 1?", str(n + 1)) for n in range(size)]
    return Task("sums", problems, {}, lambda response, answer: 0.5 * (answer in response))

TASK = task()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sums.py"
    path.write_text(MODULE)
    return path


def test_what_every_task_has_can_be_changed_in_a_finished_one(file):
    plain = build_task({"name": f"{file}:TASK"})
    assert not plain.judge([plain.train[0]], [("1",)])[0][0].correct
    task = build_task({"name": f"{file}:TASK", "success": 0.5, "system_prompt": "Add.", "instruction": ""})
    assert task.judge([task.train[0]], [("1",)])[0][0].correct
    assert task.train[0].history == (("system", "Add."),) and task.instruction == ""


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"nonsense": 3},
            "task.nonsense: task=.*sums.py:TASK is a finished rlcsd.Task, of which instruction, system_prompt",
        ),
        ({"verifier": "math"}, "task.verifier: task="),
        ({"success": "much"}, "task.success='much'"),
    ],
)
def test_anything_else_is_refused_in_a_finished_one(values, sentence, file):
    with pytest.raises(InputError, match=sentence):
        build_task({"name": f"{file}:TASK", **values})


def test_a_function_takes_keys_of_its_own(file):
    assert len(build_task({"name": f"{file}:task", "size": 5}).train) == 5
    task = build_task({"name": f"{file}:task", "size": 3, "success": 0.5, "on_verifier_error": "retry"})
    assert (len(task.train), task.success, task.on_verifier_error) == (3, 0.5, "retry"), "it takes no such keys itself"
    with pytest.raises(InputError, match="it could not be built"):
        build_task({"name": f"{file}:task", "length": 5})


class Sums(TaskParameters):
    size: int = 2


def sums(p: Sums):
    return p.task([Problem(f"{n} + 1?", str(n + 1)) for n in range(p.size)], {}, "exact")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    register("sums", Sums, sums)


def test_a_registered_kind_is_checked_and_built(registered):
    assert len(build_task({"name": "mine", "kind": "sums", "size": 4}).train) == 4
    assert build_task({"name": "sums"}).name == "sums"  # the name is the kind where none is given
    with pytest.raises(InputError, match=r"task\.sizes: unknown key; did you mean 'task.size'"):
        task_parameters({"name": "sums", "sizes": 4})
    with pytest.raises(InputError, match=r"task\.size='many'"):
        task_parameters({"name": "sums", "size": "many"})


def test_checked_parameters_build_the_task_as_well(registered):
    parameters = task_parameters({"name": "mine", "kind": "sums", "size": 3})
    assert isinstance(parameters, Sums)
    assert build_task(parameters).train == build_task({"name": "mine", "kind": "sums", "size": 3}).train


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"name": "mine", "kind": "files", "train": "a.jsonl", "rewards": [{"verifier": "exact"}]}, FileParameters),
        ({"name": "mine.py:task", "size": 5, "more": {"a": [1]}}, PythonTaskParameters),
        ({"name": "mine.py:task", "kind": "plugin"}, PythonTaskParameters),
    ],
)
def test_parameters_give_their_section_back(values, kind):
    parameters = task_parameters(values)
    assert type(parameters) is kind and parameters.name == values["name"]
    assert parameters.model_dump(exclude_unset=True) == values


def test_a_kind_that_the_core_does_not_know_is_looked_for_among_the_experiments(monkeypatch):
    monkeypatch.setattr(registry, "_kinds", dict(registry._kinds))
    monkeypatch.setattr(registry, "load_experiments", lambda: register("sums", Sums, sums))
    assert len(build_task({"name": "sums"}).train) == 2
    monkeypatch.setattr(registry, "load_experiments", lambda: pytest.fail("the kind is known"))
    assert len(build_task({"name": "sums", "size": 1}).train) == 1


def test_an_unknown_kind_is_named_with_what_was_probably_meant():
    with pytest.raises(InputError, match=r"task\.kind=filles: did you mean 'files'"):
        task_parameters({"name": "mine", "kind": "filles"})
    with pytest.raises(InputError, match=r"task\.kind=xyz: known: .*files.*reasoning_gym"):
        task_parameters({"name": "xyz"})


def test_a_change_of_a_finished_task_reaches_its_verifier(tmp_path):
    """Its limit, its success and its reading of thoughts, which the verifier of the finished task had bound already."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import time\nfrom rlcsd import Problem, Reward, Task\n\ndef half(response, answer):\n"
        "    time.sleep(5 if response == 'slow' else 0)\n    return 0.5\n\nPROBLEMS = [Problem('Q?', 'a')]\n"
        "SLOW = Task('t', PROBLEMS, {}, half)\nWEIGHED = Task('t', PROBLEMS, {}, [Reward(half)])\n"
        "BOXED = Task('t', PROBLEMS, {}, 'exact')\n"
    )
    slow = build_task({"name": f"{path}:SLOW", "verifier_seconds": 0.3})
    with pytest.raises(InputError, match=r"took longer than 0.3 s"):
        slow.judge(slow.train, [("slow",)])
    weighed = build_task({"name": f"{path}:WEIGHED", "success": 0.5})
    assert weighed.judge(weighed.train, [("a",)])[0][0].correct
    boxed = build_task({"name": f"{path}:BOXED", "unfinished_thoughts": True})
    assert boxed.judge(boxed.train, [("<think>\\boxed{a}",)])[0][0].correct

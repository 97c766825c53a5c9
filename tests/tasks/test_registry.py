"""Tasks from a user's file: a finished task, of which a few things can be changed, or a function with any keys."""

from __future__ import annotations

import pytest

from rlcsd import InputError
from rlcsd.tasks.registry import build_task

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
    with pytest.raises(InputError, match="it could not be built"):
        build_task({"name": f"{file}:task", "length": 5})

"""The copy of a task in a run folder gives the same task again."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy
import pytest

from rlcsd import InputError, Problem, Task
from rlcsd.storage import read_jsonl
from rlcsd.tasks.given_task import data_hash, read_copy, record, write_copy
from rlcsd.tasks.registry import build_task


def says(response, problem):
    return problem.answer in response and problem.extra.get("level", [0])[0] >= 0


def test_a_copy_is_the_task_again(tmp_path):
    chat = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "1?"}]
    problems = [
        Problem(chat, "1", extra={"level": (1, 2), "half": 0.5}),
        Problem("2?\u2028", "2", "It is 2.", "easy"),
    ]
    task = Task("t", problems, {"a/b": problems[1:], "c": problems}, says, "Say.", 5.0, 0.25, "Add.")
    write_copy(tmp_path, task)
    again = read_copy(tmp_path, record(task), pytest.fail)
    assert data_hash(again) == data_hash(task) and list(again.evaluations) == ["a/b", "c"]
    for field in ("name", "instruction", "verifier_seconds", "success", "system_prompt"):
        assert getattr(again, field) == getattr(task, field)
    assert again.train[1] == task.train[1] and again.train[0].history == task.train[0].history
    files = build_task({"name": "files", "train": str(tmp_path / "task/train.jsonl"), "solution": None})
    assert [(p.question, p.answer, p.history) for p in files.train] == [
        (p.question, p.answer, p.history) for p in task.train[:1]
    ] + [(task.train[1].question, "2", task.train[1].history)]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"solution": ""}, "5"),
        ({"group": None}, "5"),
        ({"group": 0}, "5"),
        ({"answer": numpy.int64(5)}, "5"),
        ({"answer": numpy.float32(0.1), "group": numpy.int64(3)}, "0.1"),
        ({"answer": Decimal("5.0")}, "5"),
        ({"answer": 5}, "5"),
    ],
    ids=str,
)
def test_a_problem_in_whatever_types_is_the_same_in_the_copy(fields, text, tmp_path):
    task = Task("t", [Problem("1?", **{"answer": "5", **fields})], {}, "exact")
    write_copy(tmp_path, task)
    assert read_copy(tmp_path, record(task), pytest.fail).train == task.train
    assert (task.train[0].answer, task.train[0].solution) == (text, None)


def test_values_that_json_has_not_are_said(tmp_path):
    task = Task("t", [Problem("1?", "1", extra={"when": datetime.date(2026, 1, 1)})], {}, "exact")
    write_copy(tmp_path, task)
    with pytest.raises(InputError, match=r"Problem.extra of '1\?' holds values that JSON cannot.*pass it again"):
        read_copy(tmp_path, record(task), pytest.fail)


def test_a_damaged_copy_is_refused(tmp_path):
    task = Task("t", [Problem("1?", "1")], {}, "exact")
    with pytest.raises(InputError, match="has no copy of its task, t"):
        read_copy(tmp_path, record(task), pytest.fail)
    write_copy(tmp_path, task)
    (row,) = read_jsonl(tmp_path / "task/train.jsonl")
    (tmp_path / "task/train.jsonl").write_text('{"question": "1?", "answer": "2"}\n')
    assert row == {"question": "1?", "answer": "1"}
    with pytest.raises(InputError, match="these are not the problems that the run was given"):
        read_copy(tmp_path, record(task), pytest.fail)


def test_a_task_that_is_only_wished_for_is_named():
    with pytest.raises(InputError, match="task=own: it is given from Python"):
        build_task({"kind": "own", "name": "own"})

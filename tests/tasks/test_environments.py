"""Single-turn environments of the verifiers package: rows, rubric and refusals. Skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlcsd import InputError
from rlcsd.tasks.registry import build_task

MODULE = """
import verifiers as vf
from datasets import Dataset

def right(completion, answer, **rest):
    return float(answer in completion[-1]["content"])

def short(completion, info):
    return float(len(completion[-1]["content"]) < info["most"])

async def length(completion):
    return len(completion[-1]["content"])

def broken(completion):
    raise RuntimeError("a rubric's own trouble")

def load_environment(size=4, held_out=2, turns=1, funcs="right short length"):
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1), "info": {"most": 8}} for n in range(size + held_out)]
    rubric = vf.Rubric(funcs=[globals()[name] for name in funcs.split()], weights=[1.0, 0.5, 0.0][: len(funcs.split())])
    kinds = {"dataset": Dataset.from_list(rows[:size]), "rubric": rubric, "system_prompt": "Add."}
    if held_out:
        kinds["eval_dataset"] = Dataset.from_list(rows[size:])
    return vf.SingleTurnEnv(**kinds) if turns == 1 else Many(max_turns=turns, **kinds)

class Many(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **rest):
        return []
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    pytest.importorskip("verifiers.types", reason="this release has tasksets instead")
    (tmp_path / "sums_for_rlcsd.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def build(**values):
        return build_task({"kind": "environment", "name": "sums", "environment": "sums-for-rlcsd", **values})

    return build


def test_an_environment_is_its_data_set_and_its_rubric(environment):
    task = environment()
    assert [p.question for p in task.train] == [f"{n} + 1?" for n in range(4)]
    assert task.train[0].history == (("system", "Add."),)
    assert task.instruction == ""
    assert [p.answer for p in task.evaluations["held_out"]] == ["5", "6"]
    ((good, long, wrong),) = task.judge([task.train[2]], [("3", "the sum is 3", "4")])
    assert (good.correct, good.reward) == (True, 1.5)
    assert {name: good.parts[name] for name in ("right", "short", "length")} == {
        "right": 1.0,
        "short": 1.0,
        "length": 1.0,
    }
    assert (long.correct, long.reward, long.parts["length"]) == (True, 1.0, 12.0)  # right, but not in the best form
    assert (wrong.correct, wrong.reward) == (False, 0.5)
    assert not environment(success=1.5).judge([task.train[2]], [("the sum is 3",)])[0][0].correct


def test_rows_are_held_out_where_there_is_one_data_set_alone(environment):
    task = environment(arguments={"size": 10, "held_out": 0}, eval_size=3, train_size=5)
    assert [p.answer for p in task.evaluations["held_out"]] == ["8", "9", "10"]
    assert len(task.train) == 5


def test_what_cannot_be_used_is_one_sentence(environment):
    with pytest.raises(InputError, match="only environments of one turn"):
        environment(arguments={"turns": 3})
    with pytest.raises(InputError, match=r"task.environment=sums-for-rlcsd: it could not be loaded"):
        environment(arguments={"colour": "red"})
    with pytest.raises(InputError, match=r"task.environment=gone: it could not be loaded"):
        environment(environment="gone")


# ------------------------------------------------------------------ test_taskset
# Tasksets of the verifiers package from release 0.4 on. Skipped where that is not installed.

TASKSET_MODULE = """
import verifiers.v1 as vf

__all__ = ["Sums"]

class Data(vf.TaskData):
    answer: str

class Sum(vf.Task[Data]):
    @vf.reward(weight=1.0)
    async def right(self, trace):
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=0.5)
    async def short(self, task, trace):
        return float(len(trace.last_reply) < 8)

    @vf.metric
    async def turns(self, trace):
        return len(trace.messages) if hasattr(trace, "messages") else 2.0

class Program(Sum):
    @vf.reward(weight=1.0)
    async def passes(self, trace, runtime):
        return 1.0

class Config(vf.TasksetConfig):
    size: int = 6
    program: bool = False

class Sums(vf.Taskset[Sum, Config]):
    def load(self):
        for n in range(self.config.size):
            data = Data(prompt=f"{n} + 1?", system_prompt="Add.", answer=str(n + 1))
            yield (Program if self.config.program else Sum)(data, self.config.task)
"""


@pytest.fixture
def taskset(tmp_path, monkeypatch):
    verifiers = pytest.importorskip("verifiers")
    if hasattr(verifiers, "SingleTurnEnv"):
        pytest.skip("this release has environments with rubrics")
    (tmp_path / "sums_for_tasksets.py").write_text(TASKSET_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def build(**values):
        values = {"environment": "sums-for-tasksets", "eval_size": 2, **values}
        return build_task({"kind": "environment", "name": "sums", **values})

    return build


def test_a_taskset_is_its_tasks_and_their_rewards(taskset):
    task = taskset()
    assert [(p.question, p.answer) for p in task.train] == [(f"{n} + 1?", str(n + 1)) for n in range(4)]
    assert task.train[0].history == (("system", "Add."),)
    assert [p.answer for p in task.evaluations["held_out"]] == ["5", "6"]
    ((good, long, wrong),) = task.judge([task.train[2]], [("3", "the sum is 3", "4")])
    assert (good.correct, good.reward, good.parts["right"], good.parts["short"]) == (True, 1.5, 1.0, 1.0)
    assert (long.correct, long.reward) == (True, 1.0)
    assert (wrong.correct, wrong.reward) == (False, 0.5)
    ((later,),) = task.judge([task.evaluations["held_out"][1]], [("6",)])
    assert later.correct
    assert len(taskset(arguments={"size": 3}).train) == 2


def test_a_taskset_that_cannot_be_used_is_one_sentence(taskset):
    with pytest.raises(InputError, match="its passes runs a program"):
        taskset(arguments={"program": True})
    with pytest.raises(InputError, match=r"task.environment=gone: it could not be loaded"):
        taskset(environment="gone")
    with pytest.raises(InputError, match="could not be loaded"):
        taskset(arguments={"colour": "red"})


def test_the_taskset_of_the_docs_is_a_task(monkeypatch):
    verifiers = pytest.importorskip("verifiers")
    if hasattr(verifiers, "SingleTurnEnv"):
        pytest.skip("this release has environments with rubrics")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    task = build_task({"kind": "environment", "name": "sums", "environment": "sums-taskset", "eval_size": 8})
    assert (len(task.train), len(task.evaluations["held_out"])) == (56, 8)
    ((right, wrong),) = task.judge([task.train[9]], [(r"\boxed{2}", "2")])
    assert right.correct and not wrong.correct

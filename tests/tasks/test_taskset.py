"""Tasksets of the verifiers package from release 0.4 on. Skipped where that is not installed."""

from __future__ import annotations

import pytest

from rlcsd import InputError
from rlcsd.tasks.build import build_task

MODULE = """
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
    (tmp_path / "sums_for_tasksets.py").write_text(MODULE)
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


def test_what_cannot_be_used_is_one_sentence(taskset):
    with pytest.raises(InputError, match="its passes runs a program"):
        taskset(arguments={"program": True})
    with pytest.raises(InputError, match=r"task.environment=gone: it could not be loaded"):
        taskset(environment="gone")
    with pytest.raises(InputError, match="could not be loaded"):
        taskset(arguments={"colour": "red"})

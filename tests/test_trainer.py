"""The order in which a run takes its training problems."""

from __future__ import annotations

import pytest

from rlcsd.config.load import load
from rlcsd.prepare import prepare
from rlcsd.trainer import Trainer


@pytest.mark.parametrize("shuffle", ["false", "true"])
def test_problems_come_in_the_datas_order_or_each_pass_in_a_new_one(shuffle):
    config = load([f"shuffle={shuffle}", "prompts_per_step=4", "prompts_per_update=4", "task.train_per_size=6"])
    prepared = prepare(config)
    data = [problem.question for problem in prepared.problems]
    assert len(set(data)) == len(data) and len(data) % 4
    trainer = Trainer(prepared, engine=None)
    steps = [[problem.question for problem in trainer.problems(step)] for step in range(1, len(data) + 1)]
    taken = [question for step in steps for question in step]  # four passes
    passes = [taken[start : start + len(data)] for start in range(0, len(taken), len(data))]
    assert all(sorted(one) == sorted(data) for one in passes)
    assert (passes == [data] * 4) == (shuffle == "false")
    assert (passes[0] == passes[1]) == (shuffle == "false")

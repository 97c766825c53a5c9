"""One mini-batch of real rollouts of the tiny model, cut in several ways: the same gradient, in float32."""

from __future__ import annotations

import pytest
import torch

from rlcsd.config.load import build_method
from rlcsd.engine.local import LocalEngine
from rlcsd.methods import METHODS
from rlcsd.stages.grade import grade
from rlcsd.stages.score import build_token_batch
from rlcsd.tasks.build import build_task
from rlcsd.trainer import Trainer
from rlcsd.workload import training_prompt


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("opd")])
def test_the_gradient_of_real_rollouts_does_not_depend_on_the_cut(name, tiny_config):
    config = tiny_config(
        f"method={name}",
        "task.train_sizes=[3]",
        "task.train_per_size=8",
        "group_size=8",
        "sampling.max_tokens=128",
        "prompts_per_step=8",
        "prompts_per_update=8",
    )
    method = build_method(config)
    engine = LocalEngine(config, method)
    trainer = Trainer(config, build_task(config.task), method, engine)
    problems = trainer.problems(1)
    prompts = [training_prompt(engine.tokenizer, trainer.task, config, problem) for problem in problems]
    samples = engine.sample(prompts, config.group_size, config.sampling.settings(), 1)
    groups = grade(engine.tokenizer, trainer.task, problems, prompts, samples)
    rows = [row for group in trainer.hint(groups, 1).rows for row in group]
    assert len(rows) > 6
    batch = method.prepare(build_token_batch(engine, rows, method, None), 1)

    def gradient(budget: int) -> torch.Tensor:
        engine.config = config.model_copy(
            update={"engine": config.engine.model_copy(update={"micro_batch_tokens": budget})}
        )
        engine.optimizer.zero_grad(set_to_none=True)
        engine.gradient([row.pair for row in rows], batch, method)
        return torch.cat([parameter.grad.flatten().clone() for parameter in engine.policy.trainable()])

    whole = gradient(10**6)
    assert float(whole.norm()) > 0
    for budget in (1, 300, 1000):  # one by one, and two cuts by tokens
        # float32 sums of rows that cancel in part; test_update.py holds the same in float64 to 1e-6.
        assert float((gradient(budget) - whole).norm() / whole.norm()) < 2e-5

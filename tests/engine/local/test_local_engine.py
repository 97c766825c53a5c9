"""How many threads a run takes, and that it keeps the number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import yaml

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine, local_engine
from rlcsd.engine.local.local_engine import cgroup_cpus, choose_threads
from rlcsd.prepare import prepare, training_prompt
from rlcsd.run import Run
from rlcsd.run.console import Progress
from rlcsd.run.folder import resumed_config
from rlcsd.stages.grade import grade
from rlcsd.stages.score import build_token_batch
from rlcsd.trainer import Trainer
from tests.methods.catalogue import EIGHT


def test_the_share_of_a_container(tmp_path):
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cpus(tmp_path) == 1.5
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert cgroup_cpus(tmp_path) == 2.0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_cpus(tmp_path) is None


@pytest.fixture
def machine(monkeypatch):
    """A machine of 4 CPUs on which the user has said nothing of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local_engine, "available_threads", lambda: 4)


def test_a_small_model_has_one_thread_and_a_larger_one_all(machine, monkeypatch, tmp_path):
    assert choose_threads(load([])) == 1
    assert choose_threads(load(["model=smollm2_135m"])) == 4
    assert choose_threads(load([f"model.path={tmp_path / 'nowhere'}"])) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choose_threads(load([])) == 4, "what the user has said counts"


def test_a_run_keeps_the_number_in_its_config(tiny_config, machine, monkeypatch):
    heard = Progress()
    lines = []
    run = Run(
        tiny_config("engine.threads=0", "steps=1"),
        watch=lambda event, facts: lines.extend(heard.on_event(event, facts)),
    )
    run.execute()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["engine"]["threads"] == 1
    assert [line for line in lines if "CPU thread" in line] == ["1 CPU thread"]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert Run(resumed_config(run.folder), folder=run.folder).config.engine.threads == 1


def test_no_command_loads_torch_to_say_its_version():
    code = "import sys; from rlcsd.cli.main import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# ------------------------------------------------------------------ test_invariance
# One mini-batch of real rollouts of the tiny model, cut in several ways: the same gradient, in float32.


@pytest.mark.parametrize("name", EIGHT)
def test_the_gradient_of_real_rollouts_does_not_depend_on_the_cut(name, tiny_config):
    config = tiny_config(
        f"method={name}",
        "task.train_sizes=[3]",
        "task.train_per_size=8",
        "group_size=8",
        "sampling.max_tokens=128",
        "prompts_per_step=4",
        "prompts_per_update=4",
        "engine.self_check=false",
    )
    method = build_method(config)
    engine = LocalEngine(config, method)
    trainer = Trainer(prepare(config), engine)
    problems = trainer.problems(1)
    prompts = [training_prompt(engine.tokenizer, trainer.task, config, problem) for problem in problems]
    samples = engine.sample(prompts, config.group_size, config.sampling.settings(), 1)
    groups = grade(engine.tokenizer, trainer.task, problems, prompts, samples)
    rows = [row for group in trainer.hint(groups, 1).examples for row in group]
    assert len(rows) > 6
    batch = method.prepare(build_token_batch(engine, rows, method), 1)

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

"""`rlcsd eval model.path=RUN` measures the run on its own task, unless it is told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlcsd
from rlcsd import Problem, Task
from rlcsd.cli import main
from rlcsd.config.load import load, to_yaml
from rlcsd.run.chat import Chat
from rlcsd.run.folder import evaluation_config


@pytest.fixture
def run(tmp_path, monkeypatch):
    config = load(
        ["model=tiny_roll_call", "task=roll_call", "task.eval_per_size=7", "evaluation.sampling.max_tokens=77",
         "model.lora.rank=4", "model.thinking_eval=false"]
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    newest = tmp_path / "checkpoints" / "step_000003"
    monkeypatch.setattr("rlcsd.run.folder.latest_checkpoint", lambda folder: newest)
    return tmp_path, newest


def test_task_evaluation_and_model_are_the_runs(run):
    folder, newest = run
    found = evaluation_config([f"model.path={folder}"])
    assert (found.task.name, found.task.eval_per_size) == ("roll_call", 7)
    assert found.evaluation.sampling.max_tokens == 77
    assert found.model.path == str(newest) and not found.model.thinking_eval
    assert found.model.lora is None and found.method.name == "grpo" and found.kl_coefficient == 0


def test_overrides_change_parts_of_it_and_another_task_is_taken_whole(run):
    folder, _ = run
    found = evaluation_config([f"model.path={folder}", "task.eval_split=test", "evaluation.samples=3", "seed=5"])
    assert (found.task.name, found.task.eval_split, found.task.eval_per_size) == ("roll_call", "test", 7)
    assert (found.evaluation.samples, found.evaluation.sampling.max_tokens, found.seed) == (3, 77, 5)
    other = evaluation_config([f"model.path={folder}", "task=kk_tiny", "task.eval_per_size=9"])
    assert (other.task.name, other.task.eval_per_size) == ("kk_tiny", 9)


def test_parameters_that_only_the_task_of_the_run_has_may_change(run):
    folder, _ = run
    assert evaluation_config([f"model.path={folder}", "task.unseen_known=5"]).task.unseen_known == 5


def test_a_model_that_is_no_run_is_on_the_default_task():
    assert evaluation_config(["model.path=tiny"]).task.name == load([]).task.name


def test_a_task_given_from_python_is_never_taken_for_that_of_the_config(tiny_config, tmp_path, capsys):
    problems = [Problem(f"{n} + 1 = ?", str(n + 1)) for n in range(8)]
    task = Task("plus_one", problems, {"held_out": problems[:2]}, "exact", instruction="Answer with a number.")
    settings = ("steps=1", "sampling.max_tokens=8", "evaluation.sampling.max_tokens=8", "run_name=r")
    rlcsd.train(tiny_config(*settings), task=task, progress=False)
    run = str(tmp_path / "r")
    for command in (
        ["eval", f"model.path={run}"],
        ["train", "--resume", run],
        ["chat", run, "--problem", "seen_sizes:0"],
    ):
        assert main(command) == 2
        assert "its task, plus_one, was given from Python" in capsys.readouterr().err
    assert Chat(Path(run)).instruction == "Answer with a number."
    rlcsd.train(["steps=2"], task=task, resume=run, progress=False)
    assert (
        main(["eval", f"model.path={run}", "task=kk_tiny", "task.eval_per_size=2", "evaluation.sampling.max_tokens=8"])
        == 0
    )

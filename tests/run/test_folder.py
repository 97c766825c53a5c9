"""`rlcsd eval model.path=RUN` measures the run on its own task, unless it is told otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import rlcsd
from rlcsd import Problem, Task
from rlcsd.cli import main
from rlcsd.config.load import from_yaml, load, to_yaml
from rlcsd.evaluation import markdown_table
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


SETTINGS = (
    "steps=1",
    "engine.self_check=false",
    "evaluation.before=false",
    "method=grpo",
    "sampling.max_tokens=8",
    "evaluation.sampling.max_tokens=8",
    "run_name=r",
)
PROBLEMS = [Problem(f"{n} + 1 = ?", str(n + 1)) for n in range(8)]


def says(response, answer):
    return answer in response


def test_a_task_given_from_python_is_evaluated_asked_and_resumed_from_the_folder_alone(tiny_config, tmp_path, capsys):
    task = Task("plus_one", PROBLEMS, {"held_out": PROBLEMS[:2]}, says, instruction="Answer with a number.")
    trained = dict(rlcsd.train(tiny_config(*SETTINGS), task=task, progress=False))  # read before the folder moves
    run = tmp_path / "r"
    recorded = from_yaml(run / "config.yaml").task
    assert (recorded.name, recorded.origin, recorded.verifier) == (
        "plus_one", "given from Python", f"{Path(__file__).resolve()}:says"
    )  # fmt: skip
    assert "The task plus_one was given from Python" in (run / "report.md").read_text()
    moved = run.rename(tmp_path / "elsewhere")
    assert main(["eval", f"model.path={moved}", "--out", str(tmp_path / "out")]) == 0
    assert markdown_table(trained["after"]) in capsys.readouterr().out
    chat = Chat(moved, problem="held_out:1")
    assert chat.ask().question == "1 + 1 = ?" and chat.instruction == "Answer with a number."
    assert main(["train", "--resume", str(moved), "steps=2", "--progress", "off"]) == 0
    said = capsys.readouterr().err
    assert f"names code outside the package: task.verifier={Path(__file__).resolve()}:says" in said
    another = Task("plus_one", PROBLEMS[:4], {"held_out": PROBLEMS[:2]}, says)
    for again in (
        lambda: rlcsd.train(["steps=3"], task=another, resume=moved),
        lambda: rlcsd.evaluate(moved, task=another),
    ):
        with pytest.raises(rlcsd.InputError, match="its problems are not those of the run"):
            again()
    softer = replace(task, success=0.5)
    with pytest.raises(rlcsd.InputError, match=r"task.success=0.5: the run of .* has task.success=1.0"):
        rlcsd.train(["steps=3"], task=softer, resume=moved, progress=False)


def test_a_verifier_that_cannot_be_imported_is_asked_for_again(tiny_config, tmp_path, capsys):
    task = Task("plus_one", PROBLEMS, {"held_out": PROBLEMS[:2]}, lambda response, answer: answer in response)
    trained = dict(rlcsd.train(tiny_config(*SETTINGS), task=task, progress=False))  # read before the folder moves
    run = str(tmp_path / "r")
    commands = (["eval", f"model.path={run}"], ["train", "--resume", run], ["chat", run, "--problem", "held_out:0"])
    for command in (*commands, ["train", "--resume", run, "--dry-run"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "cannot be rebuilt from the folder" in said and "like a lambda" in said
        assert "rlcsd.evaluate(RUN, task=…)" in said
    assert rlcsd.evaluate(run, task=task, progress=False) == trained["after"]
    rlcsd.train(["steps=2"], task=task, resume=run, progress=False)
    slots = list(task.verifier.pool.idle.queue)
    assert slots and all(slot.process is None for slot in slots), "the verifier's processes end with a run"
    assert evaluation_config([f"model.path={run}", "task=kk_tiny"]).task.name == "kk_tiny"


def test_a_task_given_to_an_evaluation_of_a_plain_model_is_taken(tmp_path):
    task = Task("plus_one", PROBLEMS, {"held_out": PROBLEMS[:2]}, "exact")
    (found,) = rlcsd.evaluate("tiny", ["evaluation.sampling.max_tokens=8", "task.success=0.5"], task, progress=False)
    assert (found.name, found.problems) == ("held_out", 2)

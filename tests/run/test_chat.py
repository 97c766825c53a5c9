"""A run's base and its trained model, asked side by side."""

from __future__ import annotations

import io
import json

import pytest

import rlcsd
from rlcsd.cli import main
from rlcsd.config.load import load, to_yaml
from rlcsd.run import Run
from rlcsd.run.chat import Chat
from tests.conftest import untrained_checkpoint

GREEDY = ["evaluation.sampling.temperature=0", "evaluation.sampling.max_tokens=24"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    config = load(
        ["steps=2", "save_every=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=3", "method=grpo",
         "task.train_per_size=4", "task.eval_per_size=2", "task.unseen_sizes=[]", "sampling.max_tokens=16",
         "evaluation.sampling.max_tokens=16", "evaluation.before=false", "trackers=[]", "figures=false",
         "entropy_coefficient=1.0", "learning_rate=1e-2", "warmup_steps=0", f"output_dir={folder}", "run_name=r",
         "engine.threads=1"]
    )  # fmt: skip
    Run(config).execute()
    return folder / "r"


def test_a_list_is_changed_as_a_whole_or_refused_in_a_sentence(run, capsys):
    assert main(["chat", str(run), "Who?", "task.train_sizes.0=4"]) == 2
    assert "a list is given whole, KEY=[a,b]" in capsys.readouterr().err


def test_both_answer_a_question(run, capsys):
    assert main(["chat", str(run), "Alice says Bob is a knave. Who is who?", *GREEDY]) == 0
    shown = capsys.readouterr().out
    assert "--- base (tiny)" in shown
    assert "--- trained (step_000002)" in shown


def test_a_problem_of_the_task_is_judged_and_each_model_is_its_own(run, capsys):
    assert main(["chat", str(run), "--problem", "seen_sizes:1", "--json", *GREEDY]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert answers["reference"]
    assert isinstance(answers["base"]["correct"], bool)
    assert answers["base"]["response"] != answers["trained"]["response"], "the training was harsh"
    assert main(["chat", str(run), "--problem", "seen_sizes:1", "--json", "--step", "1", *GREEDY]) == 0
    assert json.loads(capsys.readouterr().out)["base"] == answers["base"]
    chat = Chat(run, [*GREEDY, "engine.self_check=false"], problem="seen_sizes:1")
    chat.trained = chat.base
    other = chat.ask("Who is a knave?")
    assert other.reference is None and other.correct is None


def test_questions_come_from_a_pipe(run, capsys, monkeypatch):
    bytes_that_are_no_text = io.BytesIO(b"One?\n\nTw\xf6?\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(bytes_that_are_no_text, encoding="utf-8"))
    assert main(["chat", str(run), "--json", *GREEDY]) == 0
    assert [json.loads(line)["question"] for line in capsys.readouterr().out.splitlines()] == ["One?", "Tw\ufffd?"]
    monkeypatch.setattr("sys.stdin", io.StringIO("One?\n\nTwo?\n"))
    assert main(["chat", str(run), *GREEDY]) == 0
    shown = capsys.readouterr().out
    assert shown.index("? One?") < shown.index("--- base") < shown.index("--- trained") < shown.index("? Two?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step", "7", "Who?"], "checkpoints of the steps 1, 2"),
        (["--problem", "nowhere:1"], "the sets are seen_sizes"),
        (["--problem", "seen_sizes:9"], "problems 0 to 1"),
        (["Who?", "--problem", "seen_sizes:0"], "either a question or a problem"),
        (["Who?", "evaluation.sampling.max_tokens=100000"], "context"),
        (["Who?", "evaluation.samplin=3"], "evaluation.sampling"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(run, arguments, words, capsys):
    assert main(["chat", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_no_run_is_one_sentence(tmp_path, capsys):
    assert main(["chat", str(tmp_path), "Who?"]) == 2
    assert "there is no run here" in capsys.readouterr().err


def test_a_task_in_a_file_says_itself_how_it_asks(tmp_path):
    folder = tmp_path / "bob's run"
    untrained_checkpoint(folder)
    (tmp_path / "mine.py").write_text(
        "from rlcsd import Problem, Task\n"
        "def task():\n"
        "    return Task('t', [Problem('1?', '1')], {'test': [Problem('2?', '2')]}, 'exact', instruction='A number.',\n"
        "                system_prompt='Be brief.')\n"
    )
    config = load([f"task={tmp_path / 'mine.py'}:task", "evaluation.sampling.max_tokens=4"])
    (folder / "config.yaml").write_text(to_yaml(config))
    chat = Chat(folder)
    assert (chat.instruction, chat.system_prompt) == ("A number.", "Be brief.")
    (measured,) = rlcsd.evaluate(folder, progress=False)
    assert measured.name == "test"

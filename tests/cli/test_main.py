"""The command line as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rlcsd
from rlcsd.cli import main

QUICK = ["steps=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=3", "task.train_per_size=4", "task.eval_per_size=2",
         "sampling.max_tokens=32", "evaluation.sampling.max_tokens=32", "trackers=[]", "figures=false"]  # fmt: skip


def test_data_with_a_byte_order_mark_or_odd_line_separators_is_read(tmp_path):
    from rlcsd.tasks.own_data import FileParameters, read_problems

    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfquestion,answer\nWhy?,42\n")
    (tmp_path / "a.jsonl").write_text('{"question": "a\u2028b", "answer": 42}\n', encoding="utf-8")
    parameters = FileParameters(name="x", train="")
    assert read_problems("f", str(tmp_path / "a.csv"), parameters)[0].answer == "42"
    assert read_problems("f", str(tmp_path / "a.jsonl"), parameters)[0].question == "a\u2028b"


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("method", "def oops(:\n", "SyntaxError"),
        ("method", "import nowhere_at_all\n", "ModuleNotFoundError"),
        ("task", "def Mine():\n    raise KeyError('x')\n", "KeyError"),
        ("task", "def Mine(path):\n    return path\n", "TypeError"),
        ("task", "Mine = 3\n", "no such rlcsd.Task"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_reason(kind, code, words, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    assert main(["train", f"{kind}={tmp_path}/mine.py:Mine", f"output_dir={tmp_path}/runs"]) == 2
    assert words in capsys.readouterr().err


def test_a_plugin_may_postpone_its_annotations(tmp_path):
    from rlcsd.methods import method_class

    (tmp_path / "late.py").write_text(
        "from __future__ import annotations\nfrom typing import Literal\nfrom rlcsd.methods import MethodConfig, CreditMethod\n"
        "class C(MethodConfig):\n    mode: Literal['a', 'b'] = 'a'\n"
        "class Late(CreditMethod):\n    Config = C\n    def advantages(self, log_prob, batch):\n        return batch.advantage\n"
    )
    assert method_class(f"{tmp_path}/late.py:Late").from_fields(mode="b").config.mode == "b"


def test_train_then_eval_its_checkpoint(tmp_path, capsys):
    assert main(["train", *QUICK, f"output_dir={tmp_path}/runs", "run_name=mine"]) == 0
    shown = capsys.readouterr().out
    assert "held-out accuracy" in shown
    assert "tokens/s" in shown
    checkpoint = tmp_path / "runs/mine/checkpoints/step_000001"
    assert checkpoint.is_dir()
    # The run's folder stands for its newest checkpoint.
    assert main(["eval", *QUICK, f"model.path={tmp_path}/runs/mine", "--out", str(tmp_path / "eval")]) == 0
    assert "| seen_sizes (3 people) |" in capsys.readouterr().out
    assert f"path: {checkpoint}" in (tmp_path / "eval/config.yaml").read_text()
    sets = json.loads((tmp_path / "eval/eval.json").read_text())
    assert {s["name"] for s in sets} >= {"seen_sizes", "unseen_sizes"}
    assert len((tmp_path / "eval/samples.jsonl").read_text().splitlines()) == 3 * 2
    assert main(["train", *QUICK, f"output_dir={tmp_path}/runs", "run_name=mine"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_inspect_shows_the_signal_by_kind_of_token(capsys, tmp_path):
    assert (
        main(
            [
                "inspect",
                "--problems",
                "8",
                "--figure",
                str(tmp_path / "s.png"),
                "task.train_per_size=8",
                "task.eval_per_size=2",
            ]
        )
        == 0
    )
    rows = [
        line.split("|")[1:-1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("| conclusion", "| style"))
    ]
    contrast = {(kind.strip(), target.strip()): float(e) for kind, target, _, _, _, e, _ in rows[:4]}
    assert contrast["conclusion", "correct"] > 0.5
    assert contrast["conclusion", "wrong"] < -0.5
    assert abs(contrast["style", "correct"]) < 0.1
    assert (tmp_path / "s.png").stat().st_size > 0


def test_a_dry_run_samples_nothing(capsys, tmp_path):
    assert main(["train", "--dry-run", f"output_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("task ")
    assert "steps " in shown
    assert "learning_rate:" not in shown
    assert not (tmp_path / "runs").exists()


def test_data_is_written_whole_and_serves_as_a_task(tmp_path, capsys):
    out = tmp_path / "kk"
    arguments = [
        "data",
        "kk",
        "--out",
        str(out),
        "--sizes",
        "3",
        "--unseen",
        "4",
        "--train",
        "5",
        "--test",
        "3",
        "--processes",
        "1",
    ]
    assert main(arguments) == 0
    assert "| train.jsonl | 5 |" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    assert [row["size"] for row in rows] == [3, 3, 3, 4, 4, 4]
    (out / "mine.txt").write_text("thesis")
    assert main(arguments) == 2
    assert "already there" in capsys.readouterr().err
    assert (out / "mine.txt").read_text() == "thesis"
    again = [str(tmp_path / "again") if part == str(out) else part for part in arguments]
    assert main(again) == 0
    assert (tmp_path / "again/train.jsonl").read_bytes() == (out / "train.jsonl").read_bytes()


def test_a_failed_build_leaves_no_folder(tmp_path, capsys):
    assert (
        main(["data", "kk", "--out", str(tmp_path / "kk"), "--sizes", "2", "--train", "100000", "--processes", "1"])
        == 2
    )
    assert "essentially different puzzles" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_config_list_and_show(capsys):
    assert main(["config", "list"]) == 0
    assert "rlsd_ectr" in capsys.readouterr().out
    assert main(["config", "show", "method=grpo"]) == 0
    assert "name: grpo" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "data",
            "kk",
            "--out",
            "x" * 300,
            "--sizes",
            "3",
            "--unseen",
            "4",
            "--train",
            "1",
            "--test",
            "1",
            "--processes",
            "1",
        ],
        ["eval", "--out", "x" * 300],
        ["train", "task=files", "task.train=" + "x" * 300 + ".jsonl"],
        ["train", f"output_dir={__file__}", *QUICK],
    ],
)
def test_a_path_that_cannot_be_is_one_sentence(arguments, capsys):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_overrides_may_stand_behind_an_option(capsys):
    assert main(["train", "seed=3", "--dry-run", "--verbose", "steps=7"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 3" in shown
    assert "steps: 7" in shown
    with pytest.raises(SystemExit):
        main(["train", "--dry-run", "nonsense", "--else"])


# ------------------------------------------------------------------ test_version
# `rlcsd --version`, and what a type checker of a user finds.


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"rlcsd {rlcsd.__version__}\n"


def test_the_package_is_typed():
    assert (Path(rlcsd.__file__).parent / "py.typed").is_file()

"""The published parquet layout, read and written."""

from __future__ import annotations

import json

import numpy
import pyarrow
import pyarrow.parquet as parquet
import pytest

from rlcsd.cli import main
from rlcsd.errors import InputError
from rlcsd.tasks.parquet_layout import from_row, read_layout, to_rows
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.task import Problem

AUTHORS = {  # a row as others write it: instruction in the prompt, no `group`
    "data_source": "aime24",
    "prompt": [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": r"What is 1+1? Answer in \boxed{}."},
    ],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 0, "problem": "What is 1+1?", "solution": r"It is \boxed{2}."},
}


def write(path, rows):
    path.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_what_is_written_is_read_again(tmp_path):
    problems = [
        Problem("What is 2+2?", "4", "four", "easy", {"size": 1}),
        Problem("What is 2+3?", "5", None, "easy", {"size": 2}),
    ]
    write(tmp_path / "sums/val.parquet", to_rows(problems, "sums", "math", "test"))
    read = read_layout("task.evaluation", str(tmp_path), "sums", "val")
    assert list(read) == ["sums"]
    assert [(p.question, p.answer, p.solution, p.group) for p in read["sums"]] == [
        (p.question, p.answer, p.solution, p.group) for p in problems
    ]


def test_rows_carry_the_columns_that_verl_reads():
    row = to_rows([Problem("Q?", "7")], "mine", "math", "train")[0]
    assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert row["prompt"][0]["role"] == "user"
    assert row["prompt"][0]["content"].startswith("Q?")
    assert "\\boxed" in row["prompt"][0]["content"]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "7"}
    assert row["extra_info"]["index"] == 0


def test_a_row_by_others_is_read_with_and_without_its_bare_problem():
    assert from_row("row", AUTHORS) == (
        "aime24",
        Problem("What is 1+1?", "2", r"It is \boxed{2}.", "aime24", AUTHORS, (("system", "Be exact."),)),
    )
    bare = {**AUTHORS, "extra_info": {"index": 0}}
    assert from_row("row", bare)[1].question == r"What is 1+1? Answer in \boxed{}."


def test_sets_that_share_a_file_are_evaluated_apart(tmp_path):
    write(tmp_path / "train_me/train.parquet", [AUTHORS])
    write(tmp_path / "a+b/val.parquet", [{**AUTHORS, "data_source": "a"}, {**AUTHORS, "data_source": "b"}])
    task = build_task({"kind": "verl", "name": "t", "root": str(tmp_path), "train": "train_me", "evaluation": "a+b"})
    assert list(task.evaluations) == ["a", "b"]
    assert task.verifier(r"\boxed{\frac{4}{2}}", task.train[0].answer)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reward_model": "2"}, "'reward_model' must be a struct"),
        ({"reward_model": {"style": "rule", "ground_truth": " "}}, "the answer must be"),
        ({"prompt": [], "extra_info": {}}, "no user message"),
        ({"extra_info": 3}, "'extra_info' must be a struct"),
        ({"data_source": None}, "'data_source' must be a str"),
    ],
)
def test_a_row_that_is_not_of_the_layout_is_named(changed, said):
    with pytest.raises(InputError, match=said) as error:
        from_row("file: row 3", {**AUTHORS, **changed})
    assert str(error.value).startswith("file: row 3")


LOGIC_RL = {"solution_text_format": "(1) Ann is a knave\n(2) Bo is a knight", "statements": "(('says', 0), )"}


@pytest.mark.parametrize(
    ("ground_truth", "answer"),
    [
        (LOGIC_RL, LOGIC_RL["solution_text_format"]),
        (json.dumps(LOGIC_RL), LOGIC_RL["solution_text_format"]),
        ([LOGIC_RL], LOGIC_RL["solution_text_format"]),
        (["34"], "34"),
        ('["34"]', "34"),
        ([[34.0]], "34"),
        ({"target": ["x"], "numbers": None}, "x"),
        ({"answer": 0.5, "unit": "m"}, "0.5"),
        ({"answer": None, "solution": "7"}, "7"),
        ({"answer": {"value": "7"}}, "7"),
        ("[3]", "[3]"),
        ('{"Ann": "knight"}', '{"Ann": "knight"}'),
        (34, "34"),
        (0.5, "0.5"),
    ],
)
def test_a_ground_truth_may_be_a_struct_a_list_of_one_or_json_of_these(ground_truth, answer):
    changed = {**AUTHORS, "reward_model": {"style": "rule", "ground_truth": ground_truth}}
    assert from_row("row", changed)[1].answer == answer
    assert from_row("row", {**changed, "reward_model": json.dumps(changed["reward_model"])})[1].answer == answer


@pytest.mark.parametrize(
    ("ground_truth", "said"),
    [
        ({"target": 98, "numbers": [44, 19, 35]}, "the answer must be in one of the fields answer, .* of ground_truth, "
         "which has target, numbers"),
        ({}, "which has none"),
        (["1", "2"], "ground_truth must have one answer, not 2"),
        ([], "ground_truth must have one answer, not 0"),
        (None, "the answer must be a text"),
        ({"answer": [True]}, "the answer must be a text"),
    ],
)  # fmt: skip
def test_a_ground_truth_without_one_answer_is_named(ground_truth, said):
    with pytest.raises(InputError, match=f"^row: .*{said}"):
        from_row("row", {**AUTHORS, "reward_model": {"ground_truth": ground_truth}})


def test_rows_of_pandas_have_arrays_of_numpy():
    row = {
        **AUTHORS,
        "prompt": numpy.array(AUTHORS["prompt"], dtype=object),
        "reward_model": {"style": "rule", "ground_truth": numpy.array([numpy.float32(0.1)])},
        "extra_info": {"index": numpy.int64(0)},
    }
    _, problem = from_row("row", row)
    assert (problem.history, problem.answer) == ((("system", "Be exact."),), "0.1")
    assert problem.extra["extra_info"] == {"index": 0}


def test_logic_rl_is_a_task_of_knights_and_knaves(tmp_path):
    chat = [{"role": "user", "content": "Who is who?"}]
    row = {"data_source": "kk_logic", "prompt": chat, "reward_model": {"style": "rule", "ground_truth": LOGIC_RL}}
    write(tmp_path / "kk/train.parquet", [row] * 2)
    values = {"root": str(tmp_path), "train": "kk", "verifier": "knights_and_knaves"}
    task = build_task({"kind": "verl", "name": "kk", **values})
    ((right, wrong),) = task.judge(
        task.train[:1], [("\\boxed{Ann is a knave, Bo is a knight}", "\\boxed{Ann is a knight, Bo is a knight}")]
    )
    assert right.correct and not wrong.correct


@pytest.mark.parametrize(
    "prompt",
    [
        json.dumps(AUTHORS["prompt"]),
        [json.dumps(message) for message in AUTHORS["prompt"]],
        {"role": ["system", "user"], "content": [message["content"] for message in AUTHORS["prompt"]]},
        [AUTHORS["prompt"]],
    ],
)
def test_columns_may_be_json_and_prompts_any_chat(prompt):
    parts = {name: json.dumps(AUTHORS[name]) for name in ("reward_model", "extra_info")}
    problem = from_row("row", {**AUTHORS, **parts, "prompt": prompt})[1]
    assert problem == Problem(
        "What is 1+1?", "2", r"It is \boxed{2}.", "aime24", {**AUTHORS, "prompt": prompt}, (("system", "Be exact."),)
    )
    assert from_row("row", {**AUTHORS, "prompt": "1?", "extra_info": None})[1].question == "1?"


def test_a_missing_file_or_column_is_one_sentence(tmp_path, capsys):
    assert main(["train", "task=math_deepmath", f"task.root={tmp_path}"]) == 2
    assert "rlcsd data" in capsys.readouterr().err
    write(tmp_path / "x/train.parquet", [{"question": "Q", "answer": "1"}])
    assert main(["train", "task=verl", f"task.root={tmp_path}", "task.train=x", "--dry-run"]) == 2
    assert "no column 'reward_model'" in capsys.readouterr().err


def test_puzzles_in_the_layout_are_a_task(tmp_path, capsys):
    command = [
        "data",
        "kk",
        "--format",
        "verl",
        "--out",
        str(tmp_path),
        "--sizes",
        "3,4",
        "--unseen",
        "5",
        "--train",
        "4",
        "--test",
        "2",
    ]
    assert main([*command, "--processes", "1"]) == 0
    assert "| train.parquet | 8 |" in capsys.readouterr().out
    values = {
        "root": str(tmp_path),
        "train": "kk_3to4",
        "evaluation": "kk_3to4_test+kk_5",
        "verifier": "knights_and_knaves",
    }
    task = build_task({"kind": "verl", "name": "kk", **values})
    assert {name: len(problems) for name, problems in task.evaluations.items()} == {"kk_3to4_test": 4, "kk_5": 2}
    assert task.verifier(task.train[0].solution, task.train[0].answer)
    assert main([*command, "--processes", "1"]) == 2
    assert "already there" in capsys.readouterr().err

"""Data of one's own as it comes: gaps, numbers of other types, nested columns, doubled names."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from rlcsd import InputError, Problem, Task
from rlcsd.tasks.own_data import checked_problem
from rlcsd.tasks.registry import build_task

pyarrow = pytest.importorskip("pyarrow")


def built(path, **values):
    return build_task({"name": "files", "train": str(path), **values})


def parquet(path, **columns):
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("answer", "text"),
    [(3, "3"), (3.0, "3"), (-0.0, "0"), (2.5, "2.5"), (Decimal("3.00"), "3"), (Decimal("0.10"), "0.10"),
     (1e300, "1e+300"), (2**70, str(2**70)), (" 7 ", " 7 ")],
)  # fmt: skip
def test_an_answer_is_a_number_as_a_model_would_write_it(answer, text):
    assert checked_problem("row", "1?", answer, None).answer == text


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), Decimal("NaN"), True, None, [3], b"3"])
def test_what_is_no_answer_is_named(answer):
    with pytest.raises(InputError, match="row: the answer must be a text or a number that is not empty, not"):
        checked_problem("row", "1?", answer, None)


def test_a_parquet_file_with_gaps_and_nested_columns(tmp_path):
    path = parquet(
        tmp_path / "a.parquet",
        question=["1 + 2?", "2 + 2?"],
        answer=pyarrow.array([3.0, 4.0]),
        solution=[None, "2 + 2 = 4"],
        tags=[["a", "b"], []],
        about=[{"when": datetime.date(2026, 1, 1), "points": [1, None]}, None],
    )
    task = built(path, solution="solution")
    assert [problem.answer for problem in task.train] == ["3", "4"]
    assert [problem.solution for problem in task.train] == [None, "2 + 2 = 4"]
    assert task.train[0].extra["about"]["points"] == [1, None]
    assert task.judge(task.train, [("\\boxed{3}",), ("\\boxed{3}",)])[0][0].correct


def test_a_chat_in_a_parquet_file_may_have_columns_of_its_own(tmp_path):
    chat = [{"role": "system", "content": "Add.", "name": None}, {"role": "user", "content": "1 + 2?", "name": "Ann"}]
    problem = built(parquet(tmp_path / "a.parquet", question=[chat], answer=["3"])).train[0]
    assert (problem.history, problem.question) == ((("system", "Add."),), "1 + 2?")


def test_a_cell_of_a_csv_file_may_hold_a_chat(tmp_path):
    (tmp_path / "a.csv").write_text(
        'question,answer\n"[{""role"": ""system"", ""content"": ""Add.""}, {""role"": ""user"", ""content"": ""1?""}]",2\n'
        '"[{""x"": 1}] has how many keys?",1\n'
    )
    chat, text = built(tmp_path / "a.csv").train
    assert (chat.history, chat.question) == ((("system", "Add."),), "1?")
    assert (text.history, text.question) == ((), '[{"x": 1}] has how many keys?')


@pytest.mark.parametrize("name", ["average", "sums: hard", " ", 3])
def test_a_set_whose_name_means_something_else_is_refused(name):
    problems = [Problem("1?", "1")]
    with pytest.raises(InputError, match="an evaluation set cannot be called"):
        Task("t", problems, {name: problems}, "exact")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question,answer,answer\n1?,1,2\n", "two columns are called 'answer'"),
        ("question,answer\n1?\n", "row 0: the answer must be a text"),
        ("question;answer\n1?;1\n", "row 0 has no column 'question'; it has question;answer"),
    ],
)
def test_a_csv_file_that_cannot_be_meant_is_refused(text, said, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        built(tmp_path / "a.csv")

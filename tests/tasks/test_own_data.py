"""Data of one's own as it comes: chats in every form that tables give them, gaps, numbers of other types."""

from __future__ import annotations

import csv
import datetime
import json
import re
from decimal import Decimal

import numpy
import pytest

from rlcsd import InputError, Problem, Task
from rlcsd.tasks.cells import checked_problem
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.tabular import read_rows
from rlcsd.tasks.task import overlaps

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


CHAT = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1?"}]
PARTS = [{"role": "system", "content": "Add."}, {"role": "user", "content": [{"type": "text", "text": "1?"}]}]


@pytest.mark.parametrize(
    "cell",
    [
        CHAT,
        PARTS,
        tuple(CHAT),
        [CHAT],
        {"messages": CHAT},
        {"messages": json.dumps(CHAT)},
        {"role": ["system", "user"], "content": ["Add.", "1?"]},
        [{"role": ["system", "user"], "content": ["Add.", "1?"], "name": None}],
        [{**message, "name": None, "tool_calls": None} for message in CHAT],
        json.dumps(CHAT),
        json.dumps(CHAT, indent=2),
        json.dumps(PARTS),
        json.dumps({"messages": CHAT}),
        json.dumps([CHAT]),
        [json.dumps(CHAT)],
        [json.dumps(message) for message in CHAT],
        numpy.array(CHAT, dtype=object),
        str(CHAT),
        str({"messages": CHAT}),
    ],
    ids=str,
)
def test_a_chat_is_read_however_a_table_holds_it(cell):
    problem = checked_problem("row", cell, "2", None)
    assert (problem.history, problem.question) == ((("system", "Add."),), "1?")


@pytest.mark.parametrize("cell", ['{"role": "user", "content": "1?"}', {"role": "user", "content": "1?"}])
def test_one_message_is_a_chat(cell):
    assert checked_problem("row", cell, "2", None) == Problem("1?", "2")


@pytest.mark.parametrize(
    "text", ['[{"x": 1}]', '{"a": 1}', "[1, 2]", '[{"x": 1}] has how many keys?', "{not JSON", '["a"]', '"1?"', "[]"]
)
def test_a_text_that_is_json_and_no_chat_is_the_question(text):
    assert checked_problem("row", text, "2", None) == Problem(text, "2")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (None, "the question must be a text that is not empty, or a chat, not None"),
        ([], "a chat is a list of messages"),
        ([1, 2], "a message of a chat has a role and a content"),
        ({"role": ["user"], "content": []}, "the question must be a text"),
        ('[{"role": "user"}]', "a message of a chat has a role and a content"),
        ('[{"role": "user", "content": "1?"}, {"role": "assistant", "content": "2"}]', "must be the user's"),
        ([{"role": "user", "content": None}], "the content of a message must be text"),
        ([None], "a message of a chat has a role and a content"),
        (str(numpy.array(CHAT, dtype=object)), "the question is a chat as Python prints it; write it as JSON"),
    ],
)
def test_what_is_neither_a_text_nor_a_chat_is_named(cell, said):
    with pytest.raises(InputError, match=f"row: .*{said}"):
        checked_problem("row", cell, "2", None)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "parquet-json"])
def test_every_format_reads_a_chat_as_json(format, tmp_path):
    texts = [json.dumps(CHAT), '[{"x": 1}] has how many keys?']
    path = tmp_path / f"a.{format.partition('-')[0]}"
    if format == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["question", "answer"], *([text, "2"] for text in texts)])
    elif format == "jsonl":
        path.write_text("".join(json.dumps({"question": text, "answer": 2}) + "\n" for text in texts))
    elif format == "parquet":
        parquet(path, question=pyarrow.array(texts).dictionary_encode(), answer=[2, 2])
    else:
        column = pyarrow.array([texts[0], json.dumps(texts[1])]).cast(pyarrow.json_())
        parquet(path, question=column, answer=pyarrow.array(["2", '"2"']).cast(pyarrow.json_()))
    chat, text = built(path).train
    assert (chat.history, chat.question, chat.answer) == ((("system", "Add."),), "1?", "2")
    assert (text.history, text.question, text.answer) == ((), texts[1], "2")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (numpy.float32(0.1), "0.1"),
        (numpy.float16(0.1), "0.1"),
        (numpy.float64(0.1), "0.1"),
        (numpy.float32(3), "3"),
        (numpy.int64(7), "7"),
        (numpy.str_("x"), "x"),
        (numpy.array(5), "5"),
    ],
)
def test_a_scalar_of_numpy_is_the_number_that_it_shows(answer, text):
    assert checked_problem("row", "1?", answer, None, answer) == Problem("1?", text, None, text)


@pytest.mark.parametrize("answer", [numpy.bool_(True), numpy.float32("nan"), numpy.array([5])])
def test_what_is_no_answer_in_numpy_is_named(answer):
    with pytest.raises(InputError, match="row: the answer must be"):
        checked_problem("row", "1?", answer, None)


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


# ------------------------------------------------------------------ Task.from_rows


ROWS = [{"q": f"{a} + {b} = ?", "a": a + b, "why": None if a else "zero"} for a in range(5) for b in range(5)]


@pytest.mark.parametrize("kind", ["list", "dataset", "frame"])
def test_a_task_from_rows_of_any_table(kind):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    table = {"list": ROWS, "dataset": datasets.Dataset.from_list(ROWS), "frame": pandas.DataFrame(ROWS)}[kind]
    columns = {"question": "q", "answer": "a", "solution": "why"}
    task = Task.from_rows("sums", table, **columns, test_fraction=0.2, evaluations={"more": table}, instruction="Add.")
    assert (len(task.train), len(task.evaluations["test"]), len(task.evaluations["more"])) == (20, 5, 25)
    problem = next(p for p in task.evaluations["more"] if p.question == "1 + 2 = ?")
    assert (problem.answer, problem.solution, task.instruction) == ("3", None, "Add.")
    assert {p.question for p in task.train} | {p.question for p in task.evaluations["test"]} == {r["q"] for r in ROWS}
    again = Task.from_rows(
        "sums", ROWS[::-1], **columns, test_fraction=0.2
    )  # the split is one of problems, not of rows
    assert {p.question for p in again.train} == {p.question for p in task.train}
    other = Task.from_rows("sums", ROWS, **columns, test_fraction=0.2, seed=1)
    assert {p.question for p in other.train} != {p.question for p in task.train}


@pytest.mark.parametrize("kind", ["pandas", "pandas with gaps", "dataset", "torch dataset", "polars", "tensors"])
@pytest.mark.parametrize("width", ["float16", "float32"])
def test_a_number_of_few_bits_is_the_one_that_was_written(kind, width):
    torch, values = pytest.importorskip("torch"), [0.1, 3.0]
    if "pandas" in kind:
        dtype = {"float32": "Float32", "float16": "float16[pyarrow]"}[width] if "gaps" in kind else width
        table = pytest.importorskip("pandas").DataFrame({"question": ["1?", "3?"], "answer": values})
        table = table.astype({"answer": dtype})
    elif "dataset" in kind:
        table = pytest.importorskip("datasets").Dataset(
            pyarrow.table({"question": ["1?", "3?"], "answer": pyarrow.array(values, getattr(pyarrow, width)())})
        )
        table = table.with_format("torch" if "torch" in kind else None)
    elif kind == "polars":
        polars = pytest.importorskip("polars")
        answers = polars.Series(values, dtype={"float32": polars.Float32, "float16": polars.Float16}[width])
        table = polars.DataFrame({"question": ["1?", "3?"], "answer": answers})
    else:
        table = [{"question": "1?", "answer": torch.tensor(n, dtype=getattr(torch, width))} for n in values]
    assert [problem.answer for problem in Task.from_rows("t", table).train] == ["0.1", "3"]


def test_a_question_under_another_system_prompt_is_the_same_question():
    rows = [
        {"question": [{"role": "system", "content": system}, {"role": "user", "content": f"{n}?"}], "answer": n}
        for n in range(8)
        for system in ("Add.", "Think.")
    ]
    task = Task.from_rows("twice", rows, test_fraction=0.5)
    assert not {p.question for p in task.train} & {p.question for p in task.evaluations["test"]}
    (found,) = overlaps(task.train, {"plain": [Problem(task.train[0].question, "1"), Problem("9?", "9")]})
    assert (found.exact, found.normalised) == (1, 1)


def test_a_question_that_is_asked_twice_is_on_one_side_of_the_split():
    rows = [{"question": f"What is {n}?".upper() if n % 2 else f"what is {n}", "answer": "x"} for n in [*range(20)] * 2]
    rows += [{"question": row["question"].lower(), "answer": "x"} for row in rows]
    task = Task.from_rows("twice", rows, test_fraction=0.25)
    assert not any(found.normalised for found in overlaps(task.train, task.evaluations))
    assert len(task.evaluations["test"]) == 20


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([], {}, "there are no rows"),
        ({"train": ROWS}, {}, "rows['train']"),
        (["x"], {}, "row 0 must be a mapping"),
        (7, {}, "a list of mappings, a datasets.Dataset or a DataFrame"),
        (ROWS, {}, "row 0 has no column 'question'; it has q, a, why"),
        ([{"question": "x", "answer": float("nan")}], {}, "row 0: the answer must be"),
        ([{"question": "x", "answer": "y"}], {"test_fraction": 1.5}, "between 0 and 1, not 1.5"),
        ([{"question": "x", "answer": "y"}], {"test_fraction": 0.5}, "leaves nothing to train on"),
    ],
)
def test_rows_that_are_no_task_are_one_sentence(rows, options, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        Task.from_rows("mine", rows, **options)


@pytest.mark.parametrize("text", ['[{"q": "x"}, {"q": "y"}]', '{"version": 1, "data": [{"q": "x"}, {"q": "y"}]}',
                                  '{"q": "x"}\n{"q": "y"}\n'])  # fmt: skip
def test_a_json_file_holds_a_list_of_objects(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    assert [row["q"] for row in read_rows("task.train", str(tmp_path / "rows.json"))] == ["x", "y"]
    for wrong, sentence in (("[1]", "one list of objects"), ('{"a": [{}], "b": [{}]}', "one list"), ("[{", "not JSON")):
        (tmp_path / "rows.json").write_text(wrong)
        with pytest.raises(InputError, match=sentence):
            read_rows("task.train", str(tmp_path / "rows.json"))

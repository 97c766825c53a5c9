"""Rows of tables: what a column's type adds to its values is taken away."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rlcsd import InputError
from rlcsd.tasks.registry import build_task
from rlcsd.tasks.tabular import read_rows, write_dataset

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def written(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


FLOAT32 = pyarrow.float32()
NUMBERS = {
    "half": (pyarrow.array([0.1, None, 3], pyarrow.float16()), [0.1, None, 3.0]),
    "single": (pyarrow.array([0.1, None, 1e-7], FLOAT32), [0.1, None, 1e-7]),
    "double": (pyarrow.array([0.1, None, 1e300]), [0.1, None, 1e300]),
    "decimal": (
        pyarrow.array([Decimal("0.1"), None, Decimal("1200")], pyarrow.decimal128(12, 4)),
        [Decimal("0.1"), None, Decimal("1200")],
    ),
    "dictionary": (pyarrow.array([0.1, None, 0.1], FLOAT32).dictionary_encode(), [0.1, None, 0.1]),
    "list": (pyarrow.array([[0.1, None], None, []], pyarrow.list_(FLOAT32)), [[0.1, None], None, []]),
    "large list": (pyarrow.array([[0.1], None, []], pyarrow.large_list(FLOAT32)), [[0.1], None, []]),
    "fixed list": (pyarrow.array([[0.1, 0.2], None, [1, 2]], pyarrow.list_(FLOAT32, 2)), [[0.1, 0.2], None, [1, 2]]),
    "struct": (
        pyarrow.array([{"x": 0.1, "y": "a"}, None, {"x": None, "y": "b"}], pyarrow.struct({"x": FLOAT32, "y": "string"})),
        [{"x": 0.1, "y": "a"}, None, {"x": None, "y": "b"}],
    ),
    "list of structs": (
        pyarrow.array([[{"x": 0.1}], None, []], pyarrow.list_(pyarrow.struct({"x": FLOAT32}))), [[{"x": 0.1}], None, []]
    ),
    "map": (pyarrow.array([[("a", 0.1)], None, []], pyarrow.map_("string", FLOAT32)), [{"a": 0.1}, None, {}]),
    "bytes": (pyarrow.array(["é".encode(), None, b"\xff"]), ["é", None, b"\xff"]),
    "large text": (pyarrow.array(["a", None, ""], pyarrow.large_string()), ["a", None, ""]),
    "json": (pyarrow.array(['{"a": [0.1]}', None, '"text"']).cast(pyarrow.json_()), [{"a": [0.1]}, None, "text"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_a_column_holds_plain_values_whatever_its_type(name, tmp_path):
    column, values = NUMBERS[name]
    rows = read_rows("task.train", written(tmp_path / "a.parquet", value=column, number=[1, 2, 3]))
    assert rows == [{"value": value, "number": number} for number, value in enumerate(values, start=1)]
    assert [type(row["value"]) for row in rows] == [type(value) for value in values]


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([0.1, 2], FLOAT32),
        pyarrow.array([0.1, 2], pyarrow.float16()),
        pyarrow.array([0.1, 2], pyarrow.float64()),
        pyarrow.array([Decimal("0.1"), Decimal(2)], pyarrow.decimal128(20, 10)),
        pyarrow.array([0.1, 2], FLOAT32).dictionary_encode(),
        pyarrow.array([b"0.1", b"2"]),
        pyarrow.array(["0.1", "2"]).cast(pyarrow.json_()),
    ],
    ids=lambda column: str(column.type),
)
def test_an_answer_is_the_number_that_was_written(column, tmp_path):
    path = written(tmp_path / "a.parquet", question=["1?", "2?"], answer=column)
    task = build_task({"kind": "files", "name": "t", "train": path})
    assert [problem.answer for problem in task.train] == ["0.1", "2"]


def test_names_of_folders_are_no_columns(tmp_path):
    (tmp_path / "answer=7").mkdir()
    assert read_rows("x", written(tmp_path / "answer=7" / "a.parquet", question=["1?"])) == [{"question": "1?"}]


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, ["answer", "answer"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns are called 'answer'"):
        read_rows("task.train", str(tmp_path / "a.parquet"))


def test_a_data_set_is_written_and_read_again(tmp_path):
    rows = [{"question": "1?", "answer": "é", "number": 1}, {"question": "2?", "answer": "2", "number": 2}]
    card = write_dataset(tmp_path / "set", "Two", {"a.jsonl": rows, "b.parquet": rows}, ["Source: none."])
    assert (tmp_path / "set" / "README.md").read_text() == card and "Source: none." in card
    assert read_rows("x", str(tmp_path / "set/a.jsonl")) == rows == read_rows("x", str(tmp_path / "set/b.parquet"))
    with pytest.raises(InputError, match="already there"):
        write_dataset(tmp_path / "set", "Two", {}, [])

"""DeepMath's bands, the competition sets, and overlaps between them."""

from __future__ import annotations

import json

import pytest

from rlcsd.cli import main
from rlcsd.errors import InputError
from rlcsd.tasks.math_data import parse_band
from rlcsd.tasks.parquet_layout import read_layout


@pytest.fixture
def deepmath(tmp_path):
    rows = [
        {
            "question": f"Find {d}.",
            "final_answer": str(d),
            "difficulty": d,
            "topic": "Algebra",
            "r1_solution_1": "",
            "r1_solution_2": f"so {d}",
        }
        for d in (4.5, 5.0, 6.5, 7.0, 7.5)
    ]
    rows.append({**rows[1], "final_answer": " "})
    path = tmp_path / "deepmath.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_band_keeps_its_bounds_and_counts_what_it_leaves_out(deepmath, tmp_path, capsys):
    assert main(["data", "deepmath", "--band", "5_7", "--root", str(tmp_path / "v"), "--source", str(deepmath)]) == 0
    card = capsys.readouterr().out
    assert "2 outside the band" in card
    assert "1 without question or answer" in card
    assert "| train.parquet | 3 |" in card
    problems = read_layout("task.train", str(tmp_path / "v"), "deepmath_filtered_level5_7", "train")[
        "deepmath_filtered_level5_7"
    ]
    assert [(p.answer, p.solution) for p in problems] == [("5.0", "so 5.0"), ("6.5", "so 6.5"), ("7.0", "so 7.0")]
    assert (tmp_path / "v/deepmath_filtered_level5_7/README.md").read_text().strip() == card.strip()


@pytest.mark.parametrize("band", ["7_5", "5", "low_high", "-1_3"])
def test_a_malformed_band_is_named(band):
    with pytest.raises(InputError, match="LOW_HIGH"):
        parse_band(band)


def test_competitions_of_several_columns_share_one_file(tmp_path, capsys):
    (tmp_path / "amc.jsonl").write_text(json.dumps({"id": 0, "question": "Q1", "answer": 27.0}) + "\n")
    (tmp_path / "aime.csv").write_text("problem,answer,solution\nQ2,033,because\n")
    given = [f"amc23={tmp_path}/amc.jsonl", f"aime24={tmp_path}/aime.csv", f"aime25={tmp_path}/aime.csv"]
    assert main(["data", "competitions", "--root", str(tmp_path), "--source", *given]) == 0
    assert "amc23 1, aime24 1, aime25 1" in capsys.readouterr().out
    read = read_layout("task.evaluation", str(tmp_path), "amc23+aime24+aime25", "val")
    assert [(name, p[0].question, p[0].answer, p[0].solution) for name, p in read.items()] == [
        ("amc23", "Q1", "27", None),
        ("aime24", "Q2", "033", "because"),
        ("aime25", "Q2", "033", "because"),
    ]


def test_a_source_of_other_columns_leaves_nothing_behind(tmp_path, capsys):
    (tmp_path / "odd.jsonl").write_text(json.dumps({"text": "Q"}) + "\n")
    assert (
        main(
            [
                "data",
                "deepmath",
                "--band",
                "5_7",
                "--root",
                str(tmp_path / "v"),
                "--source",
                str(tmp_path / "odd.jsonl"),
            ]
        )
        == 2
    )
    assert "no column 'difficulty'" in capsys.readouterr().err
    assert main(["data", "competitions", "--root", str(tmp_path / "v"), "--source", f"amc23={tmp_path}/odd.jsonl"]) == 2
    assert "no column 'answer' or 'final_answer'" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_the_hub_out_of_reach_is_one_sentence(tmp_path, capsys):
    assert main(["data", "deepmath", "--band", "5_7", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "could not be fetched" in said
    assert len(said.strip().splitlines()) == 1


def test_a_data_set_by_its_hub_name(tmp_path, monkeypatch):
    """The library takes a local folder of that name before it asks the hub."""
    from rlcsd.tasks.cells import Columns
    from rlcsd.tasks.own_data import read_problems

    (tmp_path / "owner/sums").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / f"owner/sums/{split}.jsonl").write_text(json.dumps({"q": f"1+1 in {split}?", "a": 2}) + "\n")
    monkeypatch.chdir(tmp_path)
    (found,) = read_problems("task.train", "hub:owner/sums:test", Columns("q", "a"))
    assert (found.question, found.answer, found.extra) == ("1+1 in test?", "2", {"q": "1+1 in test?", "a": 2})
    with pytest.raises(InputError, match="hub:owner/name"):
        read_problems("task.train", "hub:sums", Columns())


def test_the_command_reports_overlap(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "What is 1+1?", "answer": "2"}) + "\n")
    files = [f"task.train={tmp_path}/a.jsonl", f"++task.evaluations.again={tmp_path}/a.jsonl"]
    assert main(["data", "overlap", "task=files", *files]) == 0
    assert "again: 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["NaN", "Infinity", "true", "null", '""', '"x\\ud800"'])
def test_what_is_no_answer_is_named_by_its_row(answer, tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"question": "Q?", "answer": {answer}}}\n')
    assert (
        main(
            [
                "data",
                "competitions",
                "--root",
                str(tmp_path / "v"),
                "--source",
                *(f"{n}={path}" for n in ("amc23", "aime24", "aime25")),
            ]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "row 0" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "v").exists()

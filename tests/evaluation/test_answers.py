"""An interrupted evaluation resumes and ends as if nothing had happened."""

from __future__ import annotations

import json

import pytest

import rlcsd.evaluation.answers as evaluation
from rlcsd.cli import main
from rlcsd.config.load import changed, from_yaml
from rlcsd.engine.local import LocalEngine

QUICK = [
    "task.train_sizes=[3]",
    "task.unseen_sizes=[4]",
    "task.train_per_size=2",
    "task.eval_per_size=6",
    "task.forms=[atom,not,and,or,iff,if]",
]
COMMAND = ["eval", *QUICK, "evaluation.sampling.max_tokens=24", "evaluation.batch=4", "engine.threads=1", "--out"]


def test_a_broken_off_evaluation_ends_as_a_whole_one(tmp_path, monkeypatch, capsys):
    assert main([*COMMAND, str(tmp_path / "whole")]) == 0
    table = capsys.readouterr().out
    calls, real = [], evaluation.answer_problems

    def counted(*arguments):
        calls.append({name for name, _ in arguments[1]})
        if len(calls) == 3:  # of three batches, which both sets share
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(evaluation, "answer_problems", counted)
    assert main([*COMMAND, str(tmp_path / "broken")]) == 130
    kept = tmp_path / "broken/samples.jsonl"
    assert len(kept.read_text().splitlines()) == 8
    kept.write_text(kept.read_text()[:-20])  # cut off in the middle of a line
    capsys.readouterr()
    calls.clear()
    calls.extend([{}, {}, {}])
    assert main([*COMMAND, str(tmp_path / "broken")]) == 0
    assert len(calls[3:]) == 2  # the cut batch, and the one never begun
    assert capsys.readouterr().out == table
    for name in ("eval.md", "eval.json", "samples.jsonl", "config.yaml"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert "| average | 12 |" in table
    names = [summary["name"] for summary in json.loads((tmp_path / "whole/eval.json").read_text())]
    assert names == ["seen_sizes", "unseen_sizes", "average"]


def test_all_sets_are_answered_in_one_call_of_the_engine(tmp_path, monkeypatch):
    """A server would otherwise wait once a set for the longest response."""
    calls, real = [], LocalEngine.sample

    def counted(engine, prompts, *arguments):
        calls.append(len(prompts))
        return real(engine, prompts, *arguments)

    monkeypatch.setattr(LocalEngine, "sample", counted)
    command = [word for word in COMMAND[:-1] if not word.startswith("evaluation.batch")]
    assert main([*command, "engine.self_check=false"]) == 0
    assert calls == [12]
    small = ["engine.self_check=false", "task.eval_per_size=40", "evaluation.sampling.max_tokens=1"]
    assert main([*command, *small, "--out", str(tmp_path / "out")]) == 0
    assert calls == [12, 64, 16]  # what is kept in a folder is kept in parts


def test_a_finished_evaluation_is_read_not_repeated(tmp_path, monkeypatch, capsys):
    assert main([*COMMAND, str(tmp_path / "a")]) == 0
    table = capsys.readouterr().out
    monkeypatch.setattr(evaluation, "answer_problems", lambda *arguments: pytest.fail("asked again"))
    assert main([*COMMAND, str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == table


def test_another_config_or_a_folder_of_other_things_is_refused(tmp_path, capsys):
    assert main([*COMMAND, str(tmp_path / "a")]) == 0
    config = from_yaml(tmp_path / "a/config.yaml")
    evaluation.EvaluationFolder(tmp_path / "a", changed(config, ["engine.score_tokens=999"]))  # changes no answer
    assert main([*COMMAND, str(tmp_path / "a"), "seed=1"]) == 2
    assert "another config" in capsys.readouterr().err
    (tmp_path / "b").mkdir()
    (tmp_path / "b/notes.txt").write_text("mine")
    assert main([*COMMAND, str(tmp_path / "b")]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["notes.txt"]


def test_answers_to_other_problems_and_broken_lines_are_not_taken_over(tmp_path, capsys):
    data, out = tmp_path / "t.jsonl", tmp_path / "out"
    command = [
        "eval",
        "task=files",
        f"task.train={data}",
        f"++task.evaluations.e={data}",
        "evaluation.sampling.max_tokens=8",
        "--out",
        str(out),
    ]
    data.write_text(json.dumps({"question": "Who is a knight?", "answer": "1"}) + "\n")
    assert main(command) == 0
    data.write_text(json.dumps({"question": "Who is a knave?", "answer": "2"}) + "\n")
    (out / "samples.jsonl").write_text((out / "samples.jsonl").read_text() + '{}\n5\n{"rewards": null}\nnot json\n')
    assert main(command) == 0
    (sample,) = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
    assert (sample["question"], sample["answer"]) == ("Who is a knave?", "2")


def test_samples_of_an_older_version_are_read(tmp_path, monkeypatch, capsys):
    assert main([*COMMAND, str(tmp_path / "a")]) == 0
    table, samples = capsys.readouterr().out, tmp_path / "a/samples.jsonl"
    samples.write_text(samples.read_text().replace('"index":', '"place":'))
    monkeypatch.setattr(evaluation, "answer_problems", lambda *arguments: pytest.fail("asked again"))
    assert main([*COMMAND, str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == table and '"index":' in samples.read_text()

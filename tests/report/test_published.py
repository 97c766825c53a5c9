"""The paper's figures as data, and beside runs of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlcsd.cli import main
from rlcsd.config.load import choices, load
from rlcsd.report.published import AVERAGES, COLUMNS, MODELS, published_gains, published_results, published_tables

from .folders import lines, summary, write_config


def test_the_table_is_whole_and_its_averages_are_those_of_its_columns():
    results = published_results()
    methods = {"base", "grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd"}
    assert {(one.model, one.method) for one in results} == {(m, k) for m in MODELS.values() for k in methods}
    assert len(results) == 28 and methods - {"base"} <= set(choices()["method"])
    for one in results:
        assert set(one.accuracy) == set(COLUMNS)
        parts = [one.accuracy[name] for name in AVERAGES["math_avg"]]
        assert one.accuracy["math_avg"] == pytest.approx(sum(parts) / 3, abs=0.15)  # of rounded figures, as printed
    best = next(one for one in results if (one.model, one.method) == ("Qwen3-4B", "rlcsd"))
    assert (best.accuracy["math_avg"], best.accuracy["logic_avg"]) == (78.0, 66.9)
    assert published_gains()["rlcsd"] == {"math_avg": 3.0, "kk_avg": 5.4}
    named = {load([f"model={name}"]).model.path for name in choices()["model"]}
    assert set(MODELS) <= named


def run(folder, model, method, sizes=(4, 5, 6, 7, 8), before=None, seed=0, options=None, **means):
    config = {"model": {"path": model}, "task": {"train_sizes": list(sizes)}}
    write_config(folder, method, seed, **config, **(options or {}))
    steps = [(step, sets) for step, sets in ((0, before), (5, means)) if sets]
    records = [{"step": step, "sets": [summary(name, mean) for name, mean in sets.items()]} for step, sets in steps]
    lines(folder / "evaluations.jsonl", records)
    return str(folder)


def test_own_runs_stand_below_the_authors_line(tmp_path, capsys):
    one = run(tmp_path / "a", "Qwen/Qwen3-4B", "rlcsd", amc23=0.5, aime24=0.25, aime25=0.3)
    two = run(tmp_path / "b", "Qwen/Qwen3-4B", "rlcsd", seed=1, amc23=0.7, aime24=0.35, aime25=0.3)
    sizes = {"seen_sizes": 0.5, **{f"unseen_sizes: {size} people": 0.1 for size in (9, 10, 11)}}
    other = run(tmp_path / "c", "mine", "rlcsd", **sizes)
    assert main(["compare", "--published", one, two, other]) == 0
    out = capsys.readouterr().out.splitlines()
    place = out.index(next(line for line in out if line.startswith("| Qwen3-4B | rlcsd | the authors | 90.1 | 74.4")))
    assert out[place + 1].startswith("| Qwen3-4B | rlcsd | own runs | 60.0 | 30.0 | 30.0 | 40.0 |  |")
    assert any(
        line.startswith("| mine | rlcsd | own runs |  |  |  |  | 50.0 | 10.0 | 10.0 | 10.0 | 20.0 |") for line in out
    )
    assert not any("Qwen3-8B" in line for line in out)
    assert "authors" in out[0] and "not repeated" in out[0]
    assert main(["compare", "--published", str(tmp_path)]) == 0  # the folder of these runs
    assert capsys.readouterr().out.splitlines() == out
    assert main(["compare", "--published", one, "--format", "csv"]) == 2
    assert "Markdown" in capsys.readouterr().err
    assert main(["compare", "--published"]) == 0
    assert capsys.readouterr().out.count("| the authors |") == 28
    assert main(["compare"]) == 2
    assert "at least one run" in capsys.readouterr().err


def test_only_what_the_paper_measured_stands_in_its_columns(tmp_path):
    """Puzzles of other sizes are not kk_4to8, and a base that was only evaluated is no trained model."""
    other = run(tmp_path / "a", "Qwen/Qwen3-4B", "grpo", sizes=(3,), seen_sizes=0.93)
    begun = run(tmp_path / "b", "Qwen/Qwen3-4B", "rlcsd", before={"kk_4to8_test": 0.31, "kk_9": 0.1})
    shown = [line for line in published_tables([Path(other), Path(begun)]).splitlines() if "own runs" in line]
    assert not any("93.0" in line for line in shown)
    assert [line for line in shown if "31.0" in line] == [
        "| Qwen3-4B | base | own runs |  |  |  |  | 31.0 | 10.0 |  |  |  |"
    ]
    assert not any(line.startswith("| Qwen3-4B | rlcsd") for line in shown)


def test_a_line_holds_runs_that_differ_in_the_seed_alone(tmp_path, capsys):
    """Contrastive and one-sided runs of one method do not become their mean, nor do runs of two tasks one base."""
    one = run(tmp_path / "a", "Qwen/Qwen3-4B", "rlcsd", amc23=0.8)
    other = run(tmp_path / "b", "Qwen/Qwen3-4B", "rlcsd", seed=1, options={"learning_rate": 1e-5}, amc23=0.2)
    assert main(["compare", "--published", one, other]) == 2
    assert "differ in learning_rate" in capsys.readouterr().err
    small = run(tmp_path / "c", "mine", "grpo", before={"kk_9": 0.1}, kk_9=0.5)
    large = run(tmp_path / "d", "mine", "rlcsd", sizes=(3,), before={"kk_9": 0.3}, kk_9=0.5)
    assert main(["compare", "--published", small, large]) == 2
    assert "differ in task.train_sizes" in capsys.readouterr().err


def test_a_run_that_is_behind_is_left_out_and_named(tmp_path, capsys):
    first = run(tmp_path / "a", "Qwen/Qwen3-4B", "rlcsd", amc23=0.8)
    behind = tmp_path / "b"
    run(behind, "Qwen/Qwen3-4B", "rlcsd", seed=1, amc23=0.2)
    (behind / "evaluations.jsonl").write_text(
        (behind / "evaluations.jsonl").read_text().replace('"step": 5', '"step": 1')
    )
    assert main(["compare", "--published", first, str(behind)]) == 0
    shown = capsys.readouterr().out
    assert "| Qwen3-4B | rlcsd | own runs | 80.0 |" in shown and "rlcsd, seed 1 (step 1, the others 5)" in shown

"""The paper's figures as data, and beside runs of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcsd.cli import main
from rlcsd.config.load import choices, load
from rlcsd.report.published import AVERAGES, COLUMNS, MODELS, published_gains, published_results, published_tables

from .folders import lines, summary, write_config

# Every cell of the June table that August has otherwise: (model, method, column, June, August).
REVISED = [
    ("Qwen3-4B", "grpo", "kk_11", 42.0, 45.0),
    ("Qwen3-4B", "grpo", "logic_avg", 62.4, 63.1),
    ("Qwen3-4B", "srpo", "kk_4to8", 75.4, 75.0),
    ("Qwen3-4B", "rlsd", "kk_9", 73.0, 72.0),
    ("Qwen3-4B", "rlsd", "kk_10", 62.0, 63.0),
    ("Qwen3-8B", "grpo", "math_avg", 78.7, 78.6),
    ("Qwen3-8B", "grpo", "kk_4to8", 75.2, 76.8),
    ("Qwen3-8B", "opsd", "aime24", 76.6, 76.9),
]
METHODS = {"base", "grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd"}


@pytest.mark.parametrize(("edition", "added"), [("2026-06", set()), ("2026-08", {"rlcsd gt_cot"})])
def test_the_tables_are_whole_and_their_averages_are_those_of_their_columns(edition, added):
    results = published_results(edition)
    rows = [(one.model, one.method) for one in results]
    assert set(rows) == {(m, k) for m in MODELS.values() for k in METHODS | added}
    assert len(rows) == len(set(rows)) and METHODS - {"base"} <= set(choices()["method"])
    loose = []  # averages as printed that rounded columns do not explain
    for one in results:
        assert set(one.accuracy) == set(COLUMNS)
        for name, columns in AVERAGES.items():
            mean = sum(one.accuracy[column] for column in columns) / len(columns)
            if abs(one.accuracy[name] - mean) > 0.051:
                loose.append((one.model, one.method, name))
    june = [("Qwen3-4B", "srpo", "logic_avg"), ("Qwen3-8B", "grpo", "math_avg"), ("Qwen3-8B", "grpo", "logic_avg")]
    assert loose == ([*june, ("Qwen3-8B", "opsd", "math_avg")] if edition == "2026-06" else [])
    best = next(one for one in results if (one.model, one.method) == ("Qwen3-4B", "rlcsd"))
    assert (best.accuracy["math_avg"], best.accuracy["logic_avg"]) == (78.0, 66.9)
    assert published_gains(edition)["rlcsd"] == {"math_avg": 3.0, "kk_avg": 5.4}
    named = {load([f"model={name}"]).model.path for name in choices()["model"]}
    assert set(MODELS) <= named


def test_each_revised_cell_shows_both_values(capsys):
    june = {(one.model, one.method): one.accuracy for one in published_results("2026-06")}
    august = {(one.model, one.method): one.accuracy for one in published_results()}
    found = [
        (*row, name, june[row][name], august[row][name])
        for row in june
        for name in COLUMNS
        if june[row][name] != august[row][name]
    ]
    assert found == REVISED
    assert main(["compare", "--published"]) == 0
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "→" in line]
    for model, method, name, before, after in REVISED:
        row = next(cells for cells in table if cells[:2] == [f"| {model}", method])
        assert row[3 + COLUMNS.index(name)].removesuffix(" |") == f"{before} → {after}"
    assert ["| rlsd", "+2.2", "+1.0 → +0.5 |"] in table  # the plug-in gain on puzzles
    assert len(table) == 1 + 1 + len({row[:2] for row in REVISED})  # the legend, the gain, five rows with a revision


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
    assert sum("issue 1)" in line and "best checkpoint" in line for line in out) == 1
    assert sum("83bbd06" in line and "no rerun is known" in line for line in out) == 1
    assert main(["compare", "--published", str(tmp_path)]) == 0  # the folder of these runs
    assert capsys.readouterr().out.splitlines() == out
    assert main(["compare", "--published", one, "--format", "csv"]) == 2
    assert "Markdown" in capsys.readouterr().err
    assert main(["compare", "--published"]) == 0
    assert capsys.readouterr().out.count("| the authors |") == 32
    assert main(["compare"]) == 2
    assert "at least one run" in capsys.readouterr().err


def test_runs_with_the_solution_as_the_hint_stand_below_the_row_of_august(tmp_path):
    own = run(tmp_path / "a", "Qwen/Qwen3-4B", "rlcsd", amc23=0.5)
    solutions = run(tmp_path / "b", "Qwen/Qwen3-4B", "rlcsd", amc23=0.6)
    config = json.loads((tmp_path / "b" / "config.yaml").read_text())
    config["method"]["hint_source"] = "gt_cot"
    (tmp_path / "b" / "config.yaml").write_text(json.dumps(config))
    shown = published_tables([Path(own), Path(solutions)]).splitlines()
    for method, mean in (("rlcsd", "50.0"), ("rlcsd gt_cot", "60.0")):
        place = shown.index(next(line for line in shown if line.startswith(f"| Qwen3-4B | {method} | the authors |")))
        assert shown[place + 1].startswith(f"| Qwen3-4B | {method} | own runs | {mean} |")


def test_a_run_with_an_objective_or_without_a_column_does_not_stand_as_the_papers_method(tmp_path):
    samples = {"evaluation": {"samples": 4}}
    own = run(tmp_path / "a", "Qwen/Qwen3-4B", "rlcsd", options={"method.objective": "dapo", **samples}, amc23=0.5)
    other = run(tmp_path / "b", "Qwen/Qwen3-4B", "grpo", options=samples, gsm8k=0.5)
    shown = published_tables([Path(own), Path(other)])
    assert "| Qwen3-4B | rlcsd-dapo | own runs | 50.0 |" in shown and shown.count("| own runs |") == 1
    assert "own runs' mean@4" in shown.splitlines()[0] and "column of the paper: b (gsm8k)." in shown


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

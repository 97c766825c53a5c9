"""Several runs: labels, seeds, paired differences, the paper's tables, and what is refused."""

import csv
import io
import json

import numpy as np
import pytest

from rlcsd.cli import main
from rlcsd.errors import InputError
from rlcsd.evaluation.summary import Summary
from rlcsd.report.comparison import comparison, comparison_table, differences, hint_sources, results, written
from rlcsd.report.figures import draw_comparison
from rlcsd.report.run_results import find_runs, read_run, read_runs

from .folders import lines, write_config


def summary(name, value):
    return Summary(name, 10, 1, value, value - 0.1, value + 0.1, {1: value}, 1.0, 0.0, 90.0).as_dict()


def write_run(folder, method="rlcsd", seed=0, before=0.4, after=0.6, outcomes=None, sets=("seen",), **config):
    write_config(folder, method, seed, **config)
    steps = [{"step": s, "rollout/reward": 0.1 * s, "actor/entropy": 0.2, "rollout/length": 90.0} for s in range(1, 9)]
    lines(folder / "metrics.jsonl", steps)
    evaluations = [
        {"step": step, "sets": [summary(name, value) for name in sets]} for step, value in ((0, before), (8, after))
    ]
    if outcomes is not None:
        evaluations[-1]["outcomes"] = outcomes
    lines(folder / "evaluations.jsonl", evaluations)
    return folder


def test_seeds_are_averaged_by_label_and_one_seed_has_no_interval(tmp_path):
    for seed, after in ((0, 0.6), (1, 0.8)):
        write_run(tmp_path / f"a{seed}", "rlcsd", seed, 0.4, after)
    write_run(tmp_path / "b", "grpo", 0, 0.4, 0.5)
    runs = [read_run(tmp_path / name) for name in ("a0", "a1", "b")]
    table = comparison_table(runs)
    half = 12.706 * (0.2 / 2**0.5) / 2**0.5
    assert f"0.700 ± {half:.3f}" in table
    (alone,) = [line for line in table.splitlines() if line.startswith("| grpo | 1 |")]
    assert "±" not in alone and "nan" not in table
    assert read_run(tmp_path / "b", ["method.name", "method.tau"]).label == "grpo 0.1"


def test_an_evaluation_after_some_steps_is_no_accuracy_before(tmp_path):
    folder = write_run(tmp_path / "a", before=0.4, after=0.6)
    records = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    lines(folder / "evaluations.jsonl", [{**records[0], "step": 4}, records[1]])
    (row,) = comparison([read_run(folder)]).rows
    assert row[2] is None and row[3].mean == 0.6
    lines(folder / "evaluations.jsonl", records[:1])
    (row,) = comparison([read_run(folder)]).rows
    assert row[2].mean == 0.4 and row[3] is None


def test_runs_are_found_in_a_folder_of_runs(tmp_path):
    for name in ("sweep/a", "sweep/deeper/b", "c"):
        write_run(tmp_path / name, seed=ord(name[-1]))
    (tmp_path / "sweep" / "no run").mkdir()
    assert [path.name for path in find_runs([tmp_path / "sweep", tmp_path / "c"])] == ["a", "b", "c"]


def test_labels_tell_models_and_tasks_apart(tmp_path):
    write_run(tmp_path / "a", "grpo", 0, model={"path": "large"})
    write_run(tmp_path / "b", "grpo", 0, model={"path": "small"})
    assert [run.label for run in read_runs([tmp_path])] == ["grpo large", "grpo small"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a", "a"], "the same run twice"),
        (["a", "."], "the same run twice"),
        (["a", "./b/../a"], "the same run twice"),
        (["a", "copy"], "one run twice"),
        (["a", "other"], "they differ in method.tau"),
        (["nothing"], "no run here"),
        (["a", "--by", "method.nothing"], "--by method.nothing"),
        (["a", "b", "--baseline", "sdpo"], "--baseline sdpo"),
        (["a", "b", "--baseline", "rlcsd", "--pair", "problem"], "nothing can be paired by problem"),
        (["b", "--table", "hints"], "--table hints"),
        (["a", "b", "--figure", "x.svg"], "--figure x.svg"),
        (["a", "b", "--figure", "no/x.png"], "--figure no/x.png"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "copy", "other"):
        write_run(tmp_path / name)
    write_run(tmp_path / "b", "grpo")
    set_method(tmp_path / "other", tau=2.0)
    (tmp_path / "nothing").mkdir()
    assert main(["compare", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def set_method(folder, **fields):
    config = json.loads((folder / "config.yaml").read_text())
    config["method"] |= fields
    (folder / "config.yaml").write_text(json.dumps(config))


def test_four_seeds_are_paired_by_seed(tmp_path):
    gains = {0: 0.05, 1: 0.10, 2: 0.20, 3: 0.05}
    for seed, gain in gains.items():
        write_run(tmp_path / f"g{seed}", "grpo", seed, 0.4, 0.5 + 0.1 * seed)
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, 0.4, 0.5 + 0.1 * seed + gain)
    (row,) = differences(read_runs([tmp_path]), "grpo").rows
    half = 3.18245 * np.std(list(gains.values()), ddof=1) / 2
    assert row[:4] == ["rlcsd", "seen", "+0.100", f"{0.1 - half:+.3f} to {0.1 + half:+.3f}"]
    assert row[-1] == "4 seeds"


def test_few_seeds_are_paired_by_problem(tmp_path):
    rng = np.random.default_rng(0)
    problems = [f"p{i}" for i in range(60)]
    worse = {p: float(rng.random() < 0.3) for p in problems}
    better = {p: 1.0 if rng.random() < 0.4 else worse[p] for p in problems[::-1]}  # another order, the same problems
    write_run(tmp_path / "g", "grpo", 0, outcomes={"seen": worse})
    write_run(tmp_path / "r", "rlcsd", 5, outcomes={"seen": better | {"only here": 1.0}})
    (row,) = differences(read_runs([tmp_path]), "grpo").rows
    assert row[2] == f"{np.mean([better[p] - worse[p] for p in problems]):+.3f}"
    assert row[4] == row[5] and float(row[4]) < 0.05 and row[-1] == "60 problems"


def test_p_values_are_corrected_for_their_number(tmp_path):
    for seed in range(4):
        write_run(tmp_path / f"g{seed}", "grpo", seed, after=0.5, sets=("a", "b"))
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, after=0.49 + 0.02 * seed, sets=("a", "b"))
    rows = differences(read_runs([tmp_path]), "grpo").rows
    assert [float(row[5]) for row in rows] == pytest.approx([2 * float(row[4]) for row in rows], abs=2e-3)


def test_the_papers_table_in_three_formats(tmp_path):
    sets = ("amc23", "aime24", "unseen_sizes: 9 people", "unseen_sizes", "average")
    write_run(tmp_path / "a", "grpo", 0, 0.4, 0.5, sets=sets)
    write_run(tmp_path / "b", "rlcsd", 0, 0.4, 0.7, sets=sets)
    write_run(tmp_path / "c", "rlcsd", 1, 0.4, 0.8, sets=sets)
    table = results(read_runs([tmp_path]))
    assert list(table.head) == ["model", "method", "AMC23", "AIME24", "9 people", "average"]
    assert [row[1] for row in table.rows] == ["base", "grpo", "rlcsd"]
    markdown = written(table, "markdown").splitlines()
    assert markdown[3].startswith("| tiny | grpo | 50.0 | 50.0 |") and "75.0 ± 63.5" in markdown[4]
    parsed = list(csv.DictReader(io.StringIO(written(table, "csv"))))
    assert parsed[2]["AMC23"] == "75.0" and parsed[2]["AMC23 ±"] == "63.5" and parsed[1]["AMC23 ±"] == ""
    latex = written(table, "latex")
    assert latex.startswith(r"\begin{tabular}{llrrrr}") and r"75.0 $\pm$ 63.5" in latex


def test_the_table_of_hint_sources(tmp_path):
    for name, method, source, after, more in (
        ("a", "rlsd", "gt_cot", 0.5, {}),
        ("b", "rlsd", "own_rollout", 0.6, {}),
        ("c", "rlsd_ectr", "self_rollout", 0.7, {"k_max": 1}),
        ("d", "rlcsd", "gt_cot", 0.8, {"k_max": 4}),
    ):
        set_method(write_run(tmp_path / name, method, after=after), hint_source=source, **more)
    write_run(tmp_path / "e", "grpo")
    lines = written(hint_sources([read_run(tmp_path / name) for name in "abcde"]), "markdown").splitlines()
    sources = [
        "data set's solution",
        "own correct rollout",
        "data set's solution + contrast",
        "own rollouts + contrast",
    ]
    assert lines[0] == f"| method | {' | '.join(sources)} |"
    assert lines[2:] == ["| rlsd | 50.0 | 60.0 | – | 70.0 |", "| rlcsd | – | – | 80.0 | – |"]


def test_hostile_labels_stay_in_their_cells(tmp_path):
    write_run(tmp_path / "a", "mine|file_name.py:A&B%")
    runs = read_runs([tmp_path])
    assert r"mine\|file" in comparison_table(runs)
    assert r"A\&B\%" in written(comparison(runs), "latex") and r"file\_name" in written(comparison(runs), "latex")
    assert list(csv.reader(io.StringIO(written(comparison(runs), "csv"))))[1][0] == "mine|file_name.py:A&B%"


def test_the_figure_is_a_png_and_an_svg_whatever_is_there(tmp_path, capsys):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"a{seed}", "rlcsd", seed)
    write_run(tmp_path / "runs" / "b", "grpo", 0)
    lines(write_config(tmp_path / "runs" / "begun", "sdpo") / "metrics.jsonl", [])  # nothing logged yet
    assert main(["compare", str(tmp_path / "runs"), "--figure", str(tmp_path / "c.png"), "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert len(list(csv.reader(io.StringIO(printed.out)))) == 4 and "c.png" in printed.err
    first = (tmp_path / "c.svg").read_bytes()
    draw_comparison(read_runs([tmp_path / "runs"]), tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 0 and (tmp_path / "c.svg").read_bytes() == first


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match="no run here"):
        read_run(tmp_path)

"""Several runs: labels, seeds, paired differences, the paper's tables, and what is refused."""

import csv
import io
import itertools
import json
import statistics

import numpy as np
import pytest

from rlcsd.cli import main
from rlcsd.errors import InputError
from rlcsd.report.comparison import comparison, differences, hint_sources, results, written
from rlcsd.report.figures import colours, draw_comparison
from rlcsd.report.run_results import find_runs, read_run, read_runs
from rlcsd.report.statistics import paired_difference

from .folders import lines, summary, write_config


def write_run(folder, method="rlcsd", seed=0, before=0.4, after=0.6, outcomes=None, sets=("seen",), **config):
    write_config(folder, method, seed, **config)
    steps = [{"step": s, "rollout/reward": 0.1 * s, "actor/entropy": 0.2, "rollout/length": 90.0} for s in range(1, 9)]
    lines(folder / "metrics.jsonl", steps)
    evaluations = [
        {"step": step, "sets": [summary(name, value) for name in sets]} for step, value in ((0, before), (8, after))
    ]
    if outcomes is not None:
        sizes = {name: len(shares) for name, shares in outcomes.items()}
        evaluations[-1] = {
            "step": 8,
            "sets": [summary(name, after, problems=sizes.get(name, 10)) for name in sets],
            "outcomes": outcomes,
        }
    lines(folder / "evaluations.jsonl", evaluations)
    return folder


def test_seeds_are_averaged_by_label_and_one_seed_has_no_interval(tmp_path):
    for seed, after in ((0, 0.6), (1, 0.8)):
        write_run(tmp_path / f"a{seed}", "rlcsd", seed, 0.4, after)
    write_run(tmp_path / "b", "grpo", 0, 0.4, 0.5)
    runs = [read_run(tmp_path / name) for name in ("a0", "a1", "b")]
    table = written(comparison(runs), "markdown")
    assert "| 0.700 (0.600, 0.800) |" in table and "one degree of freedom" in table
    (alone,) = [line for line in table.splitlines() if line.startswith("| grpo | 1 |")]
    assert "±" not in alone and "nan" not in table
    assert read_run(tmp_path / "b", ["method.name", "method.tau"]).label == "grpo 0.1"


def test_an_evaluation_after_some_steps_is_no_accuracy_before(tmp_path):
    folder = write_run(tmp_path / "a", before=0.4, after=0.6)
    records = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    lines(folder / "evaluations.jsonl", [{**records[0], "step": 4}, records[1]])
    assert cells_of(comparison([read_run(folder)]))["rlcsd"]["seen, before"] is None
    assert cells_of(comparison([read_run(folder)]))["rlcsd"]["seen, after"].mean == 0.6
    lines(folder / "evaluations.jsonl", records[:1])
    assert cells_of(comparison([read_run(folder)]))["rlcsd"]["seen, before"].mean == 0.4
    assert cells_of(comparison([read_run(folder)]))["rlcsd"]["seen, after"] is None


def test_runs_are_found_in_a_folder_of_runs(tmp_path):
    for name in ("sweep/a", "sweep/deeper/b", "c"):
        write_run(tmp_path / name, seed=ord(name[-1]))
    (tmp_path / "sweep" / "no run").mkdir()
    rehearsal = write_run(tmp_path / "sweep" / "a-rehearsal-20261126-120000", seed=9)
    assert [path.name for path in find_runs([tmp_path / "sweep", tmp_path / "c"])] == ["a", "b", "c"]
    assert find_runs([rehearsal]) == [rehearsal]


def test_a_run_with_an_objective_is_called_by_both(tmp_path):
    write_run(tmp_path / "a", "rlcsd")
    write_run(tmp_path / "b", "rlcsd", **{"method.objective": "dapo"})
    write_run(tmp_path / "c", "dapo", **{"method.objective": "dapo"})
    assert sorted(run.label for run in read_runs([tmp_path])) == ["dapo", "rlcsd", "rlcsd-dapo"]


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
        (["a", "other", "--by", "method.name"], "they differ in method.tau"),
        (["a", "another", "--by", "method.name"], "they differ in method.tau"),
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
    write_run(tmp_path / "another", seed=1)
    write_run(tmp_path / "b", "grpo")
    for name in ("other", "another"):
        set_method(tmp_path / name, tau=2.0)
    (tmp_path / "nothing").mkdir()
    assert main(["compare", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_two_runs_of_one_method_and_seed_are_two_rows(tmp_path):
    """They were refused as one run twice, or, where their configs differ, for want of --by."""
    for name, after in (("a", 0.6), ("copy", 0.7)):
        write_run(tmp_path / name, after=after)
    write_run(tmp_path / "b", seed=1, after=0.8)
    task = {"name": "kk_tiny", "instruction": "Answer\nin $\\boxed{}$ or $\\nothing$." + 90 * " please"}
    write_run(tmp_path / "fast", learning_rate=0.1, after=0.2, task=task)
    for name in ("a", "copy", "b"):
        write_config(tmp_path / name, seed=int(name == "b"), learning_rate=0.01)
    table = comparison(read_runs([tmp_path]))
    shown = {row[0]: (row[1], row[table.head.index("seen, after")].mean) for row in table.rows}
    slow = "rlcsd learning_rate=0.01"
    (fast,) = shown.keys() - {slow, f"{slow} #2"}
    assert fast.startswith("rlcsd learning_rate=0.1 task.instruction=Answer in $\\boxed{}$ or") and len(fast) < 140
    assert shown == {slow: ("2", pytest.approx(0.7)), f"{slow} #2": ("1", 0.7), fast: ("1", 0.2)}
    assert f"{slow} #2, seed 0: copy has the config and the seed of a." in table.notes
    figure = draw_comparison(read_runs([tmp_path]), tmp_path / "figure.png")
    lines = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_linewidth() > 1]
    own = colours(["rlcsd"])["rlcsd"]
    assert lines[:2] == [(own, "-"), (own, "--")] and lines[2][0] != own


def test_a_run_that_broke_off_does_not_stand_for_its_rerun(tmp_path):
    behind(write_run(tmp_path / "a", after=0.3))
    write_run(tmp_path / "b", after=0.7)
    table = comparison(read_runs([tmp_path]))
    after = {row[0]: row[table.head.index("seen, after")].mean for row in table.rows}
    assert list(after.items()) == [("rlcsd", 0.7), ("rlcsd #2", 0.3)]
    assert "rlcsd #2, seed 0: a has the config and the seed of b." in table.notes


def test_runs_of_two_versions_are_seeds_of_one_experiment(tmp_path):
    """An older version had other names for keys, and lacked some."""
    write_run(tmp_path / "old", seed=0, grad_norm=0.5, rollout_correction="token")
    write_run(tmp_path / "new", seed=1, max_grad_norm=0.5, rollout_correction="token_truncate", shuffle=True)
    set_method(tmp_path / "new", objective="grpo")
    assert cells_of(comparison(read_runs([tmp_path])))["rlcsd"]["seeds"] == "2"
    write_run(tmp_path / "other", seed=2, max_grad_norm=0.5, shuffle=False)
    labels = [run.label for run in read_runs([tmp_path])]
    assert labels == ["rlcsd shuffle=True", "rlcsd shuffle=True", "rlcsd shuffle=False"]


def test_evaluations_that_do_not_measure_the_same_are_named(tmp_path):
    """The average of two sets was subtracted from that of three, with a p-value."""
    for seed in range(4):
        write_run(tmp_path / f"g{seed}", "grpo", seed, after=0.5, sets=("a", "b", "average"))
        more = {"evaluation": {"samples": 4}}
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, after=0.5 + seed / 10, sets=("a", "b", "c", "average"), **more)
        set_method(tmp_path / f"r{seed}", hint_source="gt_cot")
        set_method(write_run(tmp_path / f"s{seed}", "rlsd", seed, sets=("a", "b", "average")), hint_source="gt_cot")
    runs = read_runs([tmp_path])
    shown = [tuple(row[:2]) for row in differences(runs, "grpo").rows]
    assert shown == [("rlcsd", "a"), ("rlcsd", "b"), ("rlsd", "a"), ("rlsd", "b"), ("rlsd", "average")]
    for table in (comparison(runs), hint_sources(runs), differences(runs, "grpo")):
        assert sum("different sets" in note and "rlcsd on a, b, c" in note for note in table.notes) == 1
        assert sum("different evaluation.samples" in note and "rlcsd 4" in note for note in table.notes) == 1


def test_runs_that_learned_nothing_are_marked(tmp_path, capsys):
    for name, seed, updates in (("a", 0, 0.0), ("b", 1, 4.0)):
        folder = write_run(tmp_path / name, "grpo", seed)
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        counts = {"update/count": 4.0, "update/skipped": 1.0, "update/empty": 3.0 - updates / 2}
        lines(folder / "metrics.jsonl", [{**record, **counts} for record in records])
    write_run(tmp_path / "old", "rlcsd")  # a log of an older version, without these counts
    runs = read_runs([tmp_path])
    updates = {row[0]: row[2] for row in comparison(runs).rows}
    assert updates == {"grpo": "16", "rlcsd": None}
    (note,) = [note for note in results(runs).notes if "Learned nothing" in note]
    assert "grpo, seed 0 (a)" in note and "seed 1" not in note
    assert comparison(read_runs([tmp_path / "a"])).rows[0][2] == "0 (learned nothing)"
    draw_comparison(runs, tmp_path / "figure.png")
    assert "Learned nothing" in (tmp_path / "figure.svg").read_text()


def set_method(folder, **fields):
    """The same run with other hyper-parameters."""
    config = json.loads((folder / "config.yaml").read_text())
    config["method"] |= fields
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder


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
    write_run(tmp_path / "c", "rlcsd", 1, 0.4, 0.75, sets=sets)
    write_run(tmp_path / "d", "rlcsd", 2, 0.4, 0.8, sets=sets)
    table = results(read_runs([tmp_path]))
    assert list(table.head) == ["model", "method", "AMC23", "AIME24", "9 people", "average"]
    assert [row[1] for row in table.rows] == ["base", "grpo", "rlcsd"]
    markdown = written(table, "markdown").splitlines()
    assert markdown[3].startswith("| tiny | grpo | 50.0 | 50.0 |") and "75.0 ± 12.4" in markdown[4]
    parsed = list(csv.DictReader(io.StringIO(written(table, "csv"))))
    assert parsed[2]["AMC23"] == "75.0" and parsed[2]["AMC23 ±"] == "12.4" and parsed[1]["AMC23 ±"] == ""
    latex = written(table, "latex")
    assert latex.startswith(r"\begin{tabular}{llrrrr}") and r"75.0 $\pm$ 12.4" in latex


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
    assert r"mine\|file" in written(comparison(runs), "markdown")
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


# ------------------------------------------------------------------ run folders in every state


def plan_of(folder, step, keep):
    """Cut a run back to how it was after `step` steps, with the evaluations for which `keep` holds."""
    for name, wanted in (("metrics.jsonl", lambda r: r["step"] <= step), ("evaluations.jsonl", keep)):
        records = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        lines(folder / name, [record for record in records if wanted(record)])


def started(folder):
    plan_of(folder, 0, lambda record: record["step"] == 0)


def behind(folder):
    lines(folder / "evaluations.jsonl", [{**json.loads(line), "step": json.loads(line)["step"] // 2}
                                         for line in (folder / "evaluations.jsonl").read_text().splitlines()])  # fmt: skip
    plan_of(folder, 4, lambda record: True)


NO_SPREAD = "No ± where all seeds have the same value: their spread is unknown."


def cells_of(table):
    return {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}


def test_a_run_without_an_evaluation_after_training_is_no_result(tmp_path):
    """Its accuracy before training once counted as its result: −0.500 with p 0.016."""
    problems = {f"p{i}": float(i % 2) for i in range(40)}
    for seed in range(2):
        write_run(tmp_path / f"g{seed}", "grpo", seed, 0.1, 0.5, outcomes={"seen": problems})
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, 0.1, 0.5 + seed / 10, outcomes={"seen": problems})
    started(tmp_path / "r1")
    runs = read_runs([tmp_path])
    table = comparison(runs)
    assert cells_of(table)["rlcsd"]["seen, after"].count == 1 and cells_of(table)["rlcsd"]["seen, before"].count == 2
    assert "Not evaluated after training: rlcsd, seed 1." in table.notes
    (row,) = differences(runs, "grpo").rows
    assert row[2] == "+0.000" and "rlcsd, seed 1" in differences(runs, "grpo").notes[0]
    assert "Not evaluated after training: rlcsd, seed 1." in results(runs).notes
    started(tmp_path / "r0")
    with pytest.raises(InputError, match=r"nothing can be paired.*evaluations after training"):
        differences(read_runs([tmp_path]), "grpo")


def test_a_run_that_is_behind_its_other_seeds_is_left_out_and_named(tmp_path):
    for seed, after in enumerate((0.6, 0.7, 0.1)):
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, after=after)
    behind(tmp_path / "r2")
    runs = read_runs([tmp_path])
    for table in (comparison(runs), results(runs)):
        assert [note for note in table.notes if "rlcsd, seed 2 (step 4, the others 8)" in note]
    row = cells_of(comparison(runs))["rlcsd"]
    assert row["seen, after"].mean == pytest.approx(0.65) and row["entropy, end"].count == 2
    draw_comparison(runs, tmp_path / "figure.png")
    assert "rlcsd, seed 2 (step 4, the others 8)" in (tmp_path / "figure.svg").read_text()


def test_labels_at_different_steps_are_marked(tmp_path, capsys):
    write_run(tmp_path / "g", "grpo")
    behind(write_run(tmp_path / "r", "rlcsd"))
    runs = read_runs([tmp_path])
    note = "Evaluated after different numbers of steps: grpo 8; rlcsd 4."
    assert note in comparison(runs).notes
    assert main(["compare", str(tmp_path), "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert note not in printed.out and note in printed.err  # a program reads the table, a person the notes


def test_runs_that_stop_early_end_where_they_like(tmp_path):
    for seed, before in enumerate((0.6, 0.6, 0.4)):
        write_run(tmp_path / f"r{seed}", seed=seed, before=before, evaluation={"patience": 1}, steps=16)
    behind(tmp_path / "r1")
    table = comparison(read_runs([tmp_path]))
    assert cells_of(table)["rlcsd"]["seen, after"].count == cells_of(table)["rlcsd"]["entropy, end"].count == 2
    broken = "Neither at their last step nor ended by evaluation.patience, so left out after training: "
    steps = "Evaluated after different numbers of steps: rlcsd 4 to 8."
    assert list(table.notes) == [f"{broken}rlcsd, seed 2 (step 8).", steps, NO_SPREAD]
    assert list(comparison(read_runs([tmp_path / "r2"])).notes) == [
        "Evaluated before the last step: rlcsd, seed 2 (8 of 16)."
    ]


def test_a_run_that_is_half_done_is_marked(tmp_path):
    write_run(tmp_path / "r", steps=16)
    assert list(comparison(read_runs([tmp_path])).notes) == ["Evaluated before the last step: rlcsd, seed 0 (8 of 16)."]


def test_runs_on_the_same_problems_have_one_start_whatever_they_train_on(tmp_path):
    for size, problems in ((64, "ab"), (128, "ab"), (256, "bc")):
        folder = write_run(tmp_path / str(size), task={"name": "kk_tiny", "train_per_size": size})
        records = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
        logged = {"sets": [summary("seen", 1.0, problems=2)], "outcomes": {"seen": dict.fromkeys(problems, 1.0)}}
        lines(folder / "evaluations.jsonl", [{**record, **logged} for record in records])
    keys = ["method.name", "task.train_per_size"]
    table = results(read_runs([tmp_path / "64", tmp_path / "128"], keys))
    assert [row[1] for row in table.rows] == ["base", "rlcsd 64", "rlcsd 128"]
    with pytest.raises(InputError, match="differ in the problems of seen"):
        results(read_runs([tmp_path], keys))
    for table in (
        differences(read_runs([tmp_path], keys), "rlcsd 64", "seed"),
        comparison(read_runs([tmp_path], keys)),
    ):
        assert any("The problems of seen are not the same for" in note and "rlcsd 256" in note for note in table.notes)


def test_seeds_may_differ_in_where_they_ran_and_what_they_logged(tmp_path):
    write_run(tmp_path / "a", seed=0, engine={"name": "local", "device": "cuda:0"}, log_rollouts=4, output_dir="x")
    write_run(tmp_path / "b", seed=1, engine={"name": "local", "device": "cuda:1"}, log_rollouts=0, output_dir="y")
    assert cells_of(comparison(read_runs([tmp_path])))["rlcsd"]["seeds"] == "2"


def test_two_models_have_no_common_accuracy_before_training(tmp_path):
    for name, before in (("small", 0.1), ("large", 0.5)):
        write_run(tmp_path / name, "rlcsd", 0, before, model={"path": name})
    runs = read_runs([tmp_path])
    assert [row[2].mean for row in results(runs).rows if row[1] == "base"] == pytest.approx([0.5, 0.1])
    write_run(tmp_path / "harder", "rlcsd", 1, 0.2, model={"path": "small"}, task={"name": "kk_9"})
    with pytest.raises(InputError, match=r"runs of small differ in task\.name"):
        results(read_runs([tmp_path]))
    draw_comparison(read_runs([tmp_path]), tmp_path / "figure.png")
    assert "before" not in (tmp_path / "figure.svg").read_text()


def test_the_table_of_hint_sources_mixes_no_arms(tmp_path, capsys):
    """Contrast and one-sided runs of rlcsd once shared a cell, and one model's run replaced another's."""
    for name, evidence, after in (("a", "contrast", 0.8), ("b", "one_sided", 0.2)):
        set_method(write_run(tmp_path / name, after=after), hint_source="self_rollout", k_max=4, evidence=evidence)
    (row,) = hint_sources(read_runs([tmp_path])).rows
    assert row[0] == "rlcsd" and [cell.mean for cell in row[1:]] == [0.2, 0.8]
    set_method(write_run(tmp_path / "c", seed=1, after=0.9), hint_source="self_rollout", k_max=1, evidence="contrast")
    assert main(["compare", str(tmp_path), "--table", "hints"]) == 2
    assert "they differ in method.k_max" in capsys.readouterr().err
    set_method(tmp_path / "c", k_max=4)
    config = json.loads((tmp_path / "c/config.yaml").read_text())
    (tmp_path / "c/config.yaml").write_text(json.dumps({**config, "model": {"path": "large"}}))
    table = hint_sources(read_runs([tmp_path]))
    assert list(table.head) == ["model", "method", "own correct rollout", "own rollouts + contrast"]
    found = {row[0]: [cell and cell.mean for cell in row[2:]] for row in table.rows}
    assert found == {"tiny": [0.2, 0.8], "large": [None, 0.9]}


def test_the_hint_table_has_the_reported_average(tmp_path):
    """The kinds of a set belong to that set, which counts as much as the other."""
    folder = set_method(write_run(tmp_path / "a"), hint_source="gt_cot")
    sets = {"small": 0.9, "large": 0.2, "large: 4 people": 0.3, "large: 5 people": 0.1, "average": 0.55}
    record = {"step": 8, "sets": [summary(name, value) for name, value in sets.items()]}
    lines(folder / "evaluations.jsonl", [record])
    ((_, cell),) = hint_sources([read_run(folder)]).rows
    assert cell.mean == 0.55


def test_old_logs_round_outcomes_and_that_breaks_no_tie(tmp_path):
    """Thirds to six digits: the p-value was 0.0625, where exact thirds give the true one."""
    rng = np.random.default_rng(5)
    shares = rng.integers(0, 4, (2, 30)) / 3
    for name, method, row in (("g", "grpo", shares[0]), ("r", "rlcsd", shares[1])):
        folder = write_run(tmp_path / name, method)
        outcomes = {"seen": {f"p{i}": round(float(share), 6) for i, share in enumerate(row)}}
        lines(folder / "evaluations.jsonl", [{"step": 8, "sets": [summary("seen", 0.5, 3, 30)], "outcomes": outcomes}])
    (row,) = differences(read_runs([tmp_path]), "grpo").rows
    assert row[4] == f"{paired_difference(shares[1], shares[0], by='problem').p:.3f}"


def test_a_log_that_lost_repeated_problems_is_not_paired_by_problem(tmp_path):
    """A problem that was asked seven times had its last outcome alone: +0.778 where accuracies differ by 0.600."""
    for name, method in (("g", "grpo"), ("r", "rlcsd")):
        folder = write_run(tmp_path / name, method)
        outcomes = {"seen": {f"p{i}": 1.0 for i in range(9)}}
        lines(folder / "evaluations.jsonl", [{"step": 8, "sets": [summary("seen", 0.5, 1, 15)], "outcomes": outcomes}])
    with pytest.raises(InputError, match="the outcome of each problem"):
        differences(read_runs([tmp_path]), "grpo", "problem")


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_pairs_are_printed_without_a_p_value_and_a_note_says_why(tmp_path, capsys, count):
    """`compare` ended in a traceback where one problem differed."""
    for seed in range(count):
        write_run(tmp_path / f"g{seed}", "grpo", seed, after=0.5)
        write_run(tmp_path / f"r{seed}", "rlcsd", seed, after=0.7)
    assert main(["compare", str(tmp_path), "--baseline", "grpo", "--pair", "seed"]) == 0
    shown = capsys.readouterr().out
    assert f"| rlcsd | seen | +0.200 | – | – | – | {count} seeds |" in shown
    assert "No interval and no p-value where" in shown


def test_one_problem_that_differs_is_no_difference(tmp_path):
    same = {f"p{i}": 1.0 for i in range(20)}
    write_run(tmp_path / "g", "grpo", outcomes={"seen": {**same, "p3": 0.0}})
    write_run(tmp_path / "r", "rlcsd", outcomes={"seen": same})
    (row,) = differences(read_runs([tmp_path]), "grpo").rows
    assert row[2] == "+0.050" and row[4] == "1.000"
    low, high = map(float, row[3].split(" to "))
    assert low < 0 < 0.05 < high


# ------------------------------------------------------------------ recomputed from the logs


def test_every_table_is_that_of_a_plain_recomputation(tmp_path):
    """Two arms, three seeds, two sets, of which a problem is asked twice."""
    rng = np.random.default_rng(11)
    after = {}
    for method in ("grpo", "rlcsd"):
        for seed in range(3):
            means = rng.random(2)
            outcomes = {f"p{i}": float(rng.integers(0, 2)) for i in range(12)}
            outcomes["p0/2"] = float(rng.integers(0, 2))
            folder = write_run(tmp_path / f"{method}{seed}", method, seed, before=0.3 + 0.05 * seed)
            sets = [
                summary("a", float(means[0]), problems=13),
                summary("b", float(means[1])),
                summary("average", float(means.mean())),
            ]
            first = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])
            lines(folder / "evaluations.jsonl", [first, {"step": 8, "sets": sets, "outcomes": {"a": outcomes}}])
            after[method, seed] = (means, outcomes)
    runs = read_runs([tmp_path])

    def column(method, number):
        values = [after[method, seed][0][number] for seed in range(3)]
        return statistics.mean(values), 4.302653 * statistics.stdev(values) / 3**0.5

    shown = cells_of(comparison(runs))
    for method in ("grpo", "rlcsd"):
        for number, name in enumerate("ab"):
            cell = shown[method][f"{name}, after"]
            assert (cell.mean, cell.half) == pytest.approx(column(method, number), rel=1e-6)
        assert shown[method]["seen, before"].mean == pytest.approx(0.35)
        assert shown[method]["entropy, end"].mean == pytest.approx(0.2) and shown[method]["length, end"] == "90"
    table = results(runs)
    percents = {row[1]: row[table.head.index("a")] for row in table.rows}
    assert percents["rlcsd"].mean == pytest.approx(column("rlcsd", 0)[0]) and table.scale == 100

    gains = []
    for problem in after["grpo", 0][1]:
        ours, theirs = ([after[method, seed][1][problem] for seed in range(3)] for method in ("rlcsd", "grpo"))
        gains.append(statistics.mean(ours) - statistics.mean(theirs))
    assignments = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in itertools.product((1, -1), repeat=13)
    ]
    p = statistics.mean(total >= abs(sum(gains)) - 1e-9 for total in assignments)
    (row,) = [row for row in differences(runs, "grpo").rows if row[1] == "a"]
    assert row[2] == f"{statistics.mean(gains):+.3f}" and row[4] == f"{p:.3f}" and row[6] == "13 problems"
    for number, name in enumerate(("a", "b")):
        (row,) = [row for row in differences(runs, "grpo", "seed").rows if row[1] == name]
        pairs = [after["rlcsd", seed][0][number] - after["grpo", seed][0][number] for seed in range(3)]
        half = 4.302653 * statistics.stdev(pairs) / 3**0.5
        assert row[2:4] == [
            f"{statistics.mean(pairs):+.3f}",
            f"{statistics.mean(pairs) - half:+.3f} to {statistics.mean(pairs) + half:+.3f}",
        ]

"""Several runs side by side."""

import json

import pytest

from rlcsd.errors import InputError
from rlcsd.evaluation.summary import Summary
from rlcsd.report.compare import comparison_table, draw_comparison, interval, read_run


def write_run(folder, method, seed, before, after):
    folder.mkdir()
    (folder / "config.yaml").write_text(f"method: {{name: {method}, tau: 0.1}}\nseed: {seed}\n")
    steps = [{"step": s, "rollout/reward": 0.1 * s, "actor/entropy": 0.2, "rollout/length": 90.0} for s in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    sets = [
        {"step": s, "sets": [Summary("seen", 10, 1, v, v, v, {1: v}, 1.0, 0.0, 90.0).as_dict()]}
        for s, v in ((0, before), (3, after))
    ]
    (folder / "evaluations.jsonl").write_text("\n".join(map(json.dumps, sets)))


def test_seeds_are_averaged_by_label(tmp_path):
    for seed, after in ((0, 0.6), (1, 0.8)):
        write_run(tmp_path / f"a{seed}", "rlcsd", seed, 0.4, after)
    write_run(tmp_path / "b", "grpo", 0, 0.4, 0.5)
    runs = [read_run(tmp_path / name) for name in ("a0", "a1", "b")]
    table = comparison_table(runs)
    half = 12.706 * (0.2 / 2**0.5) / 2**0.5
    assert f"0.700 ± {half:.3f}" in table
    assert "| grpo | 1 |" in table
    assert draw_comparison(runs, tmp_path / "c.png").stat().st_size > 0
    assert read_run(tmp_path / "b", ["method.name", "method.tau"]).label == "grpo 0.1"


def test_an_interval_of_one_seed_is_not_known():
    mean, half = interval([0.5])
    assert mean == 0.5
    assert half != half


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match="no run here"):
        read_run(tmp_path)

"""`rlcsd demo drift` ends in its figure, and a finished run is not repeated."""

from __future__ import annotations

from rlcsd.cli.main import main


def test_the_demo_draws_its_figure_and_runs_nothing_twice(tmp_path, capsys):
    assert main(["demo", "drift", "--out", str(tmp_path), "--steps", "1"]) == 0
    first = capsys.readouterr().out
    assert (tmp_path / "drift.png").stat().st_size > 10_000
    assert [line.split(":")[0] for line in first.splitlines() if " steps in " in line] == ["sdpo", "grpo", "rlcsd"]
    assert "| share of worked lines" in first
    (tmp_path / "drift.png").unlink()
    assert main(["demo", "drift", "--out", str(tmp_path), "--steps", "1"]) == 0
    assert " steps in " not in capsys.readouterr().out
    assert (tmp_path / "drift.png").is_file()


def test_a_demo_of_no_steps_is_refused(tmp_path, capsys):
    assert main(["demo", "drift", "--out", str(tmp_path), "--steps", "0"]) == 2
    assert "--steps 0" in capsys.readouterr().err

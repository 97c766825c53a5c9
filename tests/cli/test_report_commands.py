"""`rlcsd inspect` of a model and of a run folder."""

import pytest

from rlcsd.cli import main
from tests.report.folders import write_run

QUICK = ["task.train_per_size=8", "task.eval_per_size=2", "engine.threads=1", "engine.self_check=false"]


def test_templates_and_numbers_of_wrong_hints(capsys):
    assert main(["inspect", "--problems", "4", "--templates", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert all(f"| {name} |" in shown for name in ("neutral", "verbose", "terse", "up to 2", "shared", "quiet"))


def test_where_nothing_is_usable_it_says_why(capsys):
    assert main(["inspect", "--problems", "2", "group_size=3", "sampling.max_tokens=4", *QUICK]) == 0
    assert "All 6 rollouts are wrong, so there is no correct hint" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "code"), [("rlcsd", 0), ("grpo", 2)])
def test_a_run_folder_is_read(tmp_path, capsys, method, code):
    run = write_run(tmp_path / "run", method=method)
    assert main(["inspect", str(run), "--figure", str(tmp_path / "s.png")]) == code
    shown = capsys.readouterr()
    if code == 0:
        assert "teacher asked about 1.000 of the rollouts" in shown.out
        assert "| style | correct |" in shown.out and "| own |" in shown.out
        assert (tmp_path / "s.png").stat().st_size > 0 and (tmp_path / "s.svg").stat().st_size > 0
    else:
        assert "no teacher was asked" in shown.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no run here"),
        (["a", "b"], "one run folder"),
        (["nowhere", "--templates"], "--templates"),
        (["--figure", "x.jpg"], "--figure x.jpg"),
        (["--problems", "0"], "--problems 0"),
    ],
)
def test_what_cannot_be_inspected(capsys, arguments, sentence):
    assert main(["inspect", *arguments]) == 2
    assert sentence in capsys.readouterr().err

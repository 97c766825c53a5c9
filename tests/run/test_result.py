"""What `train` returns, a function called after each step, and a report that says what a run was worth."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

import pandas
import pytest

import rlcsd
from rlcsd.storage import read_jsonl


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Overrides of a run of seconds; all runs of this module are in one folder."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        "prompts_per_step=4", "prompts_per_update=2", "group_size=4", "task.train_sizes=[3]", "task.unseen_sizes=[]",
        "task.train_per_size=8", "task.eval_per_size=6", "sampling.max_tokens=48", "evaluation.every=0",
        "evaluation.sampling.max_tokens=16", "evaluation.samples=1", f"output_dir={folder}", "trackers=[]",
        "engine.threads=1", "learning_rate=1e-3", "warmup_steps=0",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def result(quick):
    """Of a run of nine planned steps that a function stops after the second."""
    seen = []

    def on_step(step, metrics):
        seen.append((step, metrics["rollout/reward"]))
        if step == 2:
            raise rlcsd.StopTraining("enough for a test")

    found = rlcsd.train([*quick, "steps=9", "run_name=stopped"], progress=False, on_step=on_step)
    assert [step for step, _ in seen] == [1, 2]
    return found


def test_on_step_ends_a_run_as_its_last_step_would(result):
    assert [record["step"] for record in read_jsonl(result.folder / "evaluations.jsonl")] == [0, 2]
    assert result.checkpoint().name == "step_000002"
    report = (result.folder / "report.md").read_text()
    assert "stopped by on_step after step 2 of 9: enough for a test" in report
    resumed = rlcsd.train(["steps=3"], resume=result.folder, progress=False)
    assert [row["step"] for row in resumed.log] == [1, 2, 3]
    assert "stopped by on_step" not in (result.folder / "report.md").read_text()


def test_an_error_in_on_step_loses_no_step(quick):
    def on_step(step, metrics):
        if step == 2:
            raise KeyError("rollout/rewards")

    with pytest.raises(KeyError):
        rlcsd.train([*quick, "steps=3", "run_name=broken", "evaluation.before=false"], progress=False, on_step=on_step)
    folder = Path(quick[11].partition("=")[2]) / "broken"
    assert (folder / "checkpoints/step_000002").is_dir()
    assert "on_step after step 2 failed with KeyError" in (folder / "report.md").read_text()


def test_numbers_are_data_frames_or_lists(result, monkeypatch):
    metrics, evaluations = result.metrics, result.evaluations
    assert isinstance(metrics, pandas.DataFrame) and list(metrics["step"]) == list(range(1, len(metrics) + 1))
    assert metrics["rollout/reward"].notna().all() and not [name for name in metrics if name.startswith("eval/")]
    assert list(evaluations["step"])[:2] == [0, 2] and set(evaluations["set"]) == {"seen_sizes"}
    assert {"mean", "low", "high", "problems", "pass@1"} <= set(evaluations.columns)
    assert evaluations["mean"].iloc[-1] == result.after[0].mean == result["after"][0].mean
    assert dict(result) == {"folder": str(result.folder), "before": result.before, "after": result.after}
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert result.metrics == result.log and result.evaluations[0]["set"] == "seen_sizes"


def test_a_notebook_shows_it(result, tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules  # by another test, or not
    text = result._repr_html_()
    assert html.escape(result.outcome) in text and "data:image/png;base64," in text and "seen_sizes" in text
    figure = result.plot(tmp_path / "plot.png")
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n" and (tmp_path / "plot.svg").is_file()
    assert ("matplotlib.pyplot" in sys.modules) == loaded  # which would take the notebook's own figures away
    page = result.page(tmp_path / "page.html", steps=(1, 1))
    frame = re.fullmatch(
        r'<iframe sandbox="allow-scripts" style="[^"]*" srcdoc="([^"]*)"></iframe>', page._repr_html_()
    )
    assert html.unescape(frame[1]) == (tmp_path / "page.html").read_text()
    with pytest.raises(rlcsd.InputError, match="no rollouts of these steps"):
        result.page(tmp_path / "page.html", steps=(50, 60))


def test_the_trained_model_answers_and_is_evaluated(result):
    short = ["evaluation.sampling.max_tokens=8", "evaluation.sampling.temperature=0"]
    one = result.generate("Who is a knave?", short)
    chat = [{"role": "user", "content": "Who is a knave?"}]
    assert result.generate(["Who is a knave?", chat], short) == [one, one]
    with pytest.raises(rlcsd.InputError, match="generate: the last message of a chat must be the user's"):
        result.generate([[{"role": "assistant", "content": "x"}]], short)
    with pytest.raises(rlcsd.InputError, match="step"):
        result.generate("x", step=77)
    (measured,) = result.evaluate(short)
    assert (measured.name, measured.problems) == ("seen_sizes", 6)
    (measured,) = result.evaluate([*short, "task.eval_per_size=3"])
    assert measured.problems == 3
    task = rlcsd.Task("t", [rlcsd.Problem("Q?", "1")], {}, "exact")
    with pytest.raises(rlcsd.InputError, match=r"task\.eval_per_size=3: not beside task="):
        rlcsd.evaluate(result.folder, ["task.eval_per_size=3"], task=task)


def test_a_run_is_repeated_by_the_command_of_its_report(result, quick, capsys):
    from rlcsd.cli import main

    (command,) = re.findall(r"^    rlcsd (train --config .*)$", (result.folder / "report.md").read_text(), flags=re.M)
    assert main([*command.split(), "steps=1", "run_name=again", "evaluation.before=false", "--progress", "off"]) == 0
    again = rlcsd.Result(result.folder.parent / "again")

    def numbers(row):
        return {name: value for name, value in row.items() if not name.startswith(("time/", "perf/"))}

    assert numbers(again.log[0]) == numbers(result.log[0])
    assert main(["train", "--config", "no.yaml"]) == 2 and main(["train", "--config", "x", "--resume", "y"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_run_without_an_update_says_so_first(quick):
    found = rlcsd.train([*quick, "steps=2", "run_name=nothing", "sampling.max_tokens=2", "method=grpo"], progress=False)
    report = (found.folder / "report.md").read_text()
    first = report.splitlines()[2]
    assert first == f"**{found.outcome}**"
    assert re.match(r"\*\*Nothing was learned: 2 steps \(\d+ s\) of grpo on kk_tiny changed no weight of `.*`, because "
                    r"in each group all rollouts have the same reward \(all wrong in 4 of 4\)", first)  # fmt: skip
    assert "* Updates: 0 optimizer steps, in 0 of 2 steps." in report
    assert "* Overlap: none of the 6 evaluation problems is in the training set." in report
    assert "every response was cut off at sampling.max_tokens=2" in report
    assert "Reference answer: " in report and report.count("Step 0: ") == report.count("Step 2: ") == 1
    samples = [record["samples"]["seen_sizes"] for record in read_jsonl(found.folder / "evaluations.jsonl")]
    assert samples[0]["question"] == samples[1]["question"]
    assert json.loads((found.folder / "events.jsonl").read_text().splitlines()[0])["event"] == "overlap"


def test_a_run_with_a_task_from_python_is_repeated_by_the_call_in_its_report(tmp_path):
    rows = [{"question": f"{n} + 1 = ?", "answer": n + 1} for n in range(8)]
    task = rlcsd.Task.from_rows("sums", rows, test_fraction=0.25)
    settings = {
        "method": "grpo", "steps": 1, "prompts_per_step": 2, "prompts_per_update": 2, "group_size": 3,
        "sampling.max_tokens": 8, "evaluation.sampling.max_tokens": 8, "evaluation.before": False, "figures": False,
        "engine.threads": 1, "engine.self_check": False, "trackers": [], "run_name": "first",
        "output_dir": str(tmp_path),
    }  # fmt: skip
    first = rlcsd.train(settings, task=task, progress=False)
    report = (first.folder / "report.md").read_text()
    (call,) = re.findall(r"^    (rlcsd\.train.*)  # with the same task$", report, flags=re.M)
    again = eval(call.replace("task=task", "task=task, progress=False"), {"rlcsd": rlcsd, "task": task})
    assert again.folder != first.folder and again.log[0]["actor/loss"] == first.log[0]["actor/loss"]
    assert [one.mean for one in first.evaluate()] == [first.after[0].mean]

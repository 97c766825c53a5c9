"""The report of one run."""

import json
import re

import pytest

from rlcsd.evaluation import interval_over_problems
from rlcsd.report.run_report import write_report

from .folders import lines, summary, write_config
from .test_comparison import write_run

CONFIG = {"learning_rate": 1e-4, "group_size": 8, "kl_coefficient": 0.0, "task": {"name": "a_task"}}


@pytest.mark.parametrize("evaluations", [0, 1, 2])
def test_the_report_of_a_run(tmp_path, evaluations):
    run = write_run(tmp_path / "run", sets=("seen", "unseen: 4 people", "unseen: 5 people", "unseen"))
    kept = (run / "evaluations.jsonl").read_text().splitlines()[:evaluations]
    (run / "evaluations.jsonl").write_text("".join(line + "\n" for line in kept))
    write_config(run, **CONFIG)
    assert "![training dynamics](report.png)" in write_report(run).read_text()
    assert (run / "report.png").stat().st_size > 0
    drawing = (run / "report.svg").read_text()
    assert "Training reward" in drawing and "rlcsd on a_task, tiny, seed 0" in drawing
    assert ("step 8" in drawing) == (evaluations == 2) and ("not evaluated yet" in drawing) == (evaluations == 0)


def test_sets_of_a_few_problems_have_no_interval(tmp_path):
    run = write_run(tmp_path / "run", before=0.25, after=0.75)
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for record in records:
        record["sets"] = [{**one, "problems": 4, "low": None, "high": None} for one in record["sets"]]
    lines(run / "evaluations.jsonl", records)
    write_config(run, **CONFIG)
    assert "| seen | 4 | 0.250 | 0.750 | 90 | 90 |" in write_report(run).read_text()
    assert (run / "report.png").stat().st_size > 0


def logged(folder, before, after, problems=40, **config):
    """A run of two sets, of which the given numbers of problems are right before and after."""
    write_run(folder)
    write_config(folder, **CONFIG, **config)
    records = []
    for step, right in ((0, before), (8, after)):
        outcomes = {f"p{n}": float(n < right) for n in range(problems)}
        sets = [{**one, "problems": problems} for one in (summary("a", right / problems), summary("b", 0.5))]
        sets.append({**summary("average", (right / problems + 0.5) / 2), "problems": 2 * problems})
        halves = {f"p{n}": float(n % 2) for n in range(problems)}
        records.append({"step": step, "sets": sets, "outcomes": {"a": outcomes, "b": halves}})
    lines(folder / "evaluations.jsonl", records)
    return folder


def first_sentence(folder):
    return write_report(folder, figures=False).read_text().splitlines()[2]


@pytest.mark.parametrize(("before", "after", "verb"), [(4, 30, "rose"), (30, 4, "fell"), (20, 21, "went")])
def test_the_report_begins_with_the_change_and_its_interval(tmp_path, before, after, verb):
    sentence = first_sentence(logged(tmp_path / "run", before, after))
    gain = (after - before) / 40 / 2  # the other set does not change, and each counts alike
    assert f"(average of the sets) {verb} from" in sentence and f"by {gain:+.3f} on the same 80 problems" in sentence
    low, high = map(float, re.search(r"95 %: ([-+.\d]+) to ([-+.\d]+)", sentence).groups())
    gains = [(n < after) - (n < before) for n in range(40)]
    expected = interval_over_problems(gains, [0.0] * 40, lowest=-1.0)
    assert (low, high) == pytest.approx(expected, abs=6e-4)
    assert ("no difference that these problems can show" in sentence) == (verb == "went")


def test_other_problems_before_and_after_give_no_paired_change(tmp_path):
    folder = logged(tmp_path / "run", 4, 30)
    records = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    records[0]["outcomes"]["a"] = {f"q{n}": 1.0 for n in range(40)}
    lines(folder / "evaluations.jsonl", records)
    assert "on the same" not in first_sentence(folder) and "went from" in first_sentence(folder)


def test_what_ended_early_or_was_not_measured_says_so(tmp_path):
    folder = logged(tmp_path / "run", 4, 30, steps=16)
    assert "After 8 of 16 steps" in first_sentence(folder)
    lines(folder / "evaluations.jsonl", [])
    assert "is not known: its task has no evaluation sets" in first_sentence(folder)
    lines(folder / "metrics.jsonl", [])
    assert "ended before the first training step" in first_sentence(folder)


def test_overlap_warnings_and_hostile_text_are_shown(tmp_path):
    folder = logged(tmp_path / "run", 4, 30)
    overlap = {"step": 0, "event": "overlap", "set": "a", "problems": 40, "exact": 1, "normalised": 3}
    warnings = [{"step": n, "event": "warning", "message": f"warning {n}"} for n in range(13)]
    lines(folder / "events.jsonl", [overlap, *warnings])
    records = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    for record, response in zip(records, ("````\n# no heading\n````", "x" * 9000), strict=True):
        one = {"question": "Q?", "answer": "a|b\n`\nc", "response": response, "reward": 0.0, "correct": False}
        record["samples"] = {"a": one}
    lines(folder / "evaluations.jsonl", records)
    text = write_report(folder, figures=False).read_text()
    assert "Reference answer: `` a|b ` c ``" in text
    assert "3 of 40 of a (1 as written)" in text and "warning 9" in text and "3 more in events.jsonl" in text
    assert "`````\n````\n# no heading\n````\n`````" in text and "x" * 1500 + " …" in text and "x" * 1501 not in text

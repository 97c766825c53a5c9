"""The report of one run."""

import json

import pytest

from rlcsd.report.run_report import write_report

from .folders import lines, write_config
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

"""Console output of a run: a live view on a terminal, log lines elsewhere, nothing if switched off."""

from __future__ import annotations

import io
import os
from functools import partial

import pytest
from rich.console import Console

import rlcsd
from rlcsd.evaluation import Summary
from rlcsd.run import console
from rlcsd.run.console import NotebookView, Progress, ProgressDisplay, clock, completion_lines, panel, sparkline


def read_or_nothing(file: int) -> bytes:
    try:
        return os.read(file, 1 << 16)
    except OSError:  # the other end of the terminal is closed
        return b""


START = {
    "folder": "runs/r", "steps": 40, "start": 0, "evaluations": [], "left_out": 0, "overlaps": [], "threads": 2,
    "evaluate_every": 20, "title": "rlcsd on kk_tiny, tiny",
}  # fmt: skip
STEP = {
    "rollout/reward": 0.375, "actor/entropy": 0.5, "rollout/length": 118.0, "rollout/tokens": 944.0,
    "time/step": 2.0, "time/sample": 1.5, "time/update": 0.5,
}  # fmt: skip
SETS = [Summary("seen", 4, 1, 0.5, 0.4, 0.6, {1: 0.5}, 1.0, 0.0, 9.0)]
COMPLETION = {"question": "1 + 1?", "answer": "2", "response": "two\nmore", "reward": 1.0}


def events():
    yield "phase", {"phase": "loading the model tiny"}
    yield "start", START
    yield "evaluation", {"step": 0, "summaries": SETS, "seconds": 5.0}
    for step in (1, 2):
        yield "phase", {"phase": "sample"}
        yield "step", {"step": step, "metrics": STEP, "no_update": "no reason", "completion": COMPLETION}
    yield "warning", {"message": "something is odd"}


def test_lines_where_there_is_no_terminal(capsys):
    file = io.StringIO()
    with ProgressDisplay("auto", file) as display:
        for event in events():
            display.watch(*event)
    shown = file.getvalue()
    for words in (
        "loading the model tiny", "run folder runs/r", "held out at step 0: seen 0.500", "step    2/40  reward 0.375",
        "entropy 0.500  length 118", "[2.0 s: sample 1.5 update 0.5]", "472 tokens/s", "1:26 left",
        "No update in this step: no reason", "a response of step 1, reward 1, reference answer 2:", "  | more",
    ):  # fmt: skip
        assert words in shown, words
    assert "\x1b" not in shown
    assert capsys.readouterr().err == "rlcsd: something is odd\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
@pytest.mark.parametrize("ci", [False, True])
def test_a_terminal_gets_the_live_view_and_a_ci_log_lines(ci, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("CI", "true" if ci else "")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, ProgressDisplay("auto", terminal) as display:
        for event in events():
            display.watch(*event)
    shown = b"".join(iter(partial(read_or_nothing, master), b"")).decode()
    assert ("\x1b[" in shown and "472 tokens/s" in shown) or ci
    assert ("step    2/40  reward" in shown) == ci, "the view replaces the lines of the steps"
    assert "No update in this step: no reason" in shown
    assert "  | two" in shown
    os.close(master)


def test_the_view_has_all_of_it():
    progress = Progress()
    for event in events():
        progress.on_event(*event)
    paper = Console(file=io.StringIO(), width=100, record=True)
    paper.print(panel(progress))
    shown = paper.export_text()
    for words in ("rlcsd on kk_tiny, tiny", "step 2/40", "left", "between steps", "sample 1.5", "472 tokens/s",
                  "0.375", "0.500", "118", "step 0: seen 0.500"):  # fmt: skip
        assert words in shown, words


def test_a_notebooks_cell_is_redrawn(monkeypatch):
    pages = []

    class Handle:
        def update(self, page):
            pages.append(page.data)

    class Html:
        def __init__(self, data):
            self.data = data

    import sys
    from types import ModuleType

    module = ModuleType("IPython.display")
    module.HTML, module.display = Html, lambda page, display_id: pages.append(page.data) or Handle()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    progress = Progress()
    view = NotebookView(progress)
    view.start()
    for event in events():
        progress.on_event(*event)
        view.refresh()
    view.stop()
    assert "starting" in pages[0]
    assert "step 2/40" in pages[-1]
    assert "<pre" in pages[-1]


def test_time_left_counts_evaluations_to_come():
    progress = Progress()
    for event in events():
        progress.on_event(*event)
    assert progress.seconds_left() == pytest.approx(38 * 2.0 + 2 * 5.0)  # those of steps 20 and 40


def test_figures_in_few_characters():
    assert [clock(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([1.0]) == ""
    long = completion_lines({**COMPLETION, "response": "\n".join(map(str, range(50)))}, 3)
    assert len(long) == 2 + 13
    assert long[-1] == "  | 49"


QUICK = [
    "steps=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=3", "task.train_per_size=4",
    "task.eval_per_size=2", "sampling.max_tokens=8", "evaluation.sampling.max_tokens=8", "trackers=[]", "figures=false",
]  # fmt: skip


def test_a_program_shows_its_run_unless_told_otherwise_and_goes_on_with_it(tmp_path, capsys):
    seen = []
    result = rlcsd.train(
        [*QUICK, f"output_dir={tmp_path}", "run_name=r"], watch=lambda event, facts: seen.append(event)
    )
    shown = capsys.readouterr()
    assert shown.out == "", "a program's own output is its own"
    assert "step    1/1" in shown.err
    assert "held out at step 1" in shown.err
    assert {"phase", "start", "step", "evaluation"} <= set(seen)
    further = rlcsd.train(["steps=2"], resume=result["folder"], progress=False)
    assert capsys.readouterr().err == ""
    assert further["folder"] == result["folder"]
    with pytest.raises(rlcsd.InputError, match="the run has its config"):
        rlcsd.train({"steps": 3}, resume=result["folder"])


def test_a_notebook_counts_as_one_though_its_output_says_that_it_is_a_terminal(monkeypatch):
    monkeypatch.setattr("rlcsd.run.console.in_notebook", lambda: True)
    monkeypatch.setattr("rlcsd.run.console._is_terminal", lambda console: True)
    assert isinstance(ProgressDisplay().view, NotebookView)
    assert ProgressDisplay("lines").view is None


def test_a_log_gets_a_line_about_an_evaluation_now_and_then(monkeypatch):
    file, clock = io.StringIO(), iter([0.0, 1.0, 16.0, 16.0, 17.0])
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    with console.counter("problems", 30, Console(file=file)) as count:
        for _ in range(3):
            count(10)
    assert file.getvalue() == "problems 20/30\n"


def test_a_terminal_gets_a_bar_about_an_evaluation(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    with console.counter("problems", 30, Console(file=file, force_terminal=True, width=80)) as count:
        count(10)
    assert "10/30" in file.getvalue()

"""A stand-alone evaluation says how far it is."""

from __future__ import annotations

import io

from rich.console import Console

from rlcsd.run import counting


def test_a_line_now_and_then_in_a_log(monkeypatch):
    file, clock = io.StringIO(), iter([0.0, 1.0, 16.0, 16.0, 17.0])
    monkeypatch.setattr(counting.time, "perf_counter", lambda: next(clock))
    with counting.counting("problems", 30, Console(file=file)) as count:
        for _ in range(3):
            count(10)
    assert file.getvalue() == "problems 20/30\n"


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    with counting.counting("problems", 30, Console(file=file, force_terminal=True, width=80)) as count:
        count(10)
    assert "10/30" in file.getvalue()

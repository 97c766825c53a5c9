"""A run says so when its steps are slow because of other programs."""

from __future__ import annotations

from rlcsd.run import slow
from rlcsd.run.slow import SlowSteps


def complaints(monkeypatch, others: list[float], seconds: list[float], threads: int = 2) -> list[bool]:
    used = iter(others)
    monkeypatch.setattr(slow.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(slow.Neighbours, "cpus", lambda self: next(used))
    watcher = SlowSteps(threads)
    return [watcher.complaint(step, took) is not None for step, took in enumerate(seconds, start=1)]


def test_only_a_slow_step_on_a_crowded_machine_is_worth_a_word(monkeypatch):
    assert complaints(monkeypatch, [0, 0, 2], [3, 3, 9]) == [False, False, True]
    assert complaints(monkeypatch, [0, 0, 0], [3, 3, 9]) == [False, False, False], "slow, but not because of others"
    assert complaints(monkeypatch, [2, 2, 2], [9, 9, 30]) == [True, False, False], "once is enough for a while"
    assert complaints(monkeypatch, [2, 2], [0.1, 0.4]) == [False, False]
    assert complaints(monkeypatch, [1, 1], [9, 30], threads=1) == [False, False], "there is room for one thread"


def test_the_sentence_names_the_machine_and_the_way_out(monkeypatch):
    monkeypatch.setattr(slow.psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(slow.Neighbours, "cpus", lambda self: 1.9)
    sentence = SlowSteps(2).complaint(1, 12.0)
    assert "step 1 took 12.0 s while other programs used 1.9 of this machine's 2 CPUs" in sentence
    assert "engine.threads=1" in sentence

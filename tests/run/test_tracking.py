"""Trackers by name, played by stand-ins: what they are told, and that a resumed run is the same run to them."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest

from rlcsd.errors import InputError
from rlcsd.run.tracking import check_trackers, open_trackers, run_id


@pytest.fixture(params=["wandb", "swanlab", "trackio"])
def library(request, monkeypatch):
    module = ModuleType(request.param)
    module.begun, module.logged, module.finished = [], [], 0
    module.init = lambda **options: module.begun.append(options)
    module.log = lambda metrics, step: module.logged.append((step, metrics))
    module.finish = lambda: setattr(module, "finished", module.finished + 1)
    module.__spec__ = SimpleNamespace(name=request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def test_a_resumed_run_goes_on_in_the_same_record(library, tmp_path):
    check_trackers([library.__name__])
    for step in (1, 2):
        trackers = open_trackers([library.__name__], tmp_path, "project", {"seed": 0})
        for tracker in trackers:
            tracker.log({"a": 1.0, "b": math.nan}, step)
            tracker.close()
    first, second = library.begun
    assert first == second
    assert first["resume"] == "allow"
    assert (first["project"], first["config"]) == ("project", {"seed": 0})
    assert library.logged == [(1, {"a": 1.0}), (2, {"a": 1.0})]
    assert library.finished == 2
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "a": 1.0, "b": None}, {"step": 2, "a": 1.0, "b": None}]


def test_two_runs_of_one_name_are_two_records(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name / "run").mkdir(parents=True)
    ids = {run_id(tmp_path / name / "run") for name in ("here", "there", "here")}
    assert len(ids) == 2
    assert {len(each) for each in ids} == {21}


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="wandb is not installed"):
        check_trackers(["wandb"])

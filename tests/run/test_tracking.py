"""Trackers by name, played by stand-ins: what they are told, and that a resumed run is the same run to them."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy
import pytest

from rlcsd.errors import InputError
from rlcsd.run import Run
from rlcsd.run.tracking import JsonlTracker, check_trackers, open_trackers, run_id


@pytest.fixture(params=["wandb", "swanlab", "trackio"])
def library(request, monkeypatch):
    module = ModuleType(request.param)
    module.begun, module.logged, module.finished = [], [], 0
    module.init = lambda **options: module.begun.append(options)
    module.log = lambda metrics, step: module.logged.append((step, metrics))
    module.finish = lambda: setattr(module, "finished", module.finished + 1)
    module.login = lambda prompt=True, verify=True: True
    module.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online"))
    module.Table = lambda columns=None, data=None, dataframe=None: ("table", columns, data, dataframe)
    module.Text = lambda text: ("text", text)
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


ROWS = [
    {"step": 3, "reward": 1.0, "correct": True, "question": "a | b?", "response": "```\n# x\n```", "correct hint": ""},
    {"step": 3, "reward": 0.0, "correct": False, "question": "c?", "response": "d", "correct hint": "e"},
]


def test_responses_are_a_table(library, tmp_path):
    _, tracker = open_trackers([library.__name__], tmp_path, "project", {})
    tracker.log_samples(ROWS, 3)
    ((step, logged),) = library.logged
    assert step == 3 and list(logged) == ["samples"]
    if library.__name__ == "wandb":
        assert logged["samples"][1:3] == (list(ROWS[0]), [list(row.values()) for row in ROWS])
    elif library.__name__ == "trackio":
        assert logged["samples"][3].to_dict("records") == ROWS
    else:
        assert "    # x" in logged["samples"][0][1] and len(logged["samples"]) == 2


def test_tensorboard_shows_responses_as_plain_text(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.text.text_plugin import text_array_to_html

    _, tracker = open_trackers(["tensorboard"], tmp_path, "project", {})
    tracker.log_samples(ROWS, 3)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("samples/text_summary")
    assert event.step == 3
    page = text_array_to_html(numpy.asarray([text.decode() for text in event.tensor_proto.string_val]), True)
    assert "# x" in page and "<h1>" not in page and "a | b?" in page and "<strong>reward</strong>: 1.0" in page


def test_a_run_sends_responses_with_their_hints(tiny_config, monkeypatch):
    sent = []
    monkeypatch.setattr(JsonlTracker, "log_samples", lambda self, rows, step: sent.append((step, rows)))
    settings = ["steps=3", "show_completion_every=2", "method=opsd", "evaluation.before=false", "task.eval_per_size=2"]
    Run(tiny_config(*settings)).execute()
    assert [step for step, _ in sent] == [1, 2]
    (_, rows) = sent[0]
    assert len({row["question"] for row in rows}) == 4 and {row["step"] for row in rows} == {1}
    assert all(row["correct hint"] for row in rows)
    assert list(rows[0]) == [
        "step",
        "reward",
        "correct",
        "question",
        "answer",
        "response",
        "correct hint",
        "wrong hints",
    ]


@pytest.mark.parametrize("newer", [True, False])
def test_wandb_without_a_login_is_one_sentence_before_the_model_is_loaded(newer, monkeypatch, tiny_config):
    module = ModuleType("wandb")
    module.__spec__ = SimpleNamespace(name="wandb")
    module.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode="online"))
    module.login = (lambda prompt=True, verify=True: prompt or verify) if newer else (lambda key=None: 1 / 0)
    module.api = SimpleNamespace(api_key=None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("rlcsd.run.run.build_engine", lambda *given: 1 / 0)
    with pytest.raises(InputError, match=r"^trackers: wandb has no login; `wandb login`, .*WANDB_MODE=offline$"):
        Run(tiny_config("trackers=[wandb]"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])


def test_what_a_tracker_refuses_is_one_sentence(library, tmp_path):
    library.init = lambda **options: 1 / 0
    with pytest.raises(
        InputError, match=rf"trackers: {library.__name__} could not begin a record \(division by zero\)"
    ):
        open_trackers([library.__name__], tmp_path, "project", {})


def test_the_real_wandb_keeps_a_record_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    check_trackers(["wandb"])
    for step in (1, 2):
        _, tracker = open_trackers(["wandb"], tmp_path, "project", {"method": {"name": "grpo"}})
        tracker.log({"a": float(step)}, step)
        tracker.log_samples(ROWS, step)
        tracker.close()
    assert wandb.run is None
    tables = [json.loads(path.read_text()) for path in tmp_path.rglob("samples_*.table.json")]
    assert len(tables) == 2 and tables[0]["columns"] == list(ROWS[0])
    assert tables[0]["data"] == [list(row.values()) for row in ROWS]


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

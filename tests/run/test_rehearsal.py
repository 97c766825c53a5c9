"""A rehearsal: what it measures on three steps is what a whole run takes, and the real run's folder is not touched."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from rlcsd.cli import main
from rlcsd.config.load import load
from rlcsd.records import Problem
from rlcsd.run import Run
from rlcsd.run.rehearsal import few_problems, rehearse
from rlcsd.run.stop import Interrupted
from rlcsd.storage import read_jsonl


class WorkClock:
    """A clock that only work moves: a second for each token that a model embeds, and ten for each save."""

    def __init__(self, monkeypatch):
        self.seconds, save = 0.0, Run.save

        def embedded(module, inputs, output):
            if isinstance(module, torch.nn.Embedding):
                self.seconds += inputs[0].numel()

        def saved(*arguments, **named):
            self.seconds += 10
            return save(*arguments, **named)

        self.handle = torch.nn.modules.module.register_module_forward_hook(embedded)
        monkeypatch.setattr(Run, "save", saved)
        for name in ("rlcsd.trainer.perf_counter", "time.perf_counter"):
            monkeypatch.setattr(name, lambda: self.seconds)


@pytest.fixture
def work_clock(monkeypatch):
    clock = WorkClock(monkeypatch)
    yield clock
    clock.handle.remove()


def test_the_hours_are_near_those_of_the_real_run(tiny_config, tmp_path, work_clock):
    sizes = ["steps=4", "run_name=real", "save_every=2", "task.train_per_size=24", "task.eval_per_size=80",
             "sampling.max_tokens=144", "evaluation.sampling.max_tokens=24", "engine.self_check=false"]  # fmt: skip
    rehearsal = rehearse(tiny_config(*sizes))
    assert not (tmp_path / "real").exists() and [path.name[:15] for path in tmp_path.iterdir()] == ["real-rehearsal-"]
    folder = next(tmp_path.iterdir())
    assert sorted(record["step"] for record in read_jsonl(folder / "metrics.jsonl")) == [1, 2, 3, 3]
    assert not (folder / "checkpoints").exists()
    assert json.loads((folder / "rehearsal.json").read_text())["seconds"] == rehearsal.seconds
    assert all(rehearsal.phases[phase] for phase in ("sample", "score", "update"))
    assert (rehearsal.evaluated, rehearsal.problems, rehearsal.evaluations, rehearsal.saves) == (64, 80, 2, 2)

    begun = work_clock.seconds
    Run(tiny_config(*sizes)).execute()
    real = work_clock.seconds - begun
    assert real / 1.3 < rehearsal.seconds < 1.3 * real, (real, rehearsal.seconds)
    written = sum(path.stat().st_size for path in (tmp_path / "real").rglob("*") if path.is_file())
    assert written / 2 < rehearsal.disk < 2 * written


def test_a_signal_ends_a_rehearsal(tiny_config, tmp_path):
    def watch(event, facts):
        if event == "step":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        rehearse(tiny_config("method=grpo", "sampling.max_tokens=16", "engine.self_check=false"), watch)
    (folder,) = tmp_path.iterdir()
    assert [record["step"] for record in read_jsonl(folder / "metrics.jsonl")] == [1]


def test_what_a_run_refuses_a_rehearsal_refuses(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("seed: 0\n")
    assert main(["train", "rehearsal=true", f"output_dir={tmp_path}", "run_name=mine"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(ValueError, match=r"rehearsal=true: `rlcsd train` does it"):
        Run(load(["rehearsal=true", f"output_dir={tmp_path}"]))


def test_few_problems_are_of_every_set_and_spread_over_it():
    sets = {
        name: [Problem(f"{name}{n}", "1") for n in range(count)] for name, count in (("a", 300), ("b", 99), ("c", 1))
    }
    few = few_problems(sets)
    assert {name: len(problems) for name, problems in few.items()} == {"a": 48, "b": 15, "c": 1}
    assert [problem.question for problem in few["a"][:3]] == ["a0", "a6", "a12"] and few["a"][-1].question == "a293"
    assert few_problems({"a": sets["a"][:5]}) == {"a": sets["a"][:5]}

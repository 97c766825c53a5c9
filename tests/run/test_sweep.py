"""Sweeps: several values of a key, one folder, what is left after an interruption, failures, the comparison."""

from __future__ import annotations

import json
import re
import shlex

import pytest

import rlcsd
from rlcsd.cli import main
from rlcsd.config import load as loading
from rlcsd.config.load import load
from rlcsd.errors import InputError
from rlcsd.run import Run
from rlcsd.run.sweep import Sweep, jobs_of, parse_override
from rlcsd.storage import read_jsonl

QUICK = [
    "steps=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=3", "task.train_per_size=4",
    "task.eval_per_size=2", "task.unseen_sizes=[]", "sampling.max_tokens=8", "evaluation.sampling.max_tokens=8",
    "trackers=[]", "figures=false", "engine.threads=1", "engine.self_check=false",
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["method=grpo,rlcsd", "seed=range(0,2)"],
         ["method=grpo,seed=0", "method=grpo,seed=1", "method=rlcsd,seed=0", "method=rlcsd,seed=1"]),
        (["learning_rate=choice(1e-4,2e-4)", "seed=3"], ["learning_rate=0.0001", "learning_rate=0.0002"]),
        (["method=glob(rl*d)"], ["method=rlcsd", "method=rlcsd_extended", "method=rlsd"]),
        (["seed=1,1,2"], ["seed=1", "seed=2"]),
        (["task=math_deepmath", "task.band=5_7,6_8"], ["task.band=5_7", "task.band=6_8"]),
    ],
)  # fmt: skip
def test_a_job_for_each_combination(overrides, names):
    assert [job.name for job in jobs_of(overrides)] == names


def test_seeds_of_one_setting_share_a_label():
    jobs = jobs_of(["method=grpo,rlcsd", "seed=0,1"])
    assert [job.label for job in jobs] == ["method=grpo"] * 2 + ["method=rlcsd"] * 2
    assert {job.label for job in jobs_of(["seed=0,1"])} == {""}


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["seed=1"], "no key has several values"),
        (["seeed=1,2"], "did you mean 'seed'"),
        (["method=grpo,grpp"], "did you mean 'grpo'"),
        (["learning_rate=1,-1"], "learning_rate=-1"),
        (["seed=range(0,"], "seed=range"),
        (["learning_rate=interval(1,2)"], "interval"),
        (["seed=range(0,1000)", "epochs=range(1,1000)"], "999000 combinations"),
    ],
)
def test_every_job_is_checked_before_the_first_begins(overrides, complaint, tmp_path, capsys):
    assert main(["sweep", *overrides, "--out", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_sweep_is_resumed_extended_and_compared(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "s"
    execute, begun = Run.execute, []

    def interrupted(self, resume=False):
        begun.append(self.config.seed)
        if self.config.seed == 1:
            raise KeyboardInterrupt
        return execute(self, resume)

    monkeypatch.setattr(Run, "execute", interrupted)
    assert main(["train", "-m", "seed=0,1,2", *QUICK, "--out", str(folder)]) == 130
    assert f"rlcsd sweep --resume {folder}" in capsys.readouterr().err
    monkeypatch.setattr(Run, "execute", execute)
    assert main(["sweep", "--resume", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "3 runs, 2 of them left" in shown
    assert "| rlcsd | 3 |" in shown
    assert (folder / "comparison.md").read_text().strip() in shown
    assert (folder / "comparison.png").stat().st_size > 0
    assert main(["sweep", "--resume", str(folder), "seed=2,3", *QUICK]) == 0
    assert "4 runs, 1 of them left" in capsys.readouterr().out
    assert [one["job"] for one in read_jsonl(folder / "jobs.jsonl")] == [f"seed={seed}" for seed in range(4)]


def test_a_damaged_list_of_jobs_and_a_rehearsal_are_one_sentence(tmp_path, capsys):
    (tmp_path / "sweep.json").write_text("{}")
    assert main(["sweep", "--resume", str(tmp_path)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert main(["sweep", "seed=0,1", "rehearsal=true", "--dry-run"]) == 2
    assert "rehearsal=true" in capsys.readouterr().err
    assert main(["sweep", "seed=0,1", "run_name=mine", "--dry-run"]) == 2
    assert "run_name=mine: a sweep names its runs" in capsys.readouterr().err
    with pytest.raises(rlcsd.InputError, match="a resumed sweep stays in its folder"):
        rlcsd.sweep(out=tmp_path / "a", resume=tmp_path)


def test_a_run_that_fails_stops_no_other(tmp_path, capsys, monkeypatch):
    execute = Run.execute

    def sometimes(self, resume=False):
        if self.config.seed == 0:
            raise InputError("the run has diverged")
        if self.config.seed == 1:
            raise RuntimeError("a fault")
        return execute(self, resume)

    monkeypatch.setattr(Run, "execute", sometimes)
    folder = tmp_path / "s"
    assert main(["sweep", "seed=0,1,2", *QUICK, "--out", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "2 of 3 runs failed (seed=0: the run has diverged; seed=1: RuntimeError" in error
    assert "RuntimeError: a fault" in (folder / "seed=1/error.txt").read_text()
    assert [job["name"] for job in json.loads((folder / "sweep.json").read_text())["jobs"]] == [
        "seed=0",
        "seed=1",
        "seed=2",
    ]
    assert main(["sweep", "seed=0,1", "--out", str(folder)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["sweep", "--resume", str(tmp_path)]) == 2
    assert "no folder of a sweep" in capsys.readouterr().err


def test_a_sweep_that_goes_on_keeps_what_it_is_not_told_anew():
    begun = jobs_of(["steps=2", "seed=0,1", "method=grpo,rlcsd"])
    more = jobs_of(["seed=7"], begun)
    assert [(job.name, job.label) for job in more] == [
        ("seed=7,method=grpo", "method=grpo"),
        ("seed=7,method=rlcsd", "method=rlcsd"),
    ]
    assert {job.overrides for job in more} == {("steps=2", "seed=7", f"method={name}") for name in ("grpo", "rlcsd")}
    for changed in (["steps=80"], ["steps=80", "seed=9"], ["learning_rate=0.001", "seed=9"]):
        with pytest.raises(InputError, match=rf"^{changed[0]}: the sweep's other runs are without that"):
            jobs_of(changed, begun)


def test_values_that_are_written_alike_are_runs_of_their_own():
    jobs = jobs_of(["task=files", "task.train=a/b.jsonl,a-b.jsonl"])
    assert len({job.name for job in jobs}) == len({job.label for job in jobs}) == 2
    jobs = jobs_of(["task=files", "task.train=a/b.jsonl,a-b.jsonl", "seed=0,1"])
    assert len({job.name for job in jobs}) == 4 and len({job.label for job in jobs}) == 2


@pytest.mark.parametrize("override", ["hydra/launcher=joblib", "hydra.sweep.dir=elsewhere", "+hydra.launcher.n_jobs=2"])
def test_hydras_launchers_and_folders_are_refused(override, capsys):
    assert main(["sweep", "seed=0,1", override]) == 2
    assert f"{override}: the folder of a sweep is --out FOLDER, and its jobs run one" in capsys.readouterr().err


METHOD = """
from rlcsd.methods import METHODS

class Mine(METHODS["grpo"]):
    name = "mine"
"""
TASK = """
from rlcsd import Problem, Task

def task(size=4):
    return Task("mine", [Problem(f"{n}?", str(n)) for n in range(size)], {}, "exact")
"""


def test_a_sweep_over_a_task_and_methods_in_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD + TASK)
    jobs = jobs_of(["task=mine.py:task", "method=grpo,mine.py:Mine", "seed=0,1"])
    assert [job.name for job in jobs] == [
        "method=grpo,seed=0", "method=grpo,seed=1", "method=mine.py-Mine,seed=0", "method=mine.py-Mine,seed=1",
    ]  # fmt: skip
    config = load(jobs[-1].overrides)
    assert (config.method.name, config.task.name, config.seed) == ("mine.py:Mine", "mine.py:task", 1)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("project=a,b", ["a", "b"]),
        ("project='a,b',c", ["'a,b'", "c"]),
        ('project="it\'s, so",c', ['"it\'s, so"', "c"]),
        ("guard.entropy=[0,1],[0,2],null", ["[0,1]", "[0,2]", "null"]),
        ("lr_scheduler_kwargs={a: 1, b: 2},{}", ["{a: 1, b: 2}", "{}"]),
        ("seed=range(4)", ["0", "1", "2", "3"]),
        ("seed=range(1,8,3)", ["1", "4", "7"]),
        ("project=choice('a,b',c)", ["'a,b'", "c"]),
        ("seed=1, 2", ["1", "2"]),
        ("learning_rate=1e-6,0.5", ["1e-06", "0.5"]),
        ("task=mine.py:task", ["mine.py:task"]),
        ("task.train=C:/a b/x.jsonl,y.jsonl", ["C:/a b/x.jsonl", "y.jsonl"]),
        ("run_name=", [""]),
    ],
)
def test_how_values_are_told_apart(override, values):
    assert parse_override(override) == (override.partition("=")[0], values)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("project='a,b", "has no closing '"),
        ("guard.entropy=[0,1,2", "has no closing ]"),
        ("seed=1,,2", "one of its values is empty"),
        ("seed=range(a,b)", "in whole numbers"),
        ("seed=range(3,1)", "has 0 values"),
        ("seed=range(0,99999999999)", "a sweep takes from 1 to 10000"),
        ("method=glob(x*)", "no method of that pattern"),
        ("seed=glob(*)", "glob() is for model, task, method, objective, engine"),
        ("seed=shuffle(1,2)", "shuffle() is not supported"),
        ("seed", "key=value"),
    ],
)
def test_values_that_cannot_be_read(override, complaint):
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse_override(override)


def test_a_dry_run_prints_a_command_for_each_job(tmp_path, capsys):
    assert main(["sweep", "seed=0,1", *QUICK, "--out", str(tmp_path / "s"), "--dry-run"]) == 0
    commands = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  rlcsd train")]
    assert len(commands) == 2 and not (tmp_path / "s").exists()
    config = load(shlex.split(commands[1])[2:])
    assert (config.seed, config.output_dir, config.run_name) == (1, str(tmp_path / "s"), "seed=1")


def test_runs_of_a_sweep_are_paths_of_models_without_further_quotes(tmp_path, monkeypatch):
    """Their folders have commas and equals signs in their names, which the grammar of overrides reads otherwise."""
    monkeypatch.chdir(tmp_path)
    folders = ["sw/method=grpo,seed=0", "sw/method=grpo,seed=1", "an (odd) 'name'"]
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    for folder in folders:
        assert load([f"model.path={folder}"]).model.path == folder
        assert loading.changed(load(), [f"model.path={folder}"]).model.path == folder
    overrides = [f"model.path={folders[0]},{folders[1]},plain", "seed=0,1"]
    assert parse_override(overrides[0]) == ("model.path", [*folders[:2], "plain"])
    assert [load(job.overrides).model.path for job in jobs_of(overrides)][::2] == [*folders[:2], "plain"]
    with pytest.raises(InputError, match="special characters"):
        load(["model.path=sw/method=sdpo,seed=0"])  # no such folder


def test_a_sweep_in_python_takes_values_and_a_task(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(
        Sweep, "_run_job", lambda self, job: begun.append((load(job.overrides), self.task)) or "stopped"
    )
    task = rlcsd.Task("mine", [rlcsd.Problem("Is 7 even or odd?", "odd")], {}, "exact")
    values = {"method": ["grpo", "rlcsd"], "seed": range(2), "guard.entropy": [[0, 1]], "trackers": [],
              "run_name": None, "figures": False, "project": "a, b"}  # fmt: skip
    with pytest.raises(InputError, match="4 of 4 runs failed"):
        rlcsd.sweep(values, task, tmp_path / "sw", progress=False)
    assert all(given is task for _, given in begun)
    configs = [config for config, _ in begun]
    assert [(c.method.name, c.seed) for c in configs] == [("grpo", 0), ("grpo", 1), ("rlcsd", 0), ("rlcsd", 1)]
    assert {c.project for c in configs} == {"a, b"} and list(configs[0].guard.entropy) == [0, 1]
    assert {c.task.kind for c in configs} == {"own"}

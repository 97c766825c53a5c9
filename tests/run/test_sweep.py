"""Sweeps: Hydra's grammar, one folder, what is left after an interruption, failures, the comparison."""

from __future__ import annotations

import json

import pytest

from rlcsd.cli import main
from rlcsd.errors import InputError
from rlcsd.run import Run
from rlcsd.run.sweep import Sweep, jobs_of, split_hydra
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
    ],
)
def test_every_job_is_checked_before_the_first_begins(overrides, complaint, tmp_path, capsys):
    assert main(["sweep", *overrides, "--out", str(tmp_path / "s")]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_hydras_own_overrides_are_told_apart():
    assert split_hydra(["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]) == (
        ["seed=1,2"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    )
    with pytest.raises(InputError, match=r"hydra/launcher=warp.*rlcsd\[sweep\]"):
        Sweep(__import__("pathlib").Path("never"), ["seed=1,2", "hydra/launcher=warp"])


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


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_hydras_launchers_run_jobs_in_other_processes(launcher, tmp_path, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder = tmp_path / "s"
    assert main(["sweep", "seed=0,1", *QUICK, "--out", str(folder), f"hydra/launcher={launcher}"]) == 0
    assert "| rlcsd | 2 |" in capfd.readouterr().out
    assert {one["job"] for one in read_jsonl(folder / "jobs.jsonl")} == {"seed=0", "seed=1"}


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


def test_values_that_are_written_alike_are_runs_of_their_own_and_hydras_folder_is_refused(tmp_path, capsys):
    jobs = jobs_of(["task=files", "task.train=a/b.jsonl,a-b.jsonl"])
    assert len({job.name for job in jobs}) == len({job.label for job in jobs}) == 2
    assert main(["sweep", "seed=0,1", "hydra.sweep.dir=elsewhere"]) == 2
    assert "the folder of a sweep is --out FOLDER" in capsys.readouterr().err

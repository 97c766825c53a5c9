"""How many threads a run takes, and that it keeps the number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from rlcsd.engine.local import threads
from rlcsd.engine.local.threads import cgroup_cpus, free_threads
from rlcsd.run import Run
from rlcsd.run.resume import resumed_config
from rlcsd.run.told import Told


def test_the_share_of_a_container(tmp_path):
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cpus(tmp_path) == 1.5
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert cgroup_cpus(tmp_path) == 2.0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_cpus(tmp_path) is None


@pytest.fixture
def machine(monkeypatch):
    """A machine of 4 CPUs of which other programs use some."""

    def of(others: float, most: int = 4) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads, "_LOOK", 0.0)
        monkeypatch.setattr(threads, "most_threads", lambda: most)
        monkeypatch.setattr("rlcsd.run.run.most_threads", lambda: most)
        monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 4)
        monkeypatch.setattr(threads.Neighbours, "cpus", lambda self: others)

    return of


@pytest.mark.parametrize(
    ("others", "most", "taken"),
    [(0, 4, 4), (0.4, 4, 4), (0.9, 4, 3), (2, 4, 2), (4, 4, 1), (9, 4, 1), (2, 1, 1), (1, 2, 2)],
)
def test_a_run_takes_the_cpus_that_others_leave(others, most, taken, machine, monkeypatch):
    machine(others, most)
    assert free_threads() == taken
    monkeypatch.setenv("OMP_NUM_THREADS", str(most))
    assert free_threads() == most, "what the user has said counts"


def test_a_run_keeps_the_number_in_its_config_and_says_why(tiny_config, machine):
    machine(2.2)
    heard = Told()
    lines = []
    run = Run(
        tiny_config("engine.threads=0", "steps=1"), watch=lambda event, facts: lines.extend(heard.hear(event, facts))
    )
    run.execute()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["engine"]["threads"] == 2
    assert [line for line in lines if "CPU thread" in line] == [
        "2 CPU threads, not 4, because other programs keep the rest of this machine busy (engine.threads=4 takes all)"
    ]
    machine(0)
    resumed = Run(resumed_config(run.folder), folder=run.folder)
    assert resumed.config.engine.threads == 2 and resumed.left_to_others == 0


def test_no_command_loads_torch_to_say_its_version():
    code = "import sys; from rlcsd.cli.main import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]

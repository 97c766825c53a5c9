"""How many threads a run takes, and that it keeps the number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from rlcsd.config.load import load
from rlcsd.engine.local import threads
from rlcsd.engine.local.threads import cgroup_cpus, own_threads
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
    """A machine of 4 CPUs on which the user has said nothing of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "most_threads", lambda: 4)


def test_a_small_model_has_one_thread_and_a_larger_one_all(machine, monkeypatch, tmp_path):
    assert own_threads(load([])) == 1
    assert own_threads(load(["model=smollm2_135m"])) == 4
    assert own_threads(load([f"model.path={tmp_path / 'nowhere'}"])) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert own_threads(load([])) == 4, "what the user has said counts"


def test_a_run_keeps_the_number_in_its_config(tiny_config, machine, monkeypatch):
    heard = Told()
    lines = []
    run = Run(
        tiny_config("engine.threads=0", "steps=1"), watch=lambda event, facts: lines.extend(heard.hear(event, facts))
    )
    run.execute()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["engine"]["threads"] == 1
    assert [line for line in lines if "CPU thread" in line] == ["1 CPU thread"]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert Run(resumed_config(run.folder), folder=run.folder).config.engine.threads == 1


def test_no_command_loads_torch_to_say_its_version():
    code = "import sys; from rlcsd.cli.main import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]

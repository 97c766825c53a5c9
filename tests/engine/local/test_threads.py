"""How many threads a run takes, beside whom, and that it keeps the number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from rlcsd.engine.local import threads
from rlcsd.engine.local.threads import Threads, cgroup_cpus, choose_threads
from rlcsd.run import Run


@pytest.fixture
def machine(monkeypatch):
    """A machine of eight CPUs of which other programs use some."""

    def build(others: float, most: int = 8) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads.psutil, "cpu_count", lambda: 8)
        monkeypatch.setattr(threads, "most_threads", lambda: most)
        monkeypatch.setattr(threads, "_SECONDS", 0.0)
        monkeypatch.setattr(threads.Neighbours, "cpus", lambda self: others)

    return build


@pytest.mark.parametrize(
    ("others", "most", "count"), [(0.0, 8, 8), (0.3, 8, 8), (2.6, 8, 5), (8.0, 8, 1), (11.0, 8, 1), (5.0, 2, 2)]
)
def test_a_thread_for_each_cpu_that_nobody_else_uses(machine, others, most, count):
    machine(others, most)
    chosen = choose_threads()
    assert chosen == Threads(count, most, others)
    assert (chosen.reason is None) == (count == most)


def test_the_reason_names_the_machine_and_the_way_out(machine):
    machine(2.6)
    reason = choose_threads().reason
    assert "other programs use 2.6 of this machine's 8 CPUs" in reason
    assert "engine.threads=8" in reason


def test_the_users_own_number_counts(machine, monkeypatch):
    machine(8.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert choose_threads().count == 8


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


def test_a_run_keeps_the_number_in_its_config_and_says_why(machine, tiny_config, monkeypatch):
    machine(7.2)
    told = []
    run = Run(tiny_config("engine.threads=0", "steps=1"), watch=lambda event, facts: told.append((event, facts)))
    run.execute()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["engine"]["threads"] == 1
    assert any("other programs use 7.2" in facts["message"] for event, facts in told if event == "warning")
    machine(0.0)
    resumed = Run(run.config, folder=run.folder)
    assert resumed.config.engine.threads == 1


def test_waiting_threads_sleep_and_no_command_loads_torch_to_say_its_version():
    code = (
        "import os, sys; os.environ.pop('OMP_WAIT_POLICY', None); from rlcsd.cli.main import parser; parser();"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PASSIVE", "0", "False"]

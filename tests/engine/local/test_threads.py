"""How many threads a run takes, and that it keeps the number."""

from __future__ import annotations

import subprocess
import sys

import yaml

from rlcsd.engine.local import threads
from rlcsd.engine.local.threads import cgroup_cpus
from rlcsd.run import Run
from rlcsd.run.resume import resumed_config


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


def test_a_run_keeps_the_number_in_its_config(tiny_config, monkeypatch):
    monkeypatch.setattr(threads, "most_threads", lambda: 2)
    run = Run(tiny_config("engine.threads=0", "steps=1"))
    run.execute()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["engine"]["threads"] == 2
    monkeypatch.setattr(threads, "most_threads", lambda: 7)
    resumed = Run(resumed_config(run.folder), folder=run.folder)
    assert resumed.config.engine.threads == 2


def test_no_command_loads_torch_to_say_its_version():
    code = "import sys; from rlcsd.cli.main import parser; parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]

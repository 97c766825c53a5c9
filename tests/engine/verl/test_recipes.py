"""The scripts for real clusters, run with stubs of Slurm's and Ray's programs that record their calls."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import memory_line
from tests.config.test_experiments import MODELS

SCRIPTS = Path(__file__).parents[3] / "examples" / "cluster"
STUBS = {  # each appends its arguments to a file; srun runs the command after its own
    # options, and kills it at SIGTERM, as Slurm's does
    "scontrol": 'printf "node1\\nnode2\\nnode3\\n"',
    "srun": 'say srun "$@"; say cpus "${SRUN_CPUS_PER_TASK-none}"; while [[ $1 == --* ]]; do shift; done; "$@" & trap "kill -KILL $!" TERM; wait $! || wait $!',
    "hostname": "echo 10.0.0.1 10.0.0.2",
    "ray": '[ "$1" != status ] || exit "$(( RANDOM % 2 ))"; say ray "$@"; trap "exit 0" TERM; for i in $(seq 300); do /bin/sleep 0.1; done',
    "rlcsd": 'say rlcsd "$@"; trap "say stopped; exit 143" TERM; for i in $(seq ${SECONDS_OF_RUN:-1}0); do /bin/sleep 0.1; done',
    "sleep": "/bin/sleep 0.2",
}


@pytest.fixture
def started(tmp_path):
    """Starts a script, and returns its process and the lines that the stubs have written."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name, body in STUBS.items():
        path = folder / name
        path.write_text(f'#!/usr/bin/env bash\nsay() {{ echo "$*" >> {log}; }}\n{body}\n')
        path.chmod(0o755)

    def start(script: str, *arguments: str, **variables: str) -> tuple[subprocess.Popen[str], Path]:
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **variables}
        command = ["bash", str(SCRIPTS / script), *arguments]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True), log

    return start


SLURM = {"SLURM_JOB_NODELIST": "node[1-3]", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "64"}


def overrides(calls: list[str]) -> list[str]:
    (train,) = (call.split()[2:] for call in calls if call.startswith("rlcsd train"))
    return train


def test_slurm_starts_ray_on_every_node_and_the_run_on_the_first(started):
    asked = ["model=qwen3_8b", "task=logic_kk", "method=rlcsd", "run_name=first"]
    process, log = started("slurm.sh", *asked, **SLURM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    calls = log.read_text().splitlines()
    rays = [call.split()[1:] for call in calls if call.startswith("ray ")]
    assert ["start", "--block", "--num-gpus=8", "--head", "--port=6379"] in rays
    assert rays.count(["start", "--block", "--num-gpus=8", "--address=10.0.0.1:6379"]) == 2
    places = [word for call in calls if call.startswith("srun") for word in call.split() if "--nodelist" in word]
    assert sorted(places) == ["--nodelist=node1"] * 2 + ["--nodelist=node2", "--nodelist=node3"]
    assert [call for call in calls if call.startswith("cpus")] == ["cpus 64"] * 4  # srun does not inherit it
    config = load(overrides(calls))
    assert config.engine.ray_address == "10.0.0.1:6379" and config.run_name == "first"
    assert (config.engine.nodes, config.engine.gpus_per_node) == (3, 8)
    if find_spec("ray"):
        from ray.scripts.scripts import start

        for words in rays:  # Ray's own command line knows these options
            start.make_context("start", list(words[1:]))


def test_slurms_signal_reaches_the_run(started):
    process, log = started("slurm.sh", "--resume", "runs/first", **SLURM, SECONDS_OF_RUN="30")
    end = time.monotonic() + 30
    while not (log.exists() and "rlcsd train" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    calls = log.read_text().splitlines()
    assert "stopped" in calls
    assert overrides(calls) == ["--resume", "runs/first", "engine.ray_address=10.0.0.1:6379", "engine.nodes=3"]


@pytest.mark.parametrize("model", MODELS)
def test_one_node_fits_each_published_model(model, started):
    process, log = started("one_node.sh", model, "logic_kk", "rlcsd", "run_name=first")
    assert process.wait(60) == 0
    config = load(overrides(log.read_text().splitlines()))
    assert (config.engine.nodes, config.engine.gpus_per_node, config.run_name) == (1, 8, "first")
    assert memory_line(config, build_method(config)).endswith("; fits GPUs of 80 GB")

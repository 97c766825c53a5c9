"""Whole runs on two ranks: killed, resumed on another number of ranks, exported, evaluated by the local engine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rlcsd.cli.main import main
from rlcsd.config.load import load
from rlcsd.engine.verl.verl_engine import VerlEngine
from rlcsd.errors import InputError
from rlcsd.run import Run
from rlcsd.run.checkpoint import checkpoints
from rlcsd.run.folder import resumed_config
from rlcsd.storage import read_jsonl

from .conftest import CPU, ROOT, TASK
from .ranks import PipedCluster, Ranks
from .test_failures import alive, pids

RUN = [*CPU, *TASK, "steps=3", "save_every=1", "evaluation.every=2", "log_rollouts=1", "engine.gpus_per_node=2"]


@pytest.fixture(scope="module")
def sizes():
    """Two ranks and one, without Ray."""
    both = {2: Ranks(2), 1: Ranks(1)}
    yield both
    for ranks in both.values():
        ranks.close()


@pytest.mark.parametrize("method", ["rlcsd", "sdpo"])
def test_a_stopped_run_goes_on_with_one_rank_and_its_export_is_evaluated_locally(
    method, sizes, tmp_path, monkeypatch, capsys
):
    def build(config, method, tokenizer, prompts):
        return VerlEngine(config, method, PipedCluster(sizes[config.engine.gpus_per_node], config))

    def vanish(event, facts) -> None:
        if event == "step" and facts["step"] == 2:
            raise InputError("updating: a process of the cluster died")

    monkeypatch.setattr("rlcsd.run.run.build_engine", build)
    run = Run(load([*RUN, f"method={method}", f"output_dir={tmp_path}", "run_name=run"]), watch=vanish)
    with pytest.raises(InputError, match=r"died; `rlcsd train --resume .*run` goes on from the checkpoint of step 2$"):
        run.execute()
    folder = tmp_path / "run"
    again = Run(resumed_config(folder, ["engine.gpus_per_node=1"]), folder=folder)
    again.execute(resume=True)
    assert [r["step"] for r in read_jsonl(folder / "evaluations.jsonl")] == [0, 2, 3]
    assert [r["step"] for r in read_jsonl(folder / "metrics.jsonl") if "rollout/reward" in r] == [1, 2, 3]
    assert (folder / "report.md").is_file()
    assert main(["eval", *TASK, "engine=local", "engine.device=cpu", f"model.path={folder}"]) == 0
    assert "seen_sizes" in capsys.readouterr().out


def command(*arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "rlcsd.cli", "train", *arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def under_way(parent: Path, name: str, *more: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A run in a process of its own that has saved a step, and the ids of the processes that it started."""
    process = command(*RUN, "method=rlcsd", f"output_dir={parent}", f"run_name={name}", *more)
    end = time.monotonic() + 600
    while not checkpoints(parent / name / "checkpoints"):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1][-2000:]
        time.sleep(0.1)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(children) > 4  # Ray's own, workers, servers
    return process, children


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("ray stop", 2)])
def test_a_run_that_is_stopped_says_from_where_it_goes_on_and_leaves_no_process(how, code, tmp_path):
    process, children = under_way(tmp_path, "stopped", "steps=1000")
    if how == "ray stop":
        subprocess.run([Path(sys.executable).with_name("ray"), "stop"], check=True, capture_output=True)
    else:
        process.send_signal(signal.Signals[how])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code
    assert re.search(r"rlcsd train --resume .*stopped` goes on from the checkpoint of step [1-9]\d*$", errors.strip())
    assert "Traceback" not in errors
    assert alive(children, 100) == []


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_its_run_goes_on_with_one_rank(tmp_path, capsys):
    folder = tmp_path / "killed"
    process, children = under_way(tmp_path, "killed")
    process.kill()
    process.communicate()
    assert alive(children, 100) == []  # Ray's two agents look for their gcs_server for a minute
    begun = len(checkpoints(folder / "checkpoints"))

    process = command("--resume", str(folder), "engine.gpus_per_node=1")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-2000:]
    assert begun < 3 and [r["step"] for r in read_jsonl(folder / "evaluations.jsonl")] == [0, 2, 3]
    steps = [r["step"] for r in read_jsonl(folder / "metrics.jsonl") if "actor/loss" in r or "rollout/reward" in r]
    assert steps == [1, 2, 3]

    assert main(["eval", *TASK, "engine=local", "engine.device=cpu", f"model.path={folder}"]) == 0
    assert "seen_sizes" in capsys.readouterr().out


def test_a_worker_that_dies_ends_the_run_with_a_checkpoint_that_resumes(ray_on_cpu, tmp_path):
    def kill(event, facts) -> None:
        if event == "step" and facts["step"] == 2:
            os.kill(pids(run.engine)[1], signal.SIGKILL)

    config = load([*RUN, "method=sdpo", f"output_dir={tmp_path}", "run_name=died"])
    run = Run(config, watch=kill)
    with pytest.raises(InputError, match=r"(?s)^step 2: .*died.*goes on from the checkpoint of step 1$") as raised:
        run.execute()
    assert "\n" not in str(raised.value)
    folder = tmp_path / "died"
    again = Run(resumed_config(folder, ["engine.gpus_per_node=1"]), folder=folder)
    again.execute(resume=True)
    assert [r["step"] for r in read_jsonl(folder / "evaluations.jsonl")] == [0, 2, 3]
    assert Path(folder / "report.md").is_file()

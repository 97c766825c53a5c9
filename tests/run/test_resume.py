"""Interrupted runs: killed, stopped by a signal, resumed with other settings, other data, damaged logs, or twice."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rlcsd
from rlcsd import Problem, Task
from rlcsd.cli import main
from rlcsd.run import Run
from rlcsd.run.checkpoint import checkpoints, data_hash, read_facts, step_of
from rlcsd.run.folder import RunLock, lock_new
from rlcsd.run.stop import Interrupted
from rlcsd.storage import append_jsonl, read_jsonl

from . import kills


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    kills.finish(folder)
    return folder


def copy_of(run: Path, to: Path, *without: int) -> Path:
    import shutil

    shutil.copytree(run, to)
    for step in without:
        shutil.rmtree(to / f"checkpoints/step_{step:06d}")
    return to


def test_killed_runs_resume_to_the_same_run(tmp_path):
    figures = kills.trials(tmp_path, kills=2, chain=2, seed=0)
    assert figures["identical"] == figures["runs"], figures
    assert figures["kills"] >= 2


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("metrics.jsonl", b'{"step": 3, "x'),
        ("rollouts.jsonl", b"\0" * 4096),
        ("metrics.jsonl", b"\n\n"),
        ("rollouts.jsonl", '{"text": "a\u2028b"}\n'.encode()),
        ("evaluations.jsonl", b"\xff\xfe"),
    ],
)
def test_whatever_stands_behind_the_checkpoints_log_is_cut(undisturbed, tail, name, tmp_path):
    run = copy_of(undisturbed, tmp_path / "run", 6)
    with (run / name).open("ab") as file:
        file.write(tail)
    assert main(["train", "--resume", str(run)]) == 0
    assert kills.differences(undisturbed, run) == []


def test_an_evaluation_that_is_missing_is_made_up_for(undisturbed, tmp_path):
    run = copy_of(undisturbed, tmp_path / "run", 6)
    kept = [record for record in read_jsonl(run / "evaluations.jsonl") if record["step"] < 4]
    (run / "evaluations.jsonl").unlink()
    append_jsonl(run / "evaluations.jsonl", *kept)
    assert main(["train", "--resume", str(run)]) == 0
    assert kills.differences(undisturbed, run) == []


def test_a_finished_run_says_so_and_can_go_further(undisturbed, tmp_path, capsys):
    run = copy_of(undisturbed, tmp_path / "run")
    assert main(["train", "--resume", str(run)]) == 0
    assert "the run is finished" in capsys.readouterr().out
    assert kills.differences(undisturbed, run) == []
    assert main(["train", "--resume", str(run), "steps=7"]) == 0
    steps = [record["step"] for record in read_jsonl(run / "metrics.jsonl") if "time/step" in record]
    assert steps == list(range(1, 8))
    assert [record["step"] for record in read_jsonl(run / "evaluations.jsonl")] == [0, 2, 4, 6, 7]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["learning_rate=1"], "a resumed run keeps its learning_rate"),
        (["steps=1"], "steps=1: the run has already done"),
        (["steps=null", "epochs=1"], "epochs=1, which are 2 steps: the run has already done"),
        (["seed=4"], "a resumed run keeps its seed"),
        (["stepz=9"], "stepz"),
    ],
)
def test_what_may_not_change(undisturbed, overrides, complaint, tmp_path, capsys):
    run = copy_of(undisturbed, tmp_path / "run")
    for dry in ([], ["--dry-run"]):
        assert main(["train", "--resume", str(run), *overrides, *dry]) == 2
        assert complaint in capsys.readouterr().err
    assert kills.differences(undisturbed, run) == []


def test_an_edited_config_is_noticed(undisturbed, tmp_path, capsys):
    run = copy_of(undisturbed, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("group_size: 4", "group_size: 5"))
    for dry in ([], ["--dry-run"]):
        assert main(["train", "--resume", str(run), *dry]) == 2
        assert "group_size=5: the run of" in capsys.readouterr().err
    assert kills.differences(undisturbed, run) == []


def test_other_data_is_noticed(tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    rows = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(8)]
    append_jsonl(data, *rows)
    arguments = ["task=files", f"task.train={data}", f"output_dir={tmp_path}", "run_name=run", "steps=1", "trackers=[]"]
    arguments += [
        "prompts_per_step=2",
        "prompts_per_update=1",
        "group_size=3",
        "sampling.max_tokens=8",
        "figures=false",
    ]
    assert main(["train", *arguments, "engine.threads=1"]) == 0
    data.write_text(data.read_text().replace("7 + 1", "7+1"))
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert "the problems are not those" in capsys.readouterr().err


def test_the_hash_of_data_is_that_of_its_values_in_every_process():
    class Tool:
        pass

    def made(**changes):
        extra = {1: "a", "b": {"x", "y"}, ("c", 2): Tool(), "run": made, "at": None, "day": datetime.date(2026, 1, 1)}
        return Task("t", [Problem("1?", "1", extra={**extra, **changes})], {}, "exact")

    assert data_hash(made()) == data_hash(made())
    assert data_hash(made()) != data_hash(made(at=0)) != data_hash(made(b={"x", "z"}))
    plain = Task("t", [Problem("1?", "1", extra={"n": 1, "deep": [{"a": None}]})], {}, "exact")
    record = (
        '{"answer": "1", "extra": {"deep": [{"a": null}], "n": 1}, "group": "", "question": "1?", "solution": null}'
    )
    assert data_hash(plain) == hashlib.sha256(record.encode() + b"\n").hexdigest()


def test_one_process_holds_the_folder(undisturbed, tmp_path, capsys):
    run = copy_of(undisturbed, tmp_path / "run", 6)
    holder = RunLock(run)
    holder.acquire()
    assert main(["train", "--resume", str(run)]) == 2
    assert "another process is training in this run folder" in capsys.readouterr().err
    holder.release()
    assert main(["train", "--resume", str(run)]) == 0
    assert kills.differences(undisturbed, run) == []


def test_runs_that_chose_one_folder_while_they_loaded_do_not_share_it(tmp_path):
    chosen = tmp_path / "runs" / "made-of-the-time"
    locks = [lock_new(chosen, named=False) for _ in range(2)]
    assert [lock.folder.name for lock in locks] == ["made-of-the-time", "made-of-the-time-2"]
    lock = lock_new(tmp_path / "n", named=True)
    with pytest.raises(rlcsd.InputError, match="another process is training"):
        lock_new(tmp_path / "n", named=True)
    (tmp_path / "n/config.yaml").touch()
    lock.release()
    with pytest.raises(rlcsd.InputError, match=r"run_name=n: .* already holds a run"):
        lock_new(tmp_path / "n", named=True)
    RunLock(tmp_path / "n").acquire()  # what was refused has been released


def test_two_runs_at_once_do_not_mix(undisturbed, tmp_path):
    both = [kills.start(tmp_path / "run") for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    refused = "".join(errors)
    assert "another process is training" in refused or "already holds a run" in refused
    assert kills.differences(undisturbed, tmp_path / "run") == []


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGHUP))],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(undisturbed, number, tmp_path):
    run = tmp_path / "run"
    process = kills.start(run)
    deadline = time.monotonic() + 120
    while not any("time/step" in r for r in read_jsonl(run / "metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    assert f"rlcsd train --resume {run}` goes on from" in errors.decode()
    assert b"Traceback" not in errors
    done = max(r["step"] for r in read_jsonl(run / "metrics.jsonl"))
    assert checkpoints(run / "checkpoints")[-1].name == f"step_{done:06d}"
    kills.finish(run)
    assert [d for d in kills.differences(undisturbed, run) if not d.startswith("checkpoints")] == []


@pytest.mark.parametrize(("phase", "saved"), [("sample", [1]), ("update", [])])
def test_a_second_signal_saves_no_weights_that_are_beyond_the_last_step(phase, saved, tiny_config):
    steps = []

    def watch(event, facts):
        steps.extend([facts["step"]] if event == "step" else [])
        if event == "phase" and facts["phase"] == phase and steps == [1]:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    run = Run(tiny_config("method=grpo", "entropy_coefficient=0.1", "steps=3", "save_every=0", "engine.self_check=false",
                          "sampling.max_tokens=16", "evaluation.before=false"), watch=watch)  # fmt: skip
    with pytest.raises(Interrupted, match="within step 2 of 3.*from the beginning" if phase == "update" else "step 1"):
        run.execute()
    assert [step_of(path) for path in checkpoints(run.folder / "checkpoints")] == saved


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_nobody_takes_does_not_end_a_run(undisturbed, tmp_path):
    run = copy_of(undisturbed, tmp_path / "run", 6)
    command = [sys.executable, "-m", "rlcsd.cli", "train", "--resume", str(run)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "ascii"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert b"the run goes on in silence" in done.stderr
    assert b"Traceback" not in done.stderr
    assert kills.differences(undisturbed, run) == []


def test_a_closed_pipe_is_no_traceback():
    command = f"{sys.executable} -m rlcsd.cli config keys | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""
    assert done.stdout


def test_a_full_disk_ends_in_a_sentence_and_keeps_the_last_checkpoint(tiny_config, tmp_path, monkeypatch):
    from rlcsd.engine.local.local_engine import LocalEngine

    save = LocalEngine.save_state

    def full(self, folder):
        if "000002" in str(folder):
            raise RuntimeError("I/O error: No space left on device (os error 28)")
        save(self, folder)

    monkeypatch.setattr(LocalEngine, "save_state", full)
    with pytest.raises(rlcsd.InputError, match=r"no space is left.*goes on from the checkpoint of step 1"):
        Run(tiny_config("save_every=1", "run_name=run")).execute()
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_000001"]


def test_a_removed_folder_ends_in_a_sentence(tiny_config, tmp_path):
    import shutil

    def remove(event, facts):
        if event == "step":
            shutil.rmtree(tmp_path / "run")

    with pytest.raises(rlcsd.InputError, match="was removed while the run was going on"):
        Run(tiny_config("save_every=1", "run_name=run"), watch=remove).execute()


def test_a_plugin_in_a_config_is_named_before_it_runs(undisturbed, tmp_path, capsys):
    run = copy_of(undisturbed, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("name: rlcsd", "name: nowhere/planted.py:Method"))
    assert main(["train", "--resume", str(run)]) == 2
    assert "names code outside the package: method.name=nowhere/planted.py:Method" in capsys.readouterr().err


def test_no_state_holds_code(undisturbed):
    endings = {path.suffix for path in (undisturbed / "checkpoints").rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".jinja", ".txt"}
    facts = json.loads(next((undisturbed / "checkpoints").glob("*/state/step.json")).read_text())
    assert {"logs", "config", "data", "threads"} <= facts.keys()


@pytest.mark.parametrize("error", [rlcsd.InputError("the judge is down"), RuntimeError("the judge is down")])
def test_an_error_before_an_update_saves_the_steps_that_are_done(error, tiny_config, tmp_path, monkeypatch):
    settings = ("steps=3", "save_every=0", "evaluation.before=false")
    whole = Run(tiny_config(*settings, "run_name=whole")).execute()
    from rlcsd import trainer

    grade, calls = trainer.grade, []

    def broken(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return grade(*arguments, **options)

    messages = []
    run = Run(tiny_config(*settings, "run_name=cut"), watch=lambda event, facts: messages.append(facts.get("message")))
    monkeypatch.setattr(trainer, "grade", broken)
    with pytest.raises(type(error), match="the judge is down") as raised:
        run.execute()
    said = str(raised.value) if isinstance(error, rlcsd.InputError) else messages[-1]
    assert "step 3" in said and said.endswith("goes on from the checkpoint of step 2")
    resumed = rlcsd.train([], resume=tmp_path / "cut", progress=False)
    assert resumed["after"] == whole["after"]
    assert read_jsonl(tmp_path / "cut/rollouts.jsonl") == read_jsonl(tmp_path / "whole/rollouts.jsonl")


def test_an_error_between_updates_keeps_the_steps_that_are_done_and_says_what_else_it_keeps(
    tiny_config, tmp_path, monkeypatch
):
    from rlcsd.engine.local.local_engine import LocalEngine
    from rlcsd.health import DivergedError

    update, calls, problem = LocalEngine.update, [], RuntimeError("CUDA out of memory")

    def broken(self, *arguments):
        calls.append(1)
        if len(calls) == 6:  # the second of step 3
            raise problem
        return update(self, *arguments)

    monkeypatch.setattr(LocalEngine, "update", broken)
    settings = ("method=grpo", "steps=3", "save_every=0", "evaluation.before=false", "engine.self_check=false")
    said = []

    def watch(event, facts):
        said.append(facts.get("message", ""))

    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        Run(tiny_config(*settings, "run_name=cut"), watch=watch).execute()
    assert "the checkpoint of step 2 holds 1 update of step 3 as well" in said[-2]
    assert said[-1].endswith("goes on from the checkpoint of step 2")
    rlcsd.train([], resume=tmp_path / "cut", progress=False, watch=watch)
    assert "the checkpoint of step 2 holds 1 update of step 3 as well" in "\n".join(said[-20:])
    assert [r["step"] for r in read_jsonl(tmp_path / "cut/metrics.jsonl") if "time/step" in r] == [1, 2, 3]
    calls.clear()
    problem = DivergedError("the weights are not finite")
    with pytest.raises(rlcsd.InputError, match="goes on from the beginning"):
        Run(tiny_config(*settings, "run_name=lost")).execute()


def test_a_step_whose_record_cannot_be_written_is_done(tiny_config, tmp_path, monkeypatch):
    """A tracker that fails is no reason to make the step again from other weights."""
    from rlcsd.run import run as module

    def fail(*arguments):
        raise ConnectionError("the tracker is gone")

    monkeypatch.setattr(module, "rollout_records", fail)
    settings = ("method=grpo", "steps=1", "save_every=0", "evaluation.before=false", "engine.self_check=false")
    with pytest.raises(ConnectionError):
        Run(tiny_config(*settings, "run_name=cut")).execute()
    (saved,) = checkpoints(tmp_path / "cut/checkpoints")
    assert saved.name == "step_000001" and read_facts(saved)["begun"] == 0

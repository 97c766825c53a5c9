"""`rlcsd doctor`: a sound machine, and planted faults. The engine is tried in a process of its own, as a user's is."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest
import torch

from rlcsd import plugins
from rlcsd.cli import main
from rlcsd.config.load import load
from rlcsd.engine.local.model import TINY
from rlcsd.run import doctor as module
from rlcsd.run.doctor import doctor
from tests.conftest import untrained_checkpoint

from . import doctor_targets

QUICK = [
    "engine.threads=1",
    "task.train_per_size=16",
    "task.eval_per_size=4",
    "task.train_sizes=[3]",
    "task.unseen_sizes=[]",
]
BIG = ["model=qwen3_8b", "task=logic_kk", "method=rlcsd", "task.train_per_size=64", "task.eval_per_size=2"]


def lines(findings) -> dict[str, str]:
    return {finding.name: str(finding) for finding in findings}


def only(monkeypatch, *names):
    """Leave out the checks that start processes, and all others but `names`."""
    monkeypatch.setattr(module, "_all_reduce", lambda config: ())
    monkeypatch.setattr(module, "_in_a_process", lambda *arguments: ())
    monkeypatch.setattr(module, "check_engine", lambda config: None)
    for name in {"versions", "driver", "gpus", "memory", "disk", "attention", "data"} - set(names):
        monkeypatch.setattr(module, f"_{name}", lambda config: ())


def test_the_folder_of_a_run_stands_for_its_newest_checkpoint(monkeypatch, tmp_path):
    only(monkeypatch, "memory")
    (tmp_path / "config.yaml").touch()
    found = lines(doctor(load([f"model.path={tmp_path}", *QUICK])))
    assert found == {"model": f"fail  model        model.path={tmp_path}: this run has no checkpoint yet"}
    untrained_checkpoint(tmp_path)
    assert lines(doctor(load([f"model.path={tmp_path}", *QUICK])))["memory"].startswith("ok ")


def test_what_the_run_refuses_before_it_begins_fails(monkeypatch, tmp_path):
    only(monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "file").touch()
    found = lines(doctor(load([f"output_dir={tmp_path}/file", "push_to_hub=me/x", *QUICK])))
    assert found["folder"].endswith("file is a file; choose a folder") and "push_to_hub=me/x" in found["hub"]


@pytest.mark.parametrize("seconds", ["inf", "nan", "0", "-5"])
def test_its_time_limit_is_a_number_of_seconds(seconds, capsys):
    assert main(["doctor", f"--seconds={seconds}"]) == 2
    assert "--seconds" in capsys.readouterr().err


def test_a_sound_machine_passes_with_every_line(tmp_path, capsys):
    """Real processes: two ranks over gloo, and the engine with a training step whose new weights the sampler has."""
    assert main(["doctor", *QUICK, f"output_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in shown), shown
    names = [line.split()[1] for line in shown]
    assert names == ["versions", "driver", "memory", "disk", "attention", "data", "all-reduce", "engine", "sampling",
                     "step", "weights"]  # fmt: skip
    assert "gloo over 2 processes" in shown[6] and "self-check passed" in shown[7]
    assert list(tmp_path.iterdir()) == []  # nothing of the run is written


@pytest.mark.slow
def test_an_engine_that_does_not_start_is_a_line_and_exit_code_1(tmp_path, capsys, monkeypatch):
    """The weights of the model are cut off: it loads in the engine's own process, which says so and ends."""
    monkeypatch.setattr(module, "_all_reduce", lambda config: ())
    folder = shutil.copytree(TINY, tmp_path / "model")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100_000])
    assert main(["doctor", *QUICK, f"model.path={folder}"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert len(failed) == 1 and re.match(r"fail  engine +\S.*log", failed[0]), failed


def test_a_crash_and_a_hang_of_the_engine_are_lines():
    before = set(multiprocessing.active_children())
    (crash,) = module._in_a_process(doctor_targets.killed, None, 120)
    assert str(crash).startswith("fail  engine") and "its process ended with signal 9" in crash.what
    (waited,) = module._in_a_process(doctor_targets.hanging, None, 0.5)
    assert waited.status == "fail" and "no answer within" in waited.what
    assert set(multiprocessing.active_children()) <= before


def test_wrong_versions_are_named_with_what_is_right(monkeypatch):
    only(monkeypatch, "versions")
    monkeypatch.setattr(
        plugins, "version", lambda name: {"torch": "2.13.1", "numpy": "1.20"}.get(name) or version(name)
    )
    (found,) = doctor(load(QUICK))
    assert found.status == "fail" and "numpy 1.20 (needs >=1.26)" in found.what and "torch" not in found.what
    monkeypatch.setattr(plugins, "version", lambda name: {"torch": "2.13.1"}.get(name) or version(name))
    (found,) = doctor(load(QUICK))
    assert str(found).startswith("warn  versions") and "torch 2.13.1 (set: 2.13.0)" in found.what
    monkeypatch.setattr(plugins, "version", absent("verl", "vllm"))
    found = lines(doctor(load([*BIG, "engine=verl"])))["versions"]
    assert found.startswith("fail") and "verl is missing (needs <0.9.2,>=0.9.1)" in found and "vllm is missing" in found


def absent(*names):
    def find(name):
        if name in names:
            raise PackageNotFoundError(name)
        return version(name)

    return find


@pytest.mark.parametrize(
    ("driver", "cuda", "gpus", "status", "words"),
    [
        (None, None, 0, "fail", "no NVIDIA driver answers nvidia-smi"),
        ("580.95.05", None, 0, "fail", "built for CPUs; pip install -c requirements-gpu.lock torch"),
        ("535.183.01", "13.0", 0, "fail", "CUDA 13.0 needs driver 580 or newer"),
        ("580.95.05", "13.0", 0, "fail", "torch sees no GPU; see CUDA_VISIBLE_DEVICES"),
        ("580.95.05", "13.0", 8, "ok", "driver 580.95.05, torch built with CUDA 13.0"),
        ("535.183.01", "12.8", 8, "ok", "driver 535.183.01"),
    ],
)
def test_the_driver_fits_the_cuda_of_torch(driver, cuda, gpus, status, words, monkeypatch):
    only(monkeypatch, "driver")
    monkeypatch.setattr(module, "_nvidia_driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    found = lines(doctor(load([*BIG, "engine=verl"])))["driver"]
    assert found.startswith(status) and words in found


def test_too_few_gpus_and_taken_memory(monkeypatch):
    only(monkeypatch, "gpus", "memory")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((60 if index else 79) * 2**30, 80 * 2**30))
    card = SimpleNamespace(total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    few = lines(doctor(load([*BIG, "engine=verl"])))["GPUs"]
    assert few == "fail  GPUs         4 here, and the run asks for 8; lower engine.gpus_per_node"
    found = [str(one) for one in doctor(load([*BIG, "engine=verl", "engine.gpus_per_node=2"]))]
    assert found[0] == "ok    GPU          0: H100, 79 of 80 GiB free"
    assert found[1].startswith("warn  GPU          1: H100, 60 of 80 GiB free; another program")
    assert found[2].startswith("warn  memory")  # 8B in full on two cards


def test_a_gpu_without_vllm_or_flash_attention_gets_advice(monkeypatch):
    only(monkeypatch, "attention")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    found = lines(doctor(load([*BIG, "engine.device=cuda"])))
    assert found["sampler"].startswith("warn") and "'rlcsd[vllm]'" in found["sampler"]
    assert "flash-attn" in lines(doctor(load([*BIG, "engine=verl"])))["attention"]
    assert "sampler" not in lines(doctor(load([*BIG, "engine.device=cpu"])))


def test_no_room_on_the_disk(monkeypatch, tmp_path):
    only(monkeypatch, "disk")
    for free, status, words in (
        (50e9, "fail", "choose another output_dir: not one checkpoint fits"),
        (500e9, "warn", "lower keep_last"),
        (5e12, "ok", "5 checkpoints of about 152.6 GiB"),  # 8.19 B parameters, 20 bytes each
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        found = lines(doctor(load([*BIG, f"output_dir={tmp_path}/runs"])))["disk"]
        assert found.startswith(status) and words in found, found


def test_data_that_is_not_here(monkeypatch, tmp_path):
    only(monkeypatch, "data")
    monkeypatch.chdir(tmp_path)
    found = lines(doctor(load(["model=tiny", "task=math_deepmath", "method=grpo"])))["data"]
    assert found.startswith("fail") and "there is no file" in found

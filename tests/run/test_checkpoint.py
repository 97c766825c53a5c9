"""Checkpoints: the newest whole one is found, damage of any kind is noticed, old ones make room."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import rlcsd
from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine
from rlcsd.run.checkpoint import checkpoints, latest_checkpoint, load_checkpoint, newest_whole, prune, save_checkpoint
from rlcsd.storage import damage, write_manifest


def fake(folder: Path, step: int) -> Path:
    path = folder / f"step_{step:06d}"
    (path / "state").mkdir(parents=True)
    (path / "state/step.json").write_text(f'{{"step": {step}}}')
    write_manifest(path)
    return path


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A real checkpoint of the tiny model after no step."""
    config = load(["engine.threads=1", "engine.self_check=false"])
    engine = build_engine(config, build_method(config))
    return engine, save_checkpoint(tmp_path_factory.mktemp("checkpoints"), engine, 3)


def test_the_latest_checkpoint_is_the_highest_step_that_is_whole(tmp_path):
    for step in (2, 1_000_000, 9):
        fake(tmp_path, step)
    (tmp_path / "step_2000000").mkdir()  # without a manifest: its writing never ended
    (tmp_path / "step_notes").mkdir()
    assert latest_checkpoint(tmp_path).name == "step_1000000"
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_every_flipped_bit_is_found(saved, tmp_path):
    _, path = saved
    rng = random.Random(0)
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    assert {file.name for file in files} >= {"model.safetensors", "manifest.json", "optimizer.json", "step.json"}
    for number, file in enumerate(files * 3):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy)
        flip(copy / file.relative_to(path), rng.randrange(8 * file.stat().st_size))
        assert damage(copy) is not None, file
        shutil.rmtree(copy)
    assert damage(path) is None


@pytest.mark.parametrize("harm", ["missing", "cut", "empty manifest", "no manifest"])
def test_missing_and_cut_files_are_found(saved, harm, tmp_path):
    copy = shutil.copytree(saved[1], tmp_path / "step_000003")
    match harm:
        case "missing":
            (copy / "state/random.safetensors").unlink()
        case "cut":
            (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-1])
        case "empty manifest":
            (copy / "manifest.json").write_bytes(b"")
        case _:
            (copy / "manifest.json").unlink()
    assert damage(copy)
    with pytest.raises(rlcsd.InputError, match="no other checkpoint of this run is whole"):
        newest_whole(tmp_path)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    older, newer = fake(tmp_path, 2), fake(tmp_path, 4)
    flip(newer / "state/step.json", 5)
    found, complaints = newest_whole(tmp_path)
    assert found == older
    assert len(complaints) == 1
    assert "step_000004: state/step.json is damaged" in complaints[0]


def test_loading_gives_the_saved_step_back(saved):
    engine, path = saved
    assert load_checkpoint(path, engine) == 3


def test_only_the_newest_and_the_best_stay(tmp_path):
    for step in range(1, 7):
        fake(tmp_path, step)
    prune(tmp_path, None, None)
    assert len(checkpoints(tmp_path)) == 6
    prune(tmp_path, 2, 1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000001", "step_000005", "step_000006"]
    assert not list(tmp_path.glob(".*"))

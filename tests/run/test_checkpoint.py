"""Checkpoints: the newest whole one is found, damage is noticed, old ones are pruned; early stopping and the best step."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rlcsd
from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine
from rlcsd.errors import InputError
from rlcsd.evaluation import Summary, no_longer_better
from rlcsd.run import Run
from rlcsd.run.checkpoint import (
    best_step,
    check_same_run,
    checkpoint_writer,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    newest_whole,
    prune,
    save_checkpoint,
)
from rlcsd.storage import damage, read_jsonl, write_manifest
from rlcsd.tasks.given_task import data_hash
from rlcsd.tasks.registry import build_task


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


def test_the_generators_of_gpus_are_saved_and_restored(saved, tmp_path, monkeypatch):
    engine, _ = saved
    restored = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index: torch.full((4,), 7 + index, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, index: restored.append((int(state[0]), index)))
    path = checkpoint_writer(tmp_path, engine, 3)()
    load_checkpoint(path, engine)
    assert restored == [(7, 0), (8, 1)]


def test_only_the_newest_and_the_best_stay(tmp_path):
    for step in range(1, 7):
        fake(tmp_path, step)
    prune(tmp_path, 6, None, None)
    assert len(checkpoints(tmp_path)) == 6
    prune(tmp_path, 5, 2, 1)  # that of step 6 is damaged
    names = ["step_000001", "step_000004", "step_000005", "step_000006"]
    assert [path.name for path in checkpoints(tmp_path)] == names
    prune(tmp_path, 6, 1, None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000006"]
    assert not list(tmp_path.glob(".*"))


SET = Summary("s", 4, 1, 0.5, 0.4, 0.6, {1: 0.5}, 1.0, 0.0, 9.0)


def evaluations(*means: float):
    return [(2 * number, [replace(SET, mean=mean)]) for number, mean in enumerate(means)]


@pytest.mark.parametrize(
    ("means", "patience", "min_gain", "stops"),
    [
        ((0.5, 0.5, 0.5), 2, 0.0, True),
        ((0.5, 0.5, 0.6), 2, 0.0, False),
        ((0.5, 0.6, 0.55, 0.6), 2, 0.0, True),
        ((0.5, 0.52, 0.54), 2, 0.05, True),
        ((0.5, 0.4), 2, 0.0, False),
        ((0.5, 0.1, 0.1, 0.1), 0, 0.0, False),
    ],
)
def test_when_a_run_no_longer_gets_better(means, patience, min_gain, stops):
    assert no_longer_better([found for _, found in evaluations(*means)], patience, min_gain) == stops


def test_the_best_step_is_the_first_of_equals_and_was_trained():
    assert best_step(evaluations(0.9, 0.5, 0.6, 0.6)) == 4
    assert best_step(evaluations(0.9, 0.5, 0.6, 0.7), saved=[2, 4]) == 4
    assert best_step([]) is None


def test_best_is_the_reported_average_whatever_kinds_the_sets_have():
    """One set has two kinds: a mean over all summaries would count it three times, and find step 20 better."""
    names = ("small", "large", "large: a", "large: b", "average")
    means = {10: (0.9, 0.2, 0.2, 0.2, 0.55), 20: (0.5, 0.4, 0.4, 0.4, 0.45)}
    found = [
        (step, [replace(SET, name=name, mean=mean) for name, mean in zip(names, values, strict=True)])
        for step, values in means.items()
    ]
    assert best_step(found) == 10
    assert no_longer_better([summaries for _, summaries in found], 1, 0.0)


def test_patience_needs_evaluations():
    with pytest.raises(rlcsd.InputError, match=r"set evaluation\.every"):
        rlcsd.load_config(["evaluation.patience=2", "evaluation.every=0"])


def test_the_best_step_is_saved_though_no_checkpoint_is_due(tiny_config, monkeypatch):
    means = iter([0.5, 0.6, 0.9, 0.7, 0.8])

    def evaluate(engine, task, settings, keep):
        return [replace(SET, mean=next(means))], []

    monkeypatch.setattr("rlcsd.evaluation.evaluate", evaluate)
    run = Run(tiny_config("steps=4", "evaluation.every=1", "save_every=3", "keep_last=1"))
    run.execute()
    assert [path.name for path in checkpoints(run.folder / "checkpoints")] == ["step_000002", "step_000004"]
    assert best_step(run.evaluations) == 2


def test_a_stopped_run_is_whole_and_goes_further_when_it_may(tiny_config):
    settings = ("steps=6", "evaluation.every=1", "evaluation.patience=2", "evaluation.min_gain=1.0", "save_every=0")
    told = []
    run = Run(tiny_config(*settings), watch=lambda event, facts: told.append(facts.get("message", "")))
    result = run.execute()
    (stopped,) = [message for message in told if "stopped early after step 2 of 6" in message]
    best = max((1, 2), key=lambda step: (sum(one.mean for one in dict(run.evaluations)[step][-1:]), -step))
    kept = "whose checkpoint is kept" if best == 2 else "which was not saved; the best of the saved steps, 2, is kept"
    assert stopped.endswith(f"the best was step {best}, {kept}")
    assert [path.name for path in checkpoints(run.folder / "checkpoints")] == ["step_000002"]
    assert (run.folder / "report.md").is_file()
    assert result["after"]
    again = rlcsd.train([], resume=run.folder, progress=False)
    assert again["after"] == result["after"]
    rlcsd.train(["evaluation.patience=0", "steps=3"], resume=run.folder, progress=False)
    assert [r["step"] for r in read_jsonl(run.folder / "evaluations.jsonl")] == [0, 1, 2, 3]


def test_a_checkpoint_in_the_background_holds_the_step_it_was_asked_for(saved, tmp_path):
    """It is written from a copy: what the engine learns meanwhile is not in it."""
    engine, path = saved
    engine.config = engine.config.model_copy(update={"save_in_background": True})
    write = checkpoint_writer(tmp_path, engine, 3, {}, engine.snapshot())
    weight = next(iter(engine.policy.trainable()))
    with torch.no_grad():
        weight += 1.0
    later = write()
    with torch.no_grad():
        weight -= 1.0
    engine.config = engine.config.model_copy(update={"save_in_background": None})
    assert engine.snapshot() is None, "on a CPU a copy gains nothing"
    for name in ("model.safetensors", "state/trained.safetensors"):
        before, after = load_file(path / name), load_file(later / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    assert load_checkpoint(later, engine) == 3


def test_an_error_in_the_background_ends_the_run_at_the_next_step(tiny_config, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = Run(
        tiny_config("method=grpo", "save_every=1", "save_in_background=true", "evaluation.before=false", "run_name=r")
    )
    monkeypatch.setattr("rlcsd.run.checkpoint.write_manifest", full)
    with pytest.raises(rlcsd.InputError, match=r"no space is left on the disk.*goes on from the beginning"):
        run.execute()
    assert checkpoints(run.folder / "checkpoints") == []
    assert not list((run.folder / "checkpoints").iterdir())


def test_a_checkpoint_of_a_version_with_fewer_keys_belongs_to_the_same_run():
    config = load(["method=grpo", "task.train_per_size=4", "task.eval_per_size=2"])
    task, then = build_task(config.task), config.model_dump(mode="json")
    for key in ("sampling_mask", "shuffle", "overlong", "rollout_rejection"):
        del then[key]
    then["rollout_correction"] = "token"  # its name at that time
    facts = {"step": 2, "config": then, "data": data_hash(task)}
    check_same_run(Path("step_000002"), facts, config, task, 2)
    with pytest.raises(InputError, match=r"shuffle=False: the run of step_000002 has shuffle=True"):
        check_same_run(Path("step_000002"), facts, load(["method=grpo", "shuffle=false"]), task, None)

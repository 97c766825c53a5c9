"""Whole runs on the shipped tiny model: all methods, reproducibility, resuming, a user's own task and method."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import rlcsd
from rlcsd.engine.local.model import TINY
from rlcsd.methods import METHODS, HintedConfig
from rlcsd.run import Run
from rlcsd.run.checkpoint import latest_checkpoint
from rlcsd.run.push import export
from rlcsd.storage import read_jsonl
from tests.methods.catalogue import BASELINES, overrides_of

METHODS_PAGE = Path(__file__).parents[2] / "docs/methods.md"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(latest_checkpoint(folder / "checkpoints") / "model.safetensors")


@pytest.mark.parametrize("name", [*(name for name in METHODS if name not in BASELINES), "dapo"])
def test_two_steps_of_every_method(name, tiny_config):
    more = ["refill_batches=1"] if name == "dapo" else []
    result = Run(tiny_config(*overrides_of(name), *more, "learning_rate=1e-4", "warmup_steps=0")).execute()
    folder = Path(result["folder"])
    steps = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    assert [record["step"] for record in steps] == [1, 2]
    expected = {
        "actor/loss",
        "actor/entropy",
        "actor/kl_to_old",
        "actor/grad_norm",
        "rollout/length",
        "rollout/reward",
        "time/update",
    }
    method = METHODS[name]
    if issubclass(method.Config, HintedConfig):
        expected |= {"teacher/gap", "hints/skipped_rollouts", "hints/correct_pool", "hints/wrong_pool"}
    if method.needs_contrast:
        expected |= {"e_ctr/mean", "e_ctr/p95", "hints/wrong_mean"}
    if name == "rlcsd":
        expected |= {"rlcsd/selected_share", "rlcsd/selected_weight"}
    if "epsilon" in method.Config.model_fields:
        expected |= {"actor/clip_fraction", "actor/clip_fraction_low", "actor/clip_fraction_high"}
    if name == "dapo":
        expected |= {"reward/overlong", "refill/batches"}
    logged = {name for record in steps for name in record}  # one of the two may be without an update
    assert expected <= logged, expected - logged
    for record in steps:
        assert all(value is not None and math.isfinite(value) for value in record.values())
    base = load_file(TINY / "model.safetensors")
    assert any(not torch.equal(tensor, base[key]) for key, tensor in weights(folder).items())


def test_the_run_folder_holds_what_it_promises(tiny_config):
    result = Run(tiny_config("figures=true", "trackers=[tensorboard]", "log_rollouts=2")).execute()
    folder = Path(result["folder"])
    for name in (
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "rollouts.jsonl",
        "evaluations.jsonl",
        "report.md",
        "report.png",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "tensorboard").iterdir())
    assert (folder / "checkpoints" / "step_000002" / "config.json").is_file()
    report = (folder / "report.md").read_text()
    assert "| seen_sizes (3 people) |" in report
    assert "| sample |" in report
    records = read_jsonl(folder / "rollouts.jsonl")
    assert [r["step"] for r in records] == [1, 1, 2, 2]
    hinted = [r for record in records for r in record["rollouts"] if "teacher" in r]
    assert hinted, "two groups a step of an untrained tiny model hold usable rollouts"
    for rollout in hinted:
        columns = (
            "ids",
            "start",
            "end",
            "log_prob",
            "teacher",
            "wrong",
            "contrast",
            "selected",
            "final_advantage",
            "weight",
        )
        assert {len(rollout[name]) for name in columns if name in rollout} == {rollout["tokens"]}
        assert {"entropy", "contrast", "final_advantage", "selected"} <= rollout.keys()
        assert rollout["hints"]["correct"]["answer"]
        assert rollout["hints"]["wrong"]


def test_a_seed_decides_a_run_and_a_resumed_run_is_the_same_run(tiny_config, tmp_path):
    def config(name: str, *more: str):
        return tiny_config("steps=4", "save_every=2", f"run_name={name}", "method.snapshot_every=3", *more)

    one, two = (Run(config(name)).execute() for name in ("one", "two"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "one").values(), weights(tmp_path / "two").values(), strict=True)
    )
    assert one["after"] == two["after"]
    import shutil

    (tmp_path / "cut").mkdir()
    shutil.copytree(tmp_path / "one/checkpoints/step_000002", tmp_path / "cut/checkpoints/step_000002")
    Run(config("cut"), folder=tmp_path / "cut").execute(resume=True)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "one").values(), weights(tmp_path / "cut").values(), strict=True)
    )
    other = Run(config("other", "seed=1")).execute()
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(tmp_path / "one").values(), weights(tmp_path / "other").values(), strict=True)
    )
    assert Path(other["folder"]).name == "other"


def test_a_resumed_run_forgets_what_was_logged_after_its_checkpoint(tiny_config, tmp_path):
    Run(tiny_config("steps=4", "save_every=2", "run_name=r", "evaluation.every=1")).execute()
    folder = tmp_path / "r"
    whole = {name: read_jsonl(folder / name) for name in ("metrics.jsonl", "evaluations.jsonl", "rollouts.jsonl")}
    import shutil

    shutil.rmtree(folder / "checkpoints/step_000004")
    result = Run(tiny_config("steps=4", "save_every=2", "run_name=r", "evaluation.every=1"), folder=folder).execute(
        resume=True
    )
    assert read_jsonl(folder / "rollouts.jsonl") == whole["rollouts.jsonl"]
    assert read_jsonl(folder / "evaluations.jsonl") == whole["evaluations.jsonl"]
    assert [r["step"] for r in read_jsonl(folder / "metrics.jsonl")] == [r["step"] for r in whole["metrics.jsonl"]]
    assert result["before"][0].as_dict() == whole["evaluations.jsonl"][0]["sets"][0]


def test_bf16_trains_with_float32_weights(tiny_config):
    run = Run(tiny_config("model.dtype=bfloat16", "learning_rate=1e-3", "warmup_steps=0", "method.unusable=plain"))
    run.execute()
    assert all(parameter.dtype == torch.float32 for parameter in run.engine.policy.trainable())
    base = load_file(TINY / "model.safetensors")
    assert any(not torch.equal(tensor, base[key]) for key, tensor in weights(run.folder).items())


def test_an_adapter_run_leaves_adapters_that_load_like_any_model(tiny_config, tmp_path):
    pytest.importorskip("peft")
    overrides = ("method=rlcsd", "model.lora.rank=4", "kl_coefficient=0.01", "learning_rate=1e-2", "warmup_steps=0")
    run = Run(tiny_config(*overrides))
    run.execute()
    checkpoint = latest_checkpoint(run.folder / "checkpoints")
    assert not (checkpoint / "model.safetensors").exists()
    assert sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) < 1.5e6
    again = Run(tiny_config(f"model.path={checkpoint}", "steps=1"))
    assert export(run.folder, tmp_path / "out") == "float32"
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = run.engine.policy.model(ids).logits
        torch.testing.assert_close(again.engine.policy.model(ids).logits, expected, rtol=1e-4, atol=1e-4)
        exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(exported(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_unusable_rollouts_are_dropped_or_kept_plain(tiny_config):
    def updated(mode: str) -> tuple[int, int]:
        run = Run(tiny_config(f"method.unusable={mode}"))
        result = run.trainer.step(1)
        return sum(len(rows) for rows in result.examples), int(result.metrics["hints/skipped_rollouts"])

    dropped, skipped = updated("drop")
    kept, same = updated("plain")
    assert skipped == same
    assert 0 < skipped < 16
    assert dropped == 16 - skipped
    assert kept == 16


def test_the_method_in_the_docs_trains(tmp_path, tiny_config):
    (block,) = re.findall(r"<!-- method -->\n```python\n(.*?)```", METHODS_PAGE.read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 40
    (tmp_path / "mine.py").write_text(block)
    (name,) = re.findall(r"^class (\w+)\(CreditMethod\)", block, re.MULTILINE)
    chosen = [f"method={tmp_path}/mine.py:{name}", "objective=gspo"]
    result = Run(tiny_config(*chosen, "learning_rate=1e-3", "warmup_steps=0")).execute()
    steps = [r for r in read_jsonl(Path(result["folder"]) / "metrics.jsonl") if "actor/loss" in r]
    assert len(steps) == 2


def test_a_mapping_configures_a_run_too(tmp_path):
    with pytest.raises(rlcsd.InputError, match=r"did you mean 'sampling\.max_tokens'"):
        rlcsd.train({"sampling": {"max_tokns": 5}})
    result = rlcsd.train(
        {
            "method": "grpo",
            "task.train_per_size": 4,
            "task.instruction": "Box it, please: \\boxed{}",
            "steps": 1,
            "prompts_per_step": 2,
            "prompts_per_update": 2,
            "sampling": {"max_tokens": 8},
            "evaluation": {"before": False, "sampling": {"max_tokens": 8}},
            "task.eval_per_size": 2,
            "output_dir": str(tmp_path / "a (b)"),
            "trackers": [],
        }
    )
    assert result["before"] == []
    assert result["after"]


def test_a_task_of_files_trains(tmp_path, tiny_config):
    rows = [{"q": f"What is {n} plus {n}?", "a": 2 * n, "why": f"{n} + {n} = {2 * n}"} for n in range(8)]
    (tmp_path / "sums.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = rlcsd.load_config(
        [
            "task=files",
            f"task.train={tmp_path}/sums.jsonl",
            f"task.evaluations.sums={tmp_path}/sums.jsonl",
            "task.question=q",
            "task.answer=a",
            "task.solution=why",
            "method=opsd",
            "steps=1",
            "prompts_per_step=2",
            "prompts_per_update=2",
            "sampling.max_tokens=8",
            "evaluation.sampling.max_tokens=8",
            "max_prompt_tokens=500",
            f"output_dir={tmp_path}",
            "trackers=[]",
            "figures=false",
        ]
    )
    assert [summary.name for summary in Run(config).execute()["after"]] == ["sums"]

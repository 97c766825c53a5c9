"""Exported model folders: transformers alone computes what the run's policy computes, from one shard or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlcsd
from rlcsd.cli import main
from rlcsd.config.load import build_method, load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.export import export_model
from rlcsd.engine.local.model import TINY, load_network

IDS = torch.arange(5, 25)[None]


def adapted(folder: Path, path: str = "tiny", std: float = 0.02, *overrides: str) -> LocalEngine:
    """An engine whose adapters are not zero, saved to `folder`."""
    pytest.importorskip("peft")
    settings = [f"model.path={path}", "model.lora.rank=4", "engine.self_check=false", "engine.threads=1", *overrides]
    config = load([*settings, "method=grpo"])
    engine = LocalEngine(config, build_method(config))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in engine.policy.named_trainable().items():
            if "lora_B" in name:
                parameter.normal_(std=std)
    engine.save(folder)
    return engine


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def test_an_export_is_the_policy_to_transformers_alone(tmp_path):
    engine = adapted(tmp_path / "a")
    out = tmp_path / "out"
    out.mkdir()
    export_model(ModelConfig(path=str(tmp_path / "a")), out, torch.float32, shard_bytes=400_000)
    assert len(list(out.glob("model-0*.safetensors"))) > 2, "several shards"
    assert all(file.stat().st_size < 450_000 for file in out.glob("model-0*.safetensors"))
    plain = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(logits(plain), logits(engine.policy.model), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(out).get_chat_template()
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= {file.name for file in out.iterdir()}
    assert json.loads((out / "config.json").read_text())["architectures"]


def test_adapters_are_the_same_from_a_copy(tmp_path):
    engine = adapted(tmp_path / "a", "tiny", 0.02, "save_in_background=true")
    (tmp_path / "b").mkdir()
    engine.snapshot()(tmp_path / "b")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (tmp_path / "b/base.json").read_text() == (tmp_path / "a/base.json").read_text()
    assert (tmp_path / "b/state/trained.safetensors").is_file()


def test_adapters_over_a_run_with_adapters(tmp_path):
    """The base of the second is the first with its adapter, also after the export."""
    adapted(tmp_path / "a")
    second = adapted(tmp_path / "b", str(tmp_path / "a"))
    config = ModelConfig(path=str(tmp_path / "b"))
    torch.testing.assert_close(
        logits(load_network(config, torch.device("cpu")).model), logits(second.policy.model), rtol=1e-4, atol=1e-4
    )
    (tmp_path / "out").mkdir()
    export_model(config, tmp_path / "out", torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(exported), logits(second.policy.model), rtol=1e-4, atol=1e-4)


def test_a_small_update_of_adapters_survives_in_float32_and_not_in_bfloat16(tmp_path):
    engine = adapted(tmp_path / "a", "tiny", 1e-6, "model.dtype=bfloat16")
    base, name = engine.policy.core.state_dict(), "model.layers.0.mlp.up_proj"
    a, b = (base[f"{name}.lora_{x}.default.weight"].double() for x in "AB")
    before = load_file(TINY / "model.safetensors")[f"{name}.weight"].double()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        out = tmp_path / str(dtype)
        out.mkdir()
        export_model(ModelConfig(path=str(tmp_path / "a")), out, dtype)
        found[dtype] = load_file(out / "model.safetensors")[f"{name}.weight"]
    torch.testing.assert_close(found[torch.float32].double() - before, b @ a * (128 / 4), rtol=1e-2, atol=1e-8)
    assert float((found[torch.bfloat16] == before.bfloat16()).float().mean()) > 0.95


def test_adapters_that_change_more_than_weights_are_merged_too(tmp_path):
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(TINY)
    torch.manual_seed(0)
    settings = {"r": 2, "use_dora": True, "init_lora_weights": False, "target_modules": ["q_proj"]}
    model = peft.get_peft_model(model, peft.LoraConfig(**settings))
    model.save_pretrained(tmp_path / "dora")
    (tmp_path / "out").mkdir()
    export_model(ModelConfig(path=str(tmp_path / "dora")), tmp_path / "out", torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(exported), logits(model.eval()), rtol=1e-4, atol=1e-4)


def test_the_command(tmp_path, capsys):
    engine = adapted(tmp_path / "a")
    source, out = str(tmp_path / "a"), str(tmp_path / "out")
    assert main(["export", source, "--out", out, "--dtype", "bfloat16"]) == 0
    assert "bfloat16" in capsys.readouterr().out
    exported = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert exported.dtype == torch.bfloat16
    torch.testing.assert_close(logits(exported).float(), logits(engine.policy.model), rtol=0.05, atol=0.2)
    for words, complaint in (
        (["export", source, "--out", out], "already there and not an empty folder"),
        (["export", source, "--out", f"{out}2", "--step", "3"], "--step 3"),
        (["export", str(tmp_path / "nothing"), "--out", f"{out}2"], "no tokenizer could be loaded"),
    ):
        assert main(words) == 2
        assert complaint in capsys.readouterr().err
    (tmp_path / "a/base.json").write_text(json.dumps({"path": source, "gguf_file": None}))
    with pytest.raises(rlcsd.InputError, match="this adapter is its own base"):
        load_network(ModelConfig(path=source), torch.device("cpu"))

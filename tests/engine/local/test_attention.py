"""Attention in blocks: the numbers of the library's own masks, and memory that grows linearly with length."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import attention, sampler, scoring
from rlcsd.engine.local.caches import SharedPrompts
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.update import MiniBatch, accumulate, response_hidden
from rlcsd.records import Pair, Sampling, TokenBatch
from tests.conftest import ARCHITECTURES, random_model


def text(seed: int, length: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 90) for _ in range(length))


def ragged_pairs() -> list[Pair]:
    """Contexts that begin alike and one that does not, responses of unequal length."""
    root = text(0, 20)
    return [
        Pair(root + text(1, 9), text(2, 30)),
        Pair(root + text(3, 14), text(4, 41)),
        Pair(text(5, 5), text(6, 17)),
        Pair(root + text(3, 14), text(7, 3)),
        Pair(root + text(3, 14), text(8, 23)),
    ]


def by_the_library(architecture: str) -> Network:
    """The same network with the library's own masks."""
    network = Network(random_model(architecture))
    network.core.set_attn_implementation("sdpa")
    return network


def gradient(network: Network, pairs: list[Pair]) -> dict[str, torch.Tensor]:
    method = build_method(load(["method=grpo"]))
    rollout = torch.arange(len(pairs)).repeat_interleave(torch.tensor([len(pair.response) for pair in pairs]))
    ones = torch.ones(len(rollout))
    batch = method.prepare(TokenBatch(rollout, ones, ones, -4 * ones, ones, ones.bool()), 1)
    network.model.zero_grad()
    accumulate(network, MiniBatch(pairs, batch, method), pad_id=0, budget=120)
    return {name: parameter.grad.clone() for name, parameter in network.named_trainable().items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("entries", [1, 300])
def test_scores_samples_and_gradients_are_those_of_whole_masks(architecture, entries):
    theirs, ours, pairs = by_the_library(architecture), Network(random_model(architecture)), ragged_pairs()

    def drawn():
        options = {"seed": 0, "stop_ids": [], "pad_id": 0}
        prompts = [pair.context for pair in pairs[:3]]
        found = sampler.sample(ours, prompts, 2, Sampling(max_tokens=12), **options)
        samples = [(prompt, sample) for prompt, group in zip(prompts, found, strict=True) for sample in group]
        return [Pair(prompt, s.ids) for prompt, s in samples], torch.cat([s.log_probs for _, s in samples])

    with attention.mask_entries(entries):
        torch.testing.assert_close(
            scoring.score(ours, pairs, pad_id=0).log_prob, scoring.score(theirs, pairs, pad_id=0).log_prob
        )
        sampled, log_probs = drawn()
        torch.testing.assert_close(log_probs, scoring.score(theirs, sampled, pad_id=0).log_prob, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradient(ours, pairs), gradient(theirs, pairs), rtol=1e-4, atol=1e-6)


def test_no_written_mask_is_larger_than_allowed(monkeypatch):
    written = []

    def spy(*arguments, **options):
        made = real(*arguments, **options)
        written.append(0 if made is None else made.numel())
        return made

    real = attention.sdpa_mask
    monkeypatch.setattr(attention, "sdpa_mask", spy)
    network, pairs = Network(random_model("olmo3")), ragged_pairs()
    with attention.mask_entries(400):
        scoring.score(network, pairs, pad_id=0)
        gradient(network, pairs)
    assert len(written) > 20
    assert 200 < max(written) <= 400


def kept_for_backward(compute) -> int:
    """Bytes of different tensors that the graph of what `compute` does holds."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with attention.mask_entries(2000), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(storage.nbytes() for storage in storages.values())


def test_keys_are_kept_once_for_all_heads_that_share_them():
    """What the graph holds of a token in a layer, behind prompts of unequal length."""
    width, queries, keys, inner = 24, 4 * 16, 2 * 16, 40

    def kept(layers: int, length: int) -> int:
        config = Qwen3Config(
            vocab_size=99, hidden_size=width, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
            head_dim=16, intermediate_size=inner,
        )  # fmt: skip
        network, prompts = Network(AutoModelForCausalLM.from_config(config)), [text(0, 50), text(1, 20)]
        shared = SharedPrompts(network, prompts, 0)
        return kept_for_backward(lambda: shared.hidden([Pair(prompt, text(2, length)) for prompt in prompts]))

    of_a_layer = [kept(2, length) - kept(1, length) for length in (200, 300)]
    numbers = (of_a_layer[1] - of_a_layer[0]) / (4 * 2 * 100)
    assert numbers == pytest.approx(6 * width + 4 * (queries + keys + inner), rel=0.03)


@pytest.mark.parametrize("architecture", ["qwen3", "mistral"])
@pytest.mark.parametrize("shared", [False, True])
def test_what_is_kept_for_the_backward_pass_grows_linearly(architecture, shared):
    network = Network(random_model(architecture))

    def kept(length: int) -> int:
        """Of a row of `length` tokens behind a prompt."""
        pairs = [Pair(text(0, 50), text(1, length)), Pair(text(0, 50) if shared else text(2, 50), text(3, length // 2))]
        return kept_for_backward(lambda: response_hidden(network, pairs, 0))

    fixed = 2 * kept(150) - kept(300)  # what does not depend on length, the weights
    assert kept(600) - fixed == pytest.approx(4 * (kept(150) - fixed), rel=0.05)


def test_padding_at_the_end_needs_no_mask_and_padding_in_front_does():
    end, front = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool(), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    assert attention.mask(2, 4, 4, attention_mask=end) is None
    assert attention.mask(2, 4, 9, attention_mask=torch.nn.functional.pad(end, (0, 5), value=True)) is None
    assert attention.mask(2, 4, 4, attention_mask=front).shape == (2, 1, 4, 4)
    assert attention.mask(2, 4, 4, attention_mask=end, local_size=3).shape == (2, 1, 4, 4)


def test_a_saved_model_knows_nothing_of_it(tmp_path):
    Network(random_model("qwen3")).model.save_pretrained(tmp_path)
    assert "blocks" not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"

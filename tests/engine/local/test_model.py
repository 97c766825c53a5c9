"""Whole runs on random models of other architectures, loaded from a folder as a user's would be."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import rlcsd
import rlcsd.stages.grade
from rlcsd import Problem, Task
from rlcsd.config.load import changed, load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import TINY, context_length, load_network, load_tokenizer, teacher_model_config
from rlcsd.prompts import render
from rlcsd.storage import read_jsonl
from tests.conftest import ARCHITECTURES, random_model


def task() -> Task:
    """Random text, so the verifier flips a coin that the response decides."""
    problems = [
        Problem(f"Question {n}: who is who?", "Alice is a knight", solution="Alice is a knight.") for n in range(4)
    ]
    return Task("coin", problems, {"again": problems[:2]}, lambda response, answer: len(response) % 2 == 0)


@pytest.fixture
def saved(tmp_path):
    def build(architecture: str, **changes) -> Path:
        tokenizer = load_tokenizer(ModelConfig())
        model = random_model(architecture, vocab=len(tokenizer), loud=2.0)
        for name, value in changes.items():
            setattr(model.config, name, value)
        folder = tmp_path / architecture
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return build


QUICK = [
    "steps=1", "prompts_per_step=4", "prompts_per_update=4", "group_size=4", "learning_rate=1e-2", "warmup_steps=0", "evaluation.every=0",
    "sampling.max_tokens=20", "evaluation.sampling.max_tokens=20", "max_prompt_tokens=900", "save_every=0", "figures=false", "trackers=[]",
    "engine.threads=1",
]  # fmt: skip


@pytest.mark.parametrize("method", ["grpo", "rlcsd", "sdpo"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_trains_and_saves_any_architecture(architecture, method, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(
        rlcsd.stages.grade, "last_boxed", lambda text, unfinished: text[:4] or "x"
    )  # random models box nothing
    folder = saved(architecture)
    result = rlcsd.train([*QUICK, f"method={method}", f"model.path={folder}", f"output_dir={tmp_path}/runs"], task())
    (record,) = [r for r in read_jsonl(Path(result["folder"]) / "metrics.jsonl") if "time/step" in r]
    assert all(math.isfinite(value) for name, value in record.items() if value is not None), record
    assert record["actor/updated_share"] > 0
    assert abs(record["actor/kl_to_old"]) < 1e-2
    (checkpoint,) = (Path(result["folder"]) / "checkpoints").glob("step_*")
    before, after = load_file(folder / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert before.keys() == after.keys()  # tied heads stay tied
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (
        type(AutoModelForCausalLM.from_pretrained(checkpoint)).__name__.lower().startswith(architecture.split("_")[0])
    )


def test_a_context_that_is_too_short_is_named_before_anything_is_sampled(saved):
    folder = saved("llama", max_position_embeddings=64)
    with pytest.raises(rlcsd.InputError, match=r"sampling\.max_tokens=200: .* context of 64"):
        rlcsd.train([*QUICK, "sampling.max_tokens=200", f"model.path={folder}"], task())


@pytest.mark.parametrize(("kind", "room"), [("longrope", 512), ("yarn", 2048)])
def test_positions_that_change_with_the_longest_row_are_not_used(kind, room, tmp_path):
    rope = {"rope_type": kind, "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 512}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    folder = copy_of_tiny(tmp_path / "m", "config.json", rope_parameters=rope)
    assert context_length(ModelConfig(path=str(folder))) == room
    network = load_network(ModelConfig(path=str(folder)), torch.device("cpu"))
    assert network.context_length == room
    start = torch.arange(20)[None]
    with torch.no_grad():  # transformers' own: the same ids, alone and in a longer row
        alone = network.model(start, position_ids=start).logits
        longer = network.model(torch.arange(600)[None] % 20, position_ids=torch.arange(600)[None]).logits[:, :20]
    assert torch.allclose(alone, longer, atol=1e-4) == (room == 2048)


def test_thinking_is_passed_on_for_student_teacher_and_evaluation_separately(saved, tmp_path, monkeypatch):
    seen = set()
    real = render

    def spy(tokenizer, text, thinking=True, history=()):
        seen.add(("teacher" if "Reference Solution" in str(text) else "student or evaluation", thinking))
        return real(tokenizer, text, thinking, history)

    for module in ("rlcsd.prompts", "rlcsd.stages.hint"):
        monkeypatch.setattr(f"{module}.render", spy)
    flags = [
        "model.thinking_student=false",
        "model.thinking_teacher=true",
        "model.thinking_eval=true",
        "evaluation.before=false",
    ]
    rlcsd.train([*QUICK, *flags, "method=sdpo", f"output_dir={tmp_path}"], task())
    assert ("teacher", True) in seen
    assert ("teacher", False) not in seen
    assert {("student or evaluation", False), ("student or evaluation", True)} <= seen


def test_a_chat_template_is_told_whether_to_think():
    tokenizer = load_tokenizer(ModelConfig())
    tokenizer.chat_template = "{{ messages[0].content }}{% if enable_thinking %}A{% else %}B{% endif %}"
    ends = [tokenizer.decode(render(tokenizer, "Hello", thinking))[-1] for thinking in (True, False)]
    assert ends == ["A", "B"]


def test_a_model_is_loaded_from_a_gguf_file_named_wrongly_with_one_sentence(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(rlcsd.InputError, match=r"model\.path="):
        load_network(ModelConfig(path=str(tmp_path), gguf_file="x.gguf"), torch.device("cpu"))


def copy_of_tiny(folder: Path, file: str, **changes) -> Path:
    shutil.copytree(TINY, folder)
    values = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder


def test_a_tokenizer_without_end_and_padding_pads_with_any_token(tmp_path):
    folder = copy_of_tiny(tmp_path / "m", "tokenizer_config.json", eos_token=None, pad_token=None)
    tokenizer = load_tokenizer(ModelConfig(path=str(folder)))
    assert tokenizer.eos_token_id is None and tokenizer.pad_token_id == 0


def test_another_model_as_the_teacher_has_room_for_what_it_scores(tmp_path):
    tokenizer = load_tokenizer(ModelConfig())
    folder = str(copy_of_tiny(tmp_path / "m", "config.json", max_position_embeddings=200))
    config = load(["method=opd", f"method.teacher_model={folder}", "max_prompt_tokens=100", "sampling.max_tokens=100"])
    assert teacher_model_config(folder, config, tokenizer).path == folder
    for keys, said in (
        (["sampling.max_tokens=101"], "max_prompt_tokens and sampling.max_tokens of 200 in all"),
        (["method.hint_source=gt_cot"], "set max_teacher_tokens=200"),
    ):
        with pytest.raises(rlcsd.InputError, match=f"its context has 200 tokens; .*{said}"):
            teacher_model_config(folder, changed(config, keys), tokenizer)
    hinted = changed(config, ["method.hint_source=gt_cot", "max_teacher_tokens=200"])
    assert teacher_model_config(folder, hinted, tokenizer).path == folder

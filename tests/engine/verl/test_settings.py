"""What engine=verl refuses, and which libraries it needs, before any process is started. Without verl and Ray."""

from __future__ import annotations

import json
import shutil
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

import pytest

from rlcsd import plugins
from rlcsd.config.load import build_method, load
from rlcsd.config.schema import ModelConfig
from rlcsd.engine.interface import build_engine, check_engine
from rlcsd.engine.local.model import TINY, context_length
from rlcsd.engine.verl import settings
from rlcsd.engine.verl.settings import attention, stop_ids
from rlcsd.errors import InputError, MissingError

BIG = ["model=qwen3_8b", "task=logic_kk", "method=rlcsd", "engine=verl"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.gguf_file=a.gguf"], "model.gguf_file: engine=verl loads safetensors alone"),
        (["model.lora.dropout=0.1"], "model.lora.dropout=0.1: engine=verl builds adapters without dropout"),
        (
            ["model.lora.rank=64", "model.lora.alpha=12.5"],
            "model.lora.alpha=12.5: engine=verl takes whole numbers alone",
        ),
        (["model.dtype=float32", "engine.attention=flash_attention_2"], "it does not compute in float32"),
        (
            ["engine.sequence_parallel=2", "engine.share_prefixes=false", "engine.attention=sdpa"],
            "in sdpa attention each",
        ),
        (
            ["engine.sequence_parallel=2", "engine.share_prefixes=false", "model.dtype=float32"],
            "in sdpa attention each",
        ),
        (
            ["engine.tensor_parallel=3", "engine.gpus_per_node=6"],
            "engine.tensor_parallel=3: must divide .* 32 attention",
        ),
        (
            ["engine.sequence_parallel=3", "engine.gpus_per_node=6", "engine.share_prefixes=false"],
            "engine.sequence_parallel=3: must divide the model's 32 attention heads",
        ),
        (
            ["engine.tensor_parallel=4", "engine.gpus_per_node=6", "engine.nodes=2"],
            "engine.tensor_parallel=4: must divide engine.gpus_per_node=6, or be a multiple of it",
        ),
    ],
)
def test_what_the_cluster_cannot_do_is_refused_before_it_starts(overrides, sentence):
    with pytest.raises(InputError, match=sentence):
        check_engine(load([*BIG, *overrides]))


def test_an_adapter_folder_is_refused_for_it_is_no_whole_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"an adapter without its base; engine=verl loads whole models"):
        check_engine(load([*BIG, f"model.path={tmp_path}"]))
    with pytest.raises(InputError, match=r"^method\.teacher_model=.*: an adapter without its base"):
        check_engine(load([*BIG, "method=opd", f"method.teacher_model={tmp_path}"]))


@pytest.mark.parametrize(
    ("overrides", "alone"),
    [
        ([], False),
        (["model.lora.rank=64"], True),
        (["model.lora.rank=513"], False),
        (["model.lora.rank=64", "engine.rollout_adapters=merged"], False),
        (["model.lora.rank=64", "model.dtype=float32"], False),
    ],
)
def test_servers_get_adapters_alone_where_vllm_has_kernels_for_them(overrides, alone):
    config = load([*BIG, *overrides])
    assert settings.adapters_alone(config) is alone
    assert (f"actor_rollout_ref.model.lora.merge={json.dumps(not alone)}" in settings.overrides(config)) is (
        config.model.lora is not None
    )


def with_packages(monkeypatch, *here):
    monkeypatch.setattr(settings, "find_spec", lambda name: ModuleSpec(name, None) if name in here else None)
    monkeypatch.setattr(settings, "check_version", lambda: None)


def test_all_libraries_that_are_not_installed_are_named_at_once(monkeypatch):
    with_packages(monkeypatch)
    with pytest.raises(MissingError) as raised:
        check_engine(load([*BIG, "engine.attention=flash_attention_2"]))
    server, attention = raised.value.sentences
    assert "vllm is not installed; pip install -c requirements-gpu.lock 'rlcsd[vllm]'" in server
    assert "set engine.attention=sdpa" in attention


@pytest.mark.parametrize(
    ("here", "overrides", "expected"),
    [
        (["vllm"], [], "sdpa"),
        (["vllm", "kernels"], [], "sdpa"),  # kernels would fetch flash attention from the hub
        (["vllm", "kernels"], ["engine.attention=flash_attention_2"], "flash_attention_2"),
        (["vllm", "kernels"], ["engine.sequence_parallel=2", "engine.share_prefixes=false"], "flash_attention_2"),
        (["vllm", "flash_attn"], [], "flash_attention_2"),
        (["vllm", "flash_attn"], ["model.dtype=float32"], "sdpa"),
        (["vllm", "flash_attn"], ["engine.platform=cpu"], "sdpa"),
        (["vllm", "flash_attn"], ["engine.attention=sdpa"], "sdpa"),
    ],
)
def test_flash_attention_is_chosen_where_it_is_installed_and_never_missed(here, overrides, expected, monkeypatch):
    with_packages(monkeypatch, *here)
    config = load([*BIG, *overrides])
    assert attention(config) == expected
    check_engine(config)
    assert attention(load([*BIG, "engine.platform=cpu"])) == "sdpa"
    assert attention(load([*BIG, "engine.attention=eager"])) == "eager"


def test_context_and_stop_tokens_are_the_models_own_with_and_without_a_generation_config(tmp_path):
    assert context_length(ModelConfig(path="Qwen/Qwen3-8B")) == 40960  # without the network
    assert context_length(ModelConfig(path="owner/nowhere")) > 2**29

    class Tokenizer:
        eos_token_id = 7

    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}), encoding="utf-8")
    assert stop_ids(load([f"model.path={folder}"]), Tokenizer()) == [3, 5, 7]
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 11}), encoding="utf-8")
    assert stop_ids(load([f"model.path={folder}"]), Tokenizer()) == [7, 11]


def test_mistakes_in_keys_name_this_engines_keys():
    with pytest.raises(InputError, match="gpus_per_node"):
        load(["engine=verl", "engine.gpus_per_nod=4"])
    with pytest.raises(InputError, match=r"engine\.nodes"):
        load(["engine=verl", "engine.nodes=0"])


@pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed")
def test_without_verl_the_engine_says_what_to_install():
    config = load(["engine=verl"])
    with pytest.raises(InputError, match=r"verl is not installed; it was tested with verl from 0\.9\.1"):
        build_engine(config, build_method(config))


@pytest.mark.parametrize("version", ["0.8.0", "0.9.2", "1.0.0"])
def test_another_version_of_verl_is_refused(version, monkeypatch):
    monkeypatch.setattr(plugins, "version", lambda name: version)
    with pytest.raises(InputError, match=rf"verl {version} is installed, and it was tested with verl from 0\.9\.1 to"):
        settings.check_version()

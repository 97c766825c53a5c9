"""Small random models of several architectures, and a tokenizer that knows the puzzles."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rlcsd.config.load import load
from rlcsd.engine.local.model import TINY, Network
from rlcsd.experiments.examples import puzzle_example
from rlcsd.experiments.recipe import load_recipe
from rlcsd.experiments.warmstart import train_tokenizer
from rlcsd.storage import write_manifest

torch.set_num_threads(1)
settings.register_profile(
    "fast", max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
settings.load_profile("fast")

ARCHITECTURES = {
    "qwen3": {"head_dim": 16},
    "llama": {},
    "olmo3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    # A window without `layer_types`:
    "mistral": {"sliding_window": 8},
    "phi3": {"sliding_window": 8},
    "starcoder2": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    # Other ways of attending to positions, and dropout in the model's own config:
    "gpt2": {},
    "gpt_neox": {"hidden_dropout": 0.1, "attention_dropout": 0.1},
}


def random_model(
    architecture: str = "qwen3", vocab: int = 90, dtype: torch.dtype = torch.float32, seed: int = 0, loud: float = 4.0
):
    """A two-layer random model, `loud` enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[architecture](
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **ARCHITECTURES[architecture],
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(loud)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer():
    rng = random.Random(0)
    recipe = load_recipe("kk_tiny")
    examples = [puzzle_example(recipe, rng) for _ in range(300)]
    return train_tokenizer((text for e in examples for text in (e.prompt, e.response)), 500)


@pytest.fixture
def network():
    return Network(random_model())


def untrained_checkpoint(run: Path) -> None:
    """Give the folder of a run a whole checkpoint of step 1: the shipped model as it is."""
    shutil.copytree(TINY, run / "checkpoints/step_1")
    write_manifest(run / "checkpoints/step_1")


@pytest.fixture
def tiny_config(tmp_path):
    """A config for two quick steps on the shipped model."""

    def build(*overrides: str):
        return load(
            [
                "steps=2",
                "prompts_per_step=4",
                "prompts_per_update=2",
                "group_size=4",
                "task.train_sizes=[3]",
                "task.unseen_sizes=[]",
                "task.train_per_size=8",
                "task.eval_per_size=4",
                "task.forms=[atom,not,and,or,iff,if]",
                "sampling.max_tokens=144",
                "evaluation.sampling.max_tokens=96",
                "evaluation.every=0",
                "evaluation.samples=1",
                f"output_dir={tmp_path}",
                "figures=false",
                "trackers=[]",
                "engine.threads=1",
                *overrides,
            ]
        )

    return build

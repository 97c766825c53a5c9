"""Adapters: new ones over a base (whole or in 4 bits), and folders that hold one in place of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...config.schema import LoraConfig, ModelConfig
from ...errors import InputError, MissingError, first_line

_NAME = "adapter_config.json"


def adapter_folder(path: str) -> Path | None:
    """`path` if it is a folder with an adapter and without a model of its own."""
    folder = Path(path)
    return folder if (folder / _NAME).is_file() and not (folder / "config.json").is_file() else None


def without_adapter(config: ModelConfig) -> ModelConfig:
    """The config of the base that an adapter folder names, or the config itself.

    Raises:
        InputError: the adapter's config cannot be read or names no base.
    """
    folder = adapter_folder(config.path)
    if folder is None:
        return config
    try:
        base = json.loads((folder / _NAME).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"model.path={config.path}: {_NAME} cannot be read ({first_line(error)})") from None
    if not isinstance(base, str) or not base:
        raise InputError(f"model.path={config.path}: {_NAME} names no base_model_name_or_path")
    return config.model_copy(update={"path": base})


def quantization(config: ModelConfig) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a base in 4 bits (NF4 with double quantization: QLoRA, arXiv 2305.14314).

    Raises:
        InputError: no adapters are asked for, or bitsandbytes is not installed.
    """
    if config.quantization is None:
        return {}
    if config.lora is None:
        raise InputError("model.quantization=4bit: weights in 4 bits cannot be trained; set model.lora.rank as well")
    if config.gguf_file:
        raise InputError("model.quantization=4bit: a GGUF file is loaded whole; take the original weights")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingError("model.quantization=4bit: needs bitsandbytes; pip install 'rlcsd[quantization]'") from None
    from transformers import BitsAndBytesConfig

    computed = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computed,
    )
    return {"quantization_config": four_bits}


def keep_gradients(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for a CPU kernel at their first pass without gradient.

    That kernel has no backward pass: the gradients of layers below would silently be wrong.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def with_adapters(model: Any, config: ModelConfig) -> Any:
    """The model with the adapter of its folder merged in, and with new adapters if the config asks for them.

    A base in 4 bits takes no adapter in: training goes on with the folder's own.

    Raises:
        InputError: peft is not installed, the adapter does not fit the base, or no layer has the names asked for.
    """
    folder, lora = adapter_folder(config.path), config.lora
    if folder is None and lora is None:
        return model
    try:
        from peft import LoraConfig as PeftLoraConfig
        from peft import get_peft_model
    except ImportError:
        raise InputError("model.lora: adapters need peft; pip install peft") from None
    if folder is not None:
        model = _with_folder(model, folder, config)
        if config.quantization is not None:
            return model
    if lora is None:
        return model
    wanted = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, wanted)
    except ValueError as error:
        raise InputError(f"model.lora.target_modules={lora.target_modules}: {first_line(error)}") from None


def _with_folder(model: Any, folder: Path, config: ModelConfig) -> Any:
    from peft import PeftModel

    kept = model.dtype
    whole = config.quantization is None
    try:
        # In float32, because a small update is lost in bf16.
        model = PeftModel.from_pretrained(model.float() if whole else model, str(folder), is_trainable=not whole)
    except Exception as error:  # no weights, other layers, other shapes: each has its own
        raise InputError(f"model.path={folder}: the adapter does not fit its base ({first_line(error)})") from None
    if whole:
        return model.merge_and_unload().to(kept)
    _check_rank(model, folder, config.lora)
    return model


def _check_rank(model: Any, folder: Path, lora: LoraConfig | None) -> None:
    rank = model.peft_config["default"].r
    if lora is not None and lora.rank != rank:
        raise InputError(
            f"model.lora.rank={lora.rank}: the adapter in {folder} has rank {rank}, and over a base in 4 bits training "
            "goes on with it as it is"
        )

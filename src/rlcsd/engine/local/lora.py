"""LoRA adapters: new ones over a whole or 4-bit base, and model folders that hold an adapter alone.

The base of an adapter folder may itself be an adapter folder: a run that went on from the adapters of another one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ...config.schema import LoraConfig, ModelConfig
from ...errors import InputError, MissingError, first_line

PICKLED = "its weights are pickled, and pickles can run code; convert them to safetensors"
_NAME = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_BASE = "base.json"  # path and gguf_file of the base, in the folders that `save_adapter` writes


VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as `max_lora_rank`


def vllm_has_kernel(model: ModelConfig, on_cpu: bool) -> bool:
    """Whether vLLM can compute with the model's new adapters apart from its weights: not with larger ranks, nor in
    float32 on a GPU."""
    return model.lora is not None and model.lora.rank <= VLLM_RANKS[-1] and (on_cpu or model.dtype == "bfloat16")


def adapter_folder(path: str) -> Path | None:
    """`path` if it is a folder with an adapter and without a model of its own, else None."""
    folder = Path(path)
    return folder if (folder / _NAME).is_file() and not (folder / "config.json").is_file() else None


def adapter_chain(config: ModelConfig) -> tuple[ModelConfig, list[Path]]:
    """`config` with path and GGUF file of the whole model below all adapters, and the adapter folders from it upwards.

    Raises:
        InputError: the config of an adapter cannot be read or names no base.
    """
    folders: list[Path] = []
    while (folder := adapter_folder(config.path)) is not None:
        if folder in folders:
            raise InputError(f"model.path={folder}: this adapter is its own base")
        folders.insert(0, folder)
        config = config.model_copy(update=_base_of(folder))
    return config, folders


def base_model_config(config: ModelConfig) -> ModelConfig:
    """`config` with the whole model that is below the adapters of its path. Raises as `adapter_chain`."""
    return adapter_chain(config)[0]


def _base_of(folder: Path) -> dict[str, Any]:
    """`path` and `gguf_file` of an adapter's base."""
    try:
        if (folder / _BASE).is_file():
            base = json.loads((folder / _BASE).read_text(encoding="utf-8"))
            return {"path": base["path"], "gguf_file": base["gguf_file"]}
        path = json.loads((folder / _NAME).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"model.path={folder}: {_NAME} cannot be read ({first_line(error)})") from None
    if not isinstance(path, str) or not path:
        raise InputError(f"model.path={folder}: {_NAME} names no base_model_name_or_path")
    return {"path": path, "gguf_file": None}


def write_base(folder: Path, config: ModelConfig) -> None:
    """Record beside an adapter what it was trained on: `model.path`, or the base of the adapter that a 4-bit run goes
    on with."""
    base = base_model_config(config) if config.quantization else config
    path = str(Path(base.path).resolve()) if Path(base.path).is_dir() else base.path
    (folder / _BASE).write_text(json.dumps({"path": path, "gguf_file": base.gguf_file}), encoding="utf-8")


def quantization(config: ModelConfig) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a 4-bit base (NF4 with double quantization: QLoRA, arXiv 2305.14314).

    Raises:
        InputError: no adapters are configured, or the weights are in a GGUF file.
        MissingError: bitsandbytes is not installed.
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

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if config.dtype == "bfloat16" else torch.float32,
    )
    return {"quantization_config": four_bits}


def keep_gradients(model: Any) -> None:
    """Stop bitsandbytes from packing 4-bit weights for its CPU kernel in the first pass without gradient.

    That kernel has no backward pass: gradients of the layers below would be wrong without an error.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def with_adapters(model: Any, config: ModelConfig) -> Any:
    """The model with the adapters of its folder merged in, and with new adapters if `model.lora` is set.

    Into a 4-bit base nothing can be merged: training continues the folder's own adapter.

    Raises:
        InputError: peft is not installed, the adapter does not fit the base, or no layer has the configured names.
    """
    folders, lora = adapter_chain(config)[1], config.lora
    if not folders and lora is None:
        return model
    try:
        from peft import LoraConfig as PeftLoraConfig
        from peft import get_peft_model
    except ImportError:
        raise InputError("model.lora: adapters need peft; pip install peft") from None
    if config.quantization is not None and len(folders) > 1:
        raise InputError(f"model.quantization=4bit: {folders[-2]}, the base of model.path={config.path}, is an adapter")
    for folder in folders:
        model = _load_adapter(model, folder, config)
    if folders and config.quantization is not None:
        return model
    if lora is None:
        return model
    settings = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, settings)
    except ValueError as error:
        raise InputError(f"model.lora.target_modules={lora.target_modules}: {first_line(error)}") from None
    check_ends(adapted, f"model.lora.target_modules={lora.target_modules}", trained=True)
    return adapted


def check_ends(model: Any, field: str, trained: bool) -> None:
    """Raise InputError, which names `field`, for adapters of the embedding or the head of a peft model that would be
    lost or wrong without an error.

    The chunked head takes the weights of the model's head as they are. Embedding and head that are one tensor cannot
    take in an adapter that belongs to one of them.
    """
    core = model.get_base_model()
    embedding, head = core.get_input_embeddings(), core.get_output_embeddings()
    in_head, in_embedding = hasattr(head, "lora_A"), hasattr(embedding, "lora_A")
    if trained and in_head:
        raise InputError(f"{field}: the language-model head cannot have an adapter; leave it out")
    if (in_head or in_embedding) and head.weight is embedding.weight:
        raise InputError(
            f"{field}: embedding and head of this model are the same weights, and an adapter of one of them cannot be "
            "merged into the model; leave it out"
        )


def _load_adapter(model: Any, folder: Path, config: ModelConfig) -> Any:
    """The model with the folder's adapter: merged, or over a 4-bit base still apart and trainable."""
    merge = config.quantization is None
    model = read_adapter(model, folder, is_trainable=not merge)
    check_ends(model, f"model.path={folder}", trained=not merge)
    if merge:
        return merged(model).requires_grad_(True)  # peft has frozen the base
    _check_rank(model, folder, config.lora)
    return model


def read_adapter(model: Any, folder: Path, **options: Any) -> Any:
    """A peft model: `model` with the adapter in `folder`, which is in float32. Raises InputError if it does not fit."""
    from peft import PeftModel

    if not (folder / _WEIGHTS).is_file() and (folder / "adapter_model.bin").is_file():  # which peft would open
        raise InputError(f"model.path={folder}: {PICKLED}")
    try:
        return PeftModel.from_pretrained(model, str(folder), **options)
    except Exception as error:  # no weights, other layers, other shapes: each raises its own type
        raise InputError(f"model.path={folder}: the adapter does not fit its base ({first_line(error)})") from None


def adapted_layers(model: Any) -> dict[str, Any] | None:
    """The layers of a peft model that add `get_delta_weight` to their weight, by name in the plain model.

    None if its adapter changes more than that (DoRA, biases, whole modules).
    """
    config = model.peft_config["default"]
    if getattr(config, "use_dora", False) or config.modules_to_save or getattr(config, "bias", "none") != "none":
        return None
    return {
        name: module for name, module in model.get_base_model().named_modules() if hasattr(module, "get_delta_weight")
    }


@torch.no_grad()
def merged(model: Any) -> Any:
    """The plain model of a peft model, its adapter merged into its weights, in their dtype, one layer after another.

    Each sum is made in float32.
    """
    layers = adapted_layers(model)
    if layers is None:
        dtype = model.dtype
        return model.float().merge_and_unload().to(dtype)
    for layer in layers.values():
        weight = layer.get_base_layer().weight
        weight.copy_(weight.float() + layer.get_delta_weight("default"))
    return model.unload()


def _check_rank(model: Any, folder: Path, lora: LoraConfig | None) -> None:
    rank = model.peft_config["default"].r
    if lora is not None and lora.rank != rank:
        raise InputError(
            f"model.lora.rank={lora.rank}: the adapter in {folder} has rank {rank}, and over a base in 4 bits training "
            "goes on with it as it is"
        )

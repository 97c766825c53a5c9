"""Write a model folder that transformers loads alone: adapters merged, in any number format, one shard at a time.

Weights are read tensor by tensor from the base's safetensors files, so the host holds about one shard. A base in
another form (GGUF), and one with adapters that change more than the weights of layers (DoRA), is loaded whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ...config.schema import ModelConfig
from .lora import adapted_layers, adapter_chain, read_adapter
from .model import load_network, load_tokenizer, resolve_path

SHARD_BYTES = 4 * 10**9  # of one safetensors file
_INDEX = "model.safetensors.index.json"
Read = Callable[[str], Tensor]


def export_model(model: ModelConfig, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write weights, config, generation config and tokenizer of `model` into `folder`, which exists.

    Raises:
        InputError: no model, tokenizer or adapter could be loaded.
    """
    tokenizer = load_tokenizer(model)
    base, adapters = adapter_chain(model)
    with ExitStack() as stack:
        source = None if base.gguf_file else stack.enter_context(_weights_of(resolve_path(base.path)))
        for adapter in adapters if source is not None else ():
            source = _with_adapter(source, adapter, base) if source is not None else None
        if source is None:
            _export_whole(model, folder, dtype, shard_bytes)
        else:
            _write(folder, *source, dtype, shard_bytes)
            _write_configs(folder, resolve_path(base.path), dtype)
    tokenizer.save_pretrained(folder)
    sentencepiece = Path(resolve_path(base.path)) / "tokenizer.model"  # which GGUF converters read
    if sentencepiece.is_file():
        shutil.copy(sentencepiece, folder)


@contextmanager
def _weights_of(path: str) -> Iterator[tuple[dict[str, list[int]], Read] | None]:
    """Shapes by name and a function that reads a tensor, of a folder or hub model; None without safetensors files."""
    folder = Path(path if Path(path).is_dir() else snapshot_download(path, allow_patterns=["*.safetensors", "*.json"]))
    index = folder / _INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    if not all((folder / name).is_file() for name in names):
        yield None
        return
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(folder / name, framework="pt")) for name in names]
        where = {key: file for file in files for key in file.keys()}  # noqa: SIM118
        shapes = {key: file.get_slice(key).get_shape() for key, file in where.items()}
        yield shapes, lambda key: where[key].get_tensor(key)


def _with_adapter(
    source: tuple[dict[str, list[int]], Read], adapter: Path, base: ModelConfig
) -> tuple[dict[str, list[int]], Read] | None:
    """The same weights with an adapter added to each as it is read; None if that is not all that the adapter does."""
    from peft.utils import load_peft_weights

    shapes, read = source
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve_path(base.path)))
    model = read_adapter(empty, adapter, low_cpu_mem_usage=True)  # which leaves the adapter without values, as its base
    values = {
        name.replace(".weight", ".default.weight"): value
        for name, value in load_peft_weights(str(adapter), device="cpu").items()
    }
    unknown = model.load_state_dict(values, strict=False, assign=True).unexpected_keys
    layers = None if unknown else adapted_layers(model)
    if layers is None or not {f"{name}.weight" for name in layers} <= shapes.keys():
        return None

    def read_merged(key: str) -> Tensor:
        layer = layers.get(key.removesuffix(".weight"))
        return read(key) if layer is None else read(key).float() + layer.get_delta_weight("default").float()

    return shapes, torch.no_grad()(read_merged)


def _write(folder: Path, shapes: Mapping[str, list[int]], read: Read, dtype: torch.dtype, shard_bytes: int) -> None:
    """Write all tensors, shard after shard."""
    empty = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape in shapes.items()}
    plan = split_torch_state_dict_into_shards(empty, max_shard_size=shard_bytes)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: read(name).to(dtype).contiguous() for name in names}, folder / file, {"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / _INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")


def _write_configs(folder: Path, path: str, dtype: torch.dtype) -> None:
    config = AutoConfig.from_pretrained(path)
    config.dtype = str(dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:  # the base has none of its own
        generation = GenerationConfig.from_model_config(config)
    generation.save_pretrained(folder)


def _export_whole(model: ModelConfig, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    plain: Any = load_network(model.model_copy(update={"dtype": "float32", "lora": None}), torch.device("cpu")).core
    plain.to(dtype).save_pretrained(folder, max_shard_size=shard_bytes)

"""The policy of all ranks as one model folder in Hugging Face format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .model import ShardedNetwork
from .private import whole, whole_weights


def export(network: ShardedNetwork, model_config: Any, folder: Path, rank: int) -> None:
    """Weights in float32, adapters merged and saved themselves under `adapter/`. Every rank gathers; rank 0 writes."""
    adapters = {
        name: tensor.cpu().clone()
        for name, parameter in network.model.named_parameters()
        if "lora_" in name
        for tensor in [whole(parameter)]
        if rank == 0
    }
    weights = {name: tensor.cpu().clone() for name, tensor in whole_weights(network.model) if rank == 0}
    if rank:
        return
    if adapters:
        _save_adapter(network.model, adapters, folder / "adapter")
    config = copy.deepcopy(model_config.hf_config)
    config.dtype = torch.float32
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    empty.generation_config = model_config.generation_config
    empty.save_pretrained(folder, state_dict=weights)


def _save_adapter(model: Any, adapters: dict[str, torch.Tensor], folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir()
    model.peft_config["default"].save_pretrained(folder)
    save_file(get_peft_model_state_dict(model, state_dict=adapters), folder / "adapter_model.safetensors")

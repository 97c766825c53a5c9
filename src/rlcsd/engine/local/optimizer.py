"""The optimizer: AdamW with float32 moments, or with moments in 8 bits (bitsandbytes), optionally paged out of GPU
memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...config.schema import Config
from ...errors import InputError

_EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def build_optimizer(parameters: Iterable[nn.Parameter], config: Config) -> Any:
    """What `engine.optimizer` names. Raises InputError if it needs a library that is not installed."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    name = config.engine.optimizer
    if name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    try:
        import bitsandbytes
    except ImportError:
        raise InputError(f"engine.optimizer={name}: moments in 8 bits need pip install 'rlcsd[quantization]'") from None
    return getattr(bitsandbytes.optim, _EIGHT_BIT[name])(parameters, **settings)

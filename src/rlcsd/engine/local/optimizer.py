"""The optimizer: AdamW with float32 moments, or with moments in 8 bits (bitsandbytes), optionally paged out of GPU
memory."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ...config.schema import Config
from ...errors import MissingError

_EIGHT_BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def check_optimizer(config: Config) -> None:
    """Raise MissingError if what `engine.optimizer` names needs a library that is not installed."""
    name = config.engine.optimizer
    if name in _EIGHT_BIT and find_spec("bitsandbytes") is None:
        raise MissingError(f"engine.optimizer={name}: moments in 8 bits need pip install 'rlcsd[quantization]'")


def build_optimizer(parameters: Iterable[nn.Parameter], config: Config) -> Any:
    """What `engine.optimizer` names. Raises MissingError as `check_optimizer` does."""
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    name = config.engine.optimizer
    if name == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    check_optimizer(config)
    import bitsandbytes

    return getattr(bitsandbytes.optim, _EIGHT_BIT[name])(parameters, **settings)

"""What the KV cache of a model does in each layer: keeps everything, or a sliding window, or something else."""

from __future__ import annotations

import inspect
from functools import cache as remembered
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ...errors import InputError


def _layers(config: Any) -> tuple[Any, ...]:
    """The layers of the cache that the library makes for a model: what it does decides, not the names of config
    fields."""
    return tuple(DynamicCache(config=config).layers)


def sliding_windows(config: Any) -> list[int]:
    """Window lengths of the layers that attend within one, in tokens."""
    return sorted({int(layer.sliding_window) for layer in _layers(config) if getattr(layer, "is_sliding", False)})


def uses_sliding_window(config: Any) -> bool:
    """Does any layer attend within a sliding window? Padding between tokens would take places in it."""
    return bool(sliding_windows(config))


@remembered
def _argument(kind: Any) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def given(model: Any, cache: Any) -> dict[str, Any]:
    """A cache as the argument of a model, under adapters or not; releases of transformers differ in its name."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_argument(core.__class__): cache}


def check_cache(config: Any) -> None:
    """Raise InputError for a model whose cache is not keys and values of each position (state-space or linear
    attention …)."""
    for layer in _layers(config):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise InputError(
                f"model: {config.model_type} has layers that do not cache keys and values ({type(layer).__name__}); "
                "the local engine needs attention in every layer"
            )

"""One process, one device, transformers models, plain torch.

The engine itself is imported when it is asked for: it imports modules that import parts of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...config.schema import Config
from ...errors import MissingError, together
from ...methods.base import Method
from ..interface import TokenLimits
from .lora import quantization
from .memory import memory_line
from .model import resolve_device
from .optimizer import check_optimizer
from .vllm import vllm_mask_obstacle, vllm_wanted

if TYPE_CHECKING:
    from .local_engine import LocalEngine

__all__ = ["LocalEngine", "build", "check", "engine_line", "mask_obstacle", "max_sequence", "memory_line"]


def __getattr__(name: str) -> Any:
    if name != "LocalEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .local_engine import LocalEngine

    return LocalEngine


def check(config: Config) -> None:
    """See `engine.interface.check_engine`."""
    together(
        lambda: vllm_wanted(config, resolve_device(config.engine.device)),
        lambda: quantization(config.model),
        lambda: check_optimizer(config),
    )


def engine_line(config: Config) -> str:
    """See `engine.interface.engine_line`."""
    return f"local on {config.engine.device}"


def max_sequence(config: Config, context_length: int) -> int:
    """See `engine.interface.max_sequence`."""
    with suppress(MissingError):  # which `check` raises
        if vllm_wanted(config, resolve_device(config.engine.device)):
            return TokenLimits.of(config, context_length).sequence
    return context_length


def mask_obstacle(config: Config) -> str:
    """See `engine.interface.keeps_sampling_mask`."""
    with suppress(MissingError):  # which `check` raises
        if vllm_wanted(config, resolve_device(config.engine.device)):
            return vllm_mask_obstacle(config)
    return ""


def build(
    config: Config, method: Method, tokenizer: Any = None, prompts: Sequence[tuple[int, ...]] = ()
) -> LocalEngine:
    """See `engine.interface.build_engine`."""
    from .local_engine import LocalEngine

    return LocalEngine(config, method, tokenizer=tokenizer, prompts=prompts)

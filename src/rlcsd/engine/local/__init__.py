"""One process, one device, transformers models, plain torch."""

from ...config.schema import Config
from ...methods.base import Method
from .engine import LocalEngine
from .memory import memory_line

__all__ = ["LocalEngine", "build", "engine_line", "memory_line"]


def engine_line(config: Config) -> str:
    """Where the run would be computed."""
    return f"local on {config.engine.device}"


def build(config: Config, method: Method) -> LocalEngine:
    """See `engine.base.build_engine`."""
    return LocalEngine(config, method)

"""One process, one device, transformers models, plain torch."""

from ...config.schema import Config
from ...methods.base import Method
from .engine import LocalEngine
from .memory import memory_line

__all__ = ["LocalEngine", "build", "memory_line"]


def build(config: Config, method: Method) -> LocalEngine:
    """See `engine.base.build_engine`."""
    return LocalEngine(config, method)

"""FSDP2 workers and rollout servers of verl, as published on the package index, driven by this project's trainer.

Nothing here imports verl or Ray before an engine is built, so that a plan can be made without them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...config.schema import Config
from ...methods.base import Method
from .gpu_plan import engine_line, memory_line
from .settings import check, engine_settings, environment

if TYPE_CHECKING:
    from .verl_engine import VerlEngine

__all__ = ["build", "check", "engine_line", "memory_line"]


def build(config: Config, method: Method) -> VerlEngine:
    """See `engine.base.build_engine`. Raises InputError as `check` does, and for what does not come up."""
    check(config)
    os.environ.update(environment(engine_settings(config)))  # before verl is imported for the first time
    from . import compat  # noqa: F401  refuses what was not tested
    from .verl_engine import VerlEngine

    return VerlEngine.start(config, method)

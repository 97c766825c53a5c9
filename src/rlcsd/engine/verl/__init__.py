"""The cluster engine: verl's FSDP2 workers and rollout servers, driven by this project's trainer.

Nothing here imports verl or Ray before an engine is built, so a plan can be made without them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...config.schema import Config
from ...methods.base import HintedConfig, Method
from ..interface import TokenLimits, keeps_sampling_mask
from ..local.vllm import vllm_mask_obstacle
from ..out_of_memory import out_of_memory
from .gpu_plan import engine_line, memory_line
from .settings import check, engine_settings, environment

if TYPE_CHECKING:
    from .verl_engine import VerlEngine

__all__ = ["build", "check", "engine_line", "mask_obstacle", "max_sequence", "memory_line"]


def mask_obstacle(config: Config) -> str:
    """See `engine.interface.keeps_sampling_mask`."""
    rollout = engine_settings(config).rollout
    if rollout != "vllm":
        return f"engine.rollout={rollout} returns none; set engine.rollout=vllm"
    return vllm_mask_obstacle(config)


def max_sequence(config: Config, context_length: int) -> int:
    """See `engine.interface.max_sequence`."""
    return TokenLimits.of(config, context_length).sequence


def build(config: Config, method: Method, tokenizer: Any = None, prompts: Sequence[tuple[int, ...]] = ()) -> VerlEngine:
    """See `engine.interface.build_engine`. If anything fails, no process is left running.

    Raises InputError as `check` does, for a model whose files are not whole, and for processes that do not start.
    """
    check(config)
    os.environ.update(environment(engine_settings(config)))  # before verl is imported for the first time
    if keeps_sampling_mask(config):
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"  # the one that returns them
    import torch

    from ..local.model import check_files, load_tokenizer, teacher_model_config
    from .servers import Cluster
    from .verl_engine import VerlEngine, self_check

    torch.manual_seed(config.seed)
    teacher = method.config.teacher_model if isinstance(method.config, HintedConfig) else None
    check_files(config.model)
    if teacher:
        check_files(teacher_model_config(teacher, config, tokenizer or load_tokenizer(config.model)))
    with out_of_memory("loading", config):
        cluster = Cluster(config, teacher)
    try:
        engine = VerlEngine(config, method, cluster, tokenizer)
        if engine.settings.self_check:
            self_check(engine, prompts)
    except BaseException:
        cluster.close()
        raise
    return engine

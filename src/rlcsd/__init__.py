"""Reinforcement learning with contrastive self-distillation.

`rlcsd.train()` runs the default config; README.md shows a task and a method of your own.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    from .config.load import load as load_config
    from .config.schema import Config
    from .errors import InputError
    from .run import train
    from .run.evaluate import evaluate
    from .tasks.task import Problem, Reward, Task, Verdict

__version__ = "0.1.0"
__all__ = ["Config", "InputError", "Problem", "Reward", "Task", "Verdict", "evaluate", "load_config", "train"]

# Each name is imported when it is first used: verifier processes and `rlcsd --help` do not load torch.
_MODULES = {
    "Config": "config.schema:Config",
    "InputError": "errors:InputError",
    "Problem": "tasks.task:Problem",
    "Reward": "tasks.task:Reward",
    "Task": "tasks.task:Task",
    "Verdict": "tasks.task:Verdict",
    "evaluate": "run.evaluate:evaluate",
    "load_config": "config.load:load",
    "train": "run.run:train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rlcsd' has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

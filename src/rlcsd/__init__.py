"""Reinforcement learning with contrastive self-distillation.

>>> import rlcsd
>>> rlcsd.load_config(["method=grpo"]).method.name
'grpo'

`rlcsd.train()` runs the default config; README.md shows a task of your own, docs/methods.md a method. Train: `train`,
`sweep`. Describe: `Task`, `Problem`, `Verdict`, `Reward`, `Config`, `load_config`. Look: `Result`, `evaluate`,
`compare`, `inspect`, `chat`. Errors of input are `InputError`; `StopTraining` ends a run from `on_step`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

if TYPE_CHECKING:
    from .config.load import as_config as load_config
    from .config.schema import Config
    from .errors import InputError
    from .report.comparison import compare
    from .run.chat import Chat as chat  # noqa: N813 - called like a function, as in rlcsd.chat("runs/NAME").ask("…")
    from .run.evaluate import evaluate
    from .run.inspect import inspect
    from .run.result import Result
    from .run.run import train
    from .run.stop import StopTraining
    from .run.sweep import sweep
    from .tasks.task import Problem, Reward, Task, Verdict

__version__ = "0.2.0"
__all__ = [
    "Config",
    "InputError",
    "Problem",
    "Result",
    "Reward",
    "StopTraining",
    "Task",
    "Verdict",
    "chat",
    "compare",
    "evaluate",
    "inspect",
    "load_config",
    "sweep",
    "train",
]

# Each name is imported when it is first used: verifier processes and `rlcsd --help` do not load torch.
_MODULES = {
    "Config": "config.schema:Config",
    "InputError": "errors:InputError",
    "Problem": "tasks.task:Problem",
    "Result": "run.result:Result",
    "Reward": "tasks.task:Reward",
    "StopTraining": "run.stop:StopTraining",
    "Task": "tasks.task:Task",
    "Verdict": "tasks.task:Verdict",
    "chat": "run.chat:Chat",
    "compare": "report.comparison:compare",
    "evaluate": "run.evaluate:evaluate",
    "inspect": "run.inspect:inspect",
    "load_config": "config.load:as_config",
    "sweep": "run.sweep:sweep",
    "train": "run.run:train",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rlcsd' has no attribute {name!r}")
    module, _, attribute = _MODULES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

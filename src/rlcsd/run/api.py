"""Training from a program: `rlcsd.train`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.load import as_config
from ..config.schema import Config
from ..errors import InputError
from ..tasks.task import Task
from .checkpoint import resumed_config
from .console import ProgressDisplay, Style
from .run import Run, Watcher


def train(
    config: Config | Mapping[str, Any] | Sequence[str] | None = None,
    task: Task | None = None,
    watch: Watcher | None = None,
    progress: bool | Style = True,
    resume: str | Path | None = None,
) -> dict[str, Any]:
    """Train, and return `{"folder", "before", "after"}`, the last two as lists of `summary.Summary`.

    `config` is a `Config`, a list of overrides (`["method=grpo", "steps=20"]`), a mapping
    (`{"method": "grpo", "sampling": {"max_tokens": 256}, "method.tau": 0.1}`), or None for the embedded default.
    `task` replaces the config's task.

    `progress` shows the run: a live view on a terminal or in a notebook and plain lines elsewhere, on stderr in a
    program. False shows nothing. `watch` is called with each event beside it.

    `resume` is the folder of a run to go on with from its newest checkpoint; `config` is then a list of overrides of
    keys that may change, such as `["steps=60"]`.

    Raises:
        InputError: anything wrong with the config or the data, before anything is sampled.
    """
    folder = Path(resume) if resume is not None else None
    if folder is not None:
        if isinstance(config, Config | Mapping):
            raise InputError('resume: the run has its config; give changes as overrides, for example ["steps=60"]')
        chosen = resumed_config(folder, list(config or []))
    else:
        chosen = as_config(config)
    style: Style = progress if isinstance(progress, str) else "auto" if progress else "off"
    with ProgressDisplay(style, sys.stderr) as shown:

        def told(event: str, facts: Mapping[str, Any]) -> None:
            shown.watch(event, facts)
            if watch is not None:
                watch(event, facts)

        return Run(chosen, task, folder, told).execute(resume=folder is not None)

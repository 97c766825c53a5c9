"""What `rlcsd eval` measures: any model on any task, or a run's checkpoint on the task of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.load import changed, from_yaml, load
from ..config.schema import Config
from .checkpoint import is_run, with_newest_checkpoint

_FROM_RUN = ("task", "evaluation", "model")


def evaluated_config(overrides: Sequence[str]) -> Config:
    """The config of an evaluation.

    Where `model.path` is a run's folder, model, task and evaluation are the run's own, but for what the overrides say
    of them, and the weights are those of its newest checkpoint.

    Raises:
        InputError: as `load` does, or the run has no checkpoint.
    """
    config = load(["method=grpo", *overrides, "kl_coefficient=0"])
    folder = Path(config.model.path)
    if is_run(folder):
        config = _of_run(config, from_yaml(folder / "config.yaml"), [override.lstrip("+") for override in overrides])
    return with_newest_checkpoint(config)


def _of_run(config: Config, run: Config, overrides: Sequence[str]) -> Config:
    chosen = {override.partition("=")[0] for override in overrides}  # another task is chosen whole
    kept = [part for part in _FROM_RUN if part not in chosen]
    same = changed(run, [override for override in overrides if override.partition(".")[0] in kept])
    found = {part: getattr(same, part) for part in kept}
    if "model" in found:  # a checkpoint is a whole model, or an adapter that names its base
        plain = {"path": config.model.path, "lora": None, "quantization": None, "gguf_file": None}
        found["model"] = found["model"].model_copy(update=plain)
    return config.model_copy(update=found)

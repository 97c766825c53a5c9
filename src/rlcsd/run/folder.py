"""The name of a new run's folder, and what is written in it about the machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..config.load import changed, from_yaml, load
from ..config.schema import Config
from ..engine.interface import Engine
from ..errors import InputError
from .checkpoint import is_run, with_newest_checkpoint


def new_folder(config: Config, task_name: str) -> Path:
    """`output_dir/run_name`, or a name from task, method, seed and time that is not taken yet."""
    base = Path(config.output_dir)
    if config.run_name:
        folder = base / config.run_name
        if (folder / "config.yaml").exists():
            raise InputError(
                f"run_name={config.run_name}: {folder} already holds a run; choose another name or pass "
                f"--resume {folder}"
            )
        return folder
    method = str(config.method["name"]).rpartition(":")[2]
    stem = f"{task_name}-{method}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base / stem, 2
    while folder.exists():
        folder, number = base / f"{stem}-{number}", number + 1
    return folder


def environment(engine: Engine) -> dict[str, Any]:
    """What a number depends on beside the config."""
    packages: dict[str, str | None] = {}
    for name in ("rlcsd", "torch", "transformers", "tokenizers", "peft", "numpy", "vllm", "verl", "ray"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    device = engine.device
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "packages": packages,
    }


# ------------------------------------------------------------------ lock
# One process at a time writes to a run folder.


class RunLock:
    """Held from the start of a run to its end. The system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock", timeout=0)

    def acquire(self) -> None:
        """Raise InputError if another process holds the folder, or if it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another process is training in this run folder; wait for it, stop it, or choose "
                "another run_name"
            ) from None
        except OSError as error:
            raise InputError(
                f"output_dir={self.folder.parent}: the run folder cannot be written there ({error.strerror})"
            ) from None

    def check(self) -> None:
        """Raise InputError if another process holds the folder now, before anything slow is done."""
        if self.folder.is_dir():
            self.acquire()
            self.release()

    def release(self) -> None:
        self._lock.release()


# ------------------------------------------------------------------ evaluated
# What `rlcsd eval` measures: any model on any task, or a run's checkpoint on the task of the run.

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

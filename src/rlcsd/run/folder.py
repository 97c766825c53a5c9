"""The name of a new run's folder, and what is written in it about the machine."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..config.schema import Config
from ..engine.base import Engine
from ..errors import InputError


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

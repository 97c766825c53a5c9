"""vLLM as the sampler of the local engine, in the same process and on the same GPU as the policy.

vLLM's kernels differ from the trainer's, so a sample carries only the log-probs that it was sampled with. The trainer
asks the engine to score it under the policy; the rollout-correction weight is the ratio of the two. Being in one
process, vLLM's weights are replaced in place after each update, without a copy on disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError, MissingError
from ...records import Sample, Sampling
from ..interface import TokenLimits
from .lora import base_model_config
from .model import Network, resolve_path


def vllm_wanted(config: Config, device: torch.device) -> bool:
    """Whether vLLM samples: if `engine.sampler` names it, or is `auto` and vLLM and a GPU are there.

    Raises:
        MissingError: it is named, and there is no vLLM or no GPU.
        InputError: it is named, and the weights are in a GGUF file or in 4 bits.
    """
    installed, name, model = find_spec("vllm") is not None, config.engine.sampler, config.model
    if name == "vllm":
        if model.gguf_file or model.quantization:
            what = "from a GGUF file" if model.gguf_file else f"in 4 bits (model.quantization={model.quantization})"
            raise InputError(f"engine.sampler=vllm: weights {what} can only be sampled with engine.sampler=local")
        if not installed:
            raise MissingError("engine.sampler=vllm: vLLM is not installed; pip install 'rlcsd[vllm]'")
        if device.type != "cuda":
            raise MissingError(f"engine.sampler=vllm: vLLM needs a GPU, and engine.device is {device.type}")
    possible = installed and device.type == "cuda" and not model.gguf_file and not model.quantization
    return name == "vllm" or (name == "auto" and possible)


@torch.no_grad()
def policy_weights(network: Network) -> Iterable[tuple[str, Tensor]]:
    """The policy's weights by the names of the plain model, each adapter merged into a copy of what it adapts.

    The frozen base is never written: merging and unmerging it in place in bf16 rounds it a little each time, and
    teacher, reference and resumed runs share it.
    """
    adapted = {name: module for name, module in network.core.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in network.core.named_parameters():
        if "lora_" in name:
            continue
        layer = adapted.get(name.removesuffix(".base_layer.weight"))
        weight = parameter.detach()
        if layer is not None:
            weight = sum((layer.get_delta_weight(adapter) for adapter in layer.active_adapters), weight.float())
        yield name.replace(".base_layer", ""), weight.to(parameter.dtype)


class VllmSampler:
    """A vLLM engine beside the policy. Call `sync` after each update; `sample` is that of `engine.interface.Scorer`."""

    def __init__(self, config: Config, limits: TokenLimits) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights are passed within the process
        import vllm

        self.limits, self.vllm = limits, vllm
        self.llm: Any = vllm.LLM(
            model=resolve_path(base_model_config(config.model).path),
            dtype=config.model.dtype,
            gpu_memory_utilization=config.engine.vllm_memory,
            max_model_len=limits.sequence,
            logprobs_mode="processed_logprobs",  # of the distribution that is sampled from
            enable_prefix_caching=True,  # a group shares its prompt
            seed=config.seed,
        )

    def sync(self, network: Network) -> None:
        """Copy the policy's weights into vLLM, and drop caches that the old ones computed."""
        self.llm.apply_model(lambda model: model.load_weights(policy_weights(network)))
        self.llm.reset_prefix_cache()

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int, stop_ids: Sequence[int]
    ) -> list[list[Sample]]:
        """`n` responses to each prompt, without the policy's own log-probs.

        Raises InputError for a prompt that leaves too little room for its response.
        """
        self.limits.check_server(prompts, sampling)
        parameters = self.vllm.SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(stop_ids),
            logprobs=0,  # of the sampled token alone
            seed=seed % 2**31,
            detokenize=False,
        )
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.llm.generate(requests, parameters, use_tqdm=False)
        return [[self._sample(one, stop_ids) for one in output.outputs] for output in outputs]

    @staticmethod
    def _sample(output: Any, stop_ids: Sequence[int]) -> Sample:
        ids = tuple(output.token_ids)
        sampled = [float(step[token].logprob) for token, step in zip(ids, output.logprobs, strict=True)]
        return Sample(ids, None, torch.tensor(sampled), ids[-1] in stop_ids)

"""vLLM as the sampler: it draws, and its weights follow the policy's in place.

vLLM's kernels differ from the trainer's, so a sample carries only the log-probs that it was drawn with. The trainer
asks the engine for the policy's own where it needs them; the rollout-correction weight is their ratio. vLLM runs in
this process, where its weights can be replaced without a copy on disk.
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
from ..interface import check_room
from .model import Network, resolve_path


def vllm_wanted(config: Config, device: torch.device) -> bool:
    """Does the config ask for vLLM here? Raises InputError if it does by name and there is none, or no GPU."""
    installed, name = find_spec("vllm") is not None, config.engine.sampler
    if name == "vllm":
        if not installed:
            raise MissingError("engine.sampler=vllm: vLLM is not installed; pip install 'rlcsd[vllm]'")
        if device.type != "cuda":
            raise MissingError(f"engine.sampler=vllm: vLLM needs a GPU, and engine.device is {device.type}")
        if config.model.gguf_file:
            raise InputError(
                "engine.sampler=vllm: weights from a GGUF file can only be sampled with engine.sampler=local"
            )
    return name == "vllm" or (name == "auto" and installed and device.type == "cuda" and not config.model.gguf_file)


def policy_weights(network: Network) -> Iterable[tuple[str, Tensor]]:
    """The policy's weights by the names of the plain model, adapters merged into copies of what they adapt."""
    if network.core is network.model:
        yield from ((name, parameter.detach()) for name, parameter in network.core.named_parameters())
        return
    network.model.merge_adapter()
    try:
        for name, parameter in network.core.named_parameters():
            if "lora_" not in name:
                yield name.replace(".base_layer", ""), parameter.detach().clone()
    finally:
        network.model.unmerge_adapter()


class VllmSampler:
    """One vLLM engine beside the policy on its GPU, with `room` tokens for a prompt and its response together.

    `sync` after each update; `sample` as the engine's.
    """

    def __init__(self, config: Config, room: int) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights are handed over within the process
        import vllm

        self.config, self.vllm = config, vllm
        self.llm: Any = vllm.LLM(
            model=resolve_path(config.model.path),
            dtype=config.model.dtype,
            gpu_memory_utilization=config.engine.vllm_memory,
            max_model_len=room,
            logprobs_mode="processed_logprobs",  # of the distribution drawn from
            enable_prefix_caching=True,  # a group shares its prompt
            seed=config.seed,
        )

    def sync(self, network: Network) -> None:
        """vLLM's weights become the policy's; what it had cached of the old ones is forgotten."""
        self.llm.apply_model(lambda model: model.load_weights(policy_weights(network)))
        self.llm.reset_prefix_cache()

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int, stop_ids: Sequence[int]
    ) -> list[list[Sample]]:
        """`n` responses for each prompt, without the policy's own log-probs."""
        check_room(self.config, prompts, sampling)
        parameters = self.vllm.SamplingParams(
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(stop_ids),
            logprobs=0,  # that of the drawn token alone
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

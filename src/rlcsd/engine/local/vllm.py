"""vLLM as the sampler of the local engine, in the same process and on the same device as the policy.

vLLM's kernels differ from the trainer's, so a sample carries only the log-probs that it was sampled with. The trainer
asks the engine to score it under the policy; the rollout-correction weight is the ratio of the two.

Weights that have changed are handed over when the next sample is asked for: whole weights in place, adapters alone as
a new version. On a GPU vLLM sleeps while the trainer scores and updates, so that both use the same memory in turn.

Tested with vLLM 0.31.0 (its CPU build). What is private in vLLM is used in `_cpu_build` and `VllmSampler.close`.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from operator import contains
from tempfile import TemporaryDirectory
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError, MissingError, first_line
from ...plugins import installed_version
from ...records import Sample, Sampling, SamplingMask
from ..interface import TokenLimits, keeps_sampling_mask
from .lora import VLLM_RANKS, adapter_folder, base_model_config, vllm_has_kernel
from .model import Network, resolve_path

_FIRST_WITH_MASKS = "0.28"
_LOWEST_TEMPERATURE = 0.01  # vLLM raises a lower one to it with no more than a warning


def vllm_wanted(config: Config, device: torch.device) -> bool:
    """Whether vLLM samples: if `engine.sampler` names it, or is `auto` and vLLM and a GPU are there.

    Raises:
        MissingError: it is named, and vLLM is not installed or does not run on the device.
        InputError: it is named, and cannot be given the weights, or it is to sample at a temperature that it changes.
    """
    installed, name = find_spec("vllm") is not None, config.engine.sampler
    if name == "local" or (name == "auto" and not (installed and device.type == "cuda")):
        return False
    model = base_model_config(config.model)
    if name == "vllm":
        if model.gguf_file or model.quantization:
            what = "from a GGUF file" if model.gguf_file else f"in 4 bits (model.quantization={model.quantization})"
            raise InputError(f"engine.sampler=vllm: weights {what} can only be sampled with engine.sampler=local")
        if not installed:
            raise MissingError("engine.sampler=vllm: vLLM is not installed; pip install 'rlcsd[vllm]'")
        if device.type not in ("cuda", "cpu"):
            raise MissingError(f"engine.sampler=vllm: vLLM runs on a GPU or a CPU, and engine.device is {device.type}")
    elif model.gguf_file or model.quantization:
        return False
    for key, sampling in (("sampling", config.sampling), ("evaluation.sampling", config.evaluation.sampling)):
        if 0 < sampling.temperature < _LOWEST_TEMPERATURE:
            raise InputError(
                f"{key}.temperature={sampling.temperature}: vLLM samples at {_LOWEST_TEMPERATURE} or more, or greedily "
                "at 0; engine.sampler=local takes any"
            )
    return True


def vllm_mask_obstacle(config: Config) -> str:
    """Why the installed vLLM cannot return sampling masks (`return_sampling_mask`) and what to do, "" if it can.

    vLLM asks for a bound on every request's masks, those of evaluations too.
    """
    found = installed_version("vllm") if find_spec("vllm") else None
    if found is not None and Version(found) < Version(_FIRST_WITH_MASKS):
        return f"vLLM {found} returns none; install vLLM {_FIRST_WITH_MASKS} or later"
    if os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "0":
        return "vLLM returns them from its Model Runner V2 alone; unset VLLM_USE_V2_MODEL_RUNNER=0"
    if find_spec("triton") is None:
        return "vLLM returns them from its Model Runner V2 alone, which needs Triton, and Triton is not installed"
    evaluation = config.evaluation.sampling
    if evaluation.temperature == 0 or evaluation.top_k == 0:
        key = "temperature" if evaluation.temperature == 0 else "top_k"
        return f"vLLM then samples with a temperature and a top_k alone; set evaluation.sampling.{key} above 0"
    return ""


def adapters_alone(config: Config, device: torch.device) -> bool:
    """Whether vLLM keeps the base that it loads and is given the adapters, instead of weights that contain them.

    Not if the base already contains another adapter (that of the model's folder), which vLLM has not loaded.
    """
    if config.engine.vllm_adapters == "merged" or not vllm_has_kernel(config.model, device.type == "cpu"):
        return False
    return adapter_folder(config.model.path) is None


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


def prompt_seed(seed: int, prompt: Sequence[int], earlier: int) -> int:
    """The seed of a prompt's first response; vLLM gives response number i of a prompt this seed plus i.

    It depends on `seed`, the prompt, and how many equal prompts came `earlier` in the batch, not on other prompts.
    """
    return int.from_bytes(blake2b(repr((seed, earlier, *prompt)).encode(), digest_size=7).digest())


@contextmanager
def _cpu_build() -> Iterator[dict[str, Any]]:
    """Arguments of `vllm.LLM` for vLLM's CPU build; the engine is built within the context."""
    import vllm._custom_ops as operators
    from vllm.model_executor.layers import utils

    # Packed for these two kernels, the original weights would be dropped, and `load_weights` could not replace them.
    operators._supports_onednn = False
    utils.check_cpu_sgl_kernel = lambda *shape_and_dtype: False
    set_num_threads = torch.set_num_threads
    try:
        yield {"enforce_eager": True}  # compiling takes a minute and more
    finally:
        torch.set_num_threads = set_num_threads  # vLLM has put a function that does nothing in its place


class VllmSampler:
    """A vLLM engine beside the policy.

    Call `weights_changed` after each update, `sleep` before the trainer needs the device, and `close` at the end.
    """

    def __init__(self, config: Config, limits: TokenLimits, network: Network, alone: bool) -> None:
        """Start vLLM with the weights of `network`; `alone` as by `adapters_alone`.

        Raises:
            MissingError: the installed vLLM is built for another device.
            InputError: vLLM cannot serve adapters of this model.
        """
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are passed within the process
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns of dozens of things at each start
        self.masks = keeps_sampling_mask(config)
        if self.masks:
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"  # the one that returns them
        import vllm
        from vllm.platforms import current_platform

        on_cpu = network.device.type == "cpu"
        if current_platform.is_cpu() != on_cpu:
            raise MissingError(
                f"engine.sampler=vllm: the installed vLLM is built for {current_platform.device_type or 'no device'}, "
                f"and the model is on {network.device.type}; install the other build, or set engine.sampler=local"
            )
        self.network, self.limits, self.vllm, self.alone = network, limits, vllm, alone
        self.sleeps = config.engine.vllm_sleep and not on_cpu
        self.asleep, self.current, self.version = False, False, 0
        self.adapter: Any = None  # the request that names the newest version of the adapters
        settings = {
            "model": resolve_path(base_model_config(config.model).path),
            "skip_tokenizer_init": True,  # it is given token ids, and told which ids end a response
            "dtype": config.model.dtype,
            "gpu_memory_utilization": config.engine.vllm_memory,
            "max_model_len": limits.sequence,
            "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from
            "enable_prefix_caching": True,  # a group shares its prompt
            "enable_sleep_mode": self.sleeps,
            "seed": config.seed,
            "use_tqdm_on_load": False,
        }
        if self.masks:
            settings["return_sampling_mask"] = True
        if alone:
            assert config.model.lora is not None
            rank = next(rank for rank in VLLM_RANKS if rank >= config.model.lora.rank)
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        torch.cuda.empty_cache()  # vLLM counts what torch has cached as taken
        if on_cpu:
            with _cpu_build() as more:
                self.llm: Any = self._start(settings | more)
        else:
            self.llm = self._start(settings)
        self._hand_over()

    def _start(self, settings: dict[str, Any]) -> Any:
        try:
            return self.vllm.LLM(**settings)
        except Exception as error:
            _free()  # what it has set up so far
            if self.alone and "LoRA" in str(error):
                raise self._refusal(error) from None
            if self.masks and ("Model Runner V2" in str(error) or "sampling distribution replay" in str(error)):
                reason = next(line for line in str(error).splitlines() if "Runner V2" in line or "replay" in line)
                raise InputError(
                    f"sampling_mask: vLLM cannot return sampling masks here ({reason.strip()}); set sampling_mask=false"
                ) from None
            raise

    @staticmethod
    def _refusal(error: Exception) -> InputError:
        return InputError(
            f"engine.vllm_adapters=auto: vLLM cannot serve these adapters ({first_line(error)}); set "
            "engine.vllm_adapters=merged"
        )

    # ------------------------------------------------------------------ weights and memory

    def weights_changed(self) -> None:
        """The policy has other weights now; the next `sample` hands them over."""
        self.current = False

    def sleep(self) -> None:
        """Leave the GPU's memory to the trainer until the next `sample`."""
        if not self.sleeps or self.asleep:
            return
        # Level 2 discards the weights, and the next sample hands them over again. What vLLM holds for adapters lies in
        # the same memory but is neither parameter nor buffer: level 1 brings back all of it, from host memory.
        self.llm.sleep(level=1 if self.alone else 2)
        self.asleep, self.current = True, self.current and self.alone

    def _wake(self) -> None:
        """Ready to sample from the policy as it is now."""
        if self.asleep:
            torch.cuda.empty_cache()  # what the trainer has freed but torch has kept
            self.llm.wake_up(tags=["weights"])
        if not self.current:
            self._hand_over()
        if self.asleep:
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False

    def _hand_over(self) -> None:
        """Copy the policy's weights into vLLM, and drop what the old ones have computed."""
        if self.alone:
            self._hand_over_adapters()
        else:
            self.llm.apply_model(lambda model: model.load_weights(policy_weights(self.network)))
        self.llm.reset_prefix_cache()
        self.current = True

    def _hand_over_adapters(self) -> None:
        """Each version has a name and number of its own, because vLLM would reuse what it knows by the name."""
        from vllm.lora.request import LoRARequest

        engine = self.llm.llm_engine
        if self.adapter is not None:
            engine.remove_lora(self.version)
        self.version += 1
        with TemporaryDirectory(prefix="rlcsd-adapters-") as folder:  # vLLM takes adapters from files alone
            self.network.model.save_pretrained(folder, save_embedding_layers=False)
            self.adapter = LoRARequest(f"version-{self.version}", self.version, folder)
            try:
                engine.add_lora(self.adapter)
            except ValueError as error:
                raise self._refusal(error) from None

    def close(self) -> None:
        """End vLLM and free its memory, so that another engine can be opened in the process."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            _free()

    # ------------------------------------------------------------------ sampling

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int, stop_ids: Sequence[int]
    ) -> list[list[Sample]]:
        """`n` responses to each prompt, without the policy's own log-probs.

        Each response has random numbers of its own, whatever other prompts are in the batch.

        Raises InputError for a prompt that leaves too little room for its response.
        """
        self.limits.check_server(prompts, sampling)
        self._wake()
        greedy = sampling.temperature == 0.0  # one response, `n` times: vLLM takes n = 1 alone
        settings: dict[str, Any] = {
            "n": 1 if greedy else n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "max_tokens": sampling.max_tokens,
            "stop_token_ids": list(stop_ids),
            "ignore_eos": True,  # these ids alone
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }
        earlier, parameters = Counter[tuple[int, ...]](), []
        for prompt in map(tuple, prompts):
            parameters.append(self.vllm.SamplingParams(**settings, seed=prompt_seed(seed, prompt, earlier[prompt])))
            earlier[prompt] += 1
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.llm.generate(requests, parameters, use_tqdm=False, lora_request=self.adapter)
        groups = [[_sample(one, stop_ids, greedy, sampling.keep_mask) for one in output.outputs] for output in outputs]
        return [group * n for group in groups] if greedy else groups


def _free() -> None:
    """Give back the memory of a vLLM engine to which nothing refers any more, and end its process group."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    gc.collect()
    cleanup_dist_env_and_memory()


def sampling_mask_of(kept: Any, ids: Sequence[int]) -> SamplingMask:
    """A mask from vLLM's lists of token ids, one for each of the tokens `ids`.

    Raises:
        InputError: there are none, or a token is not among those that it was sampled from.
    """
    if kept is None or len(kept) != len(ids) or not all(map(contains, kept, ids)):
        raise InputError(
            "sampling_mask: vLLM gave a response without the tokens that it was sampled from; set sampling_mask=false"
        )
    counts = torch.tensor(list(map(len, kept)), dtype=torch.int32)
    return SamplingMask(torch.tensor([token for one in kept for token in one], dtype=torch.int32), counts)


def _sample(output: Any, stop_ids: Sequence[int], greedy: bool, keep_mask: bool) -> Sample:
    ids = tuple(output.token_ids)
    sampled = [float(step[token].logprob) for token, step in zip(ids, output.logprobs, strict=True)]
    # Greedily a token is certain; vLLM gives its log-prob at temperature 1.
    log_probs = torch.zeros(len(ids)) if greedy else torch.tensor(sampled)
    mask = None
    if keep_mask:
        mask = sampling_mask_of(getattr(output.sampling_mask, "token_ids", None), ids)
    return Sample(ids, None, log_probs, ids[-1] in stop_ids, sampling_mask=mask)

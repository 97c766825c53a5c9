"""Translate the run's config into verl's own, and refuse what engine=verl cannot do. Needs neither verl nor Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

from packaging.version import Version

from ...config.schema import Config, VerlEngineConfig
from ...errors import InputError, MissingError, together
from ...plugins import installed_version
from ..interface import TokenLimits, keeps_sampling_mask
from ..local import model as local_model
from ..local.lora import adapter_folder, vllm_has_kernel
from ..local.model import context_length, resolve_path, text_config

TESTED = ("0.9.1", "0.9.2")  # versions of verl: from the first, below the second
_ACTOR, _MODEL, _ROLLOUT = ("actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_rollout_ref.rollout")
_SERVER_PACKAGES = ("vllm", "sglang")  # rollout servers that are packages of their own
_NOT_SHARED = ("sdpa", "eager", "flex_attention")  # verl exchanges heads for sequences in flash attention alone
_FLASH_PACKAGES = ("flash_attn", "kernels")  # transformers takes flash attention from either


def engine_settings(config: Config) -> VerlEngineConfig:
    """The keys of `engine=verl`, typed."""
    return cast(VerlEngineConfig, config.engine)


def adapters_alone(config: Config) -> bool:
    """Whether rollout servers keep the base and are sent the adapters, instead of weights that contain them."""
    e, lora = engine_settings(config), config.model.lora
    return lora is not None and e.rollout_adapters != "merged" and vllm_has_kernel(config.model, e.platform == "cpu")


def environment(settings: VerlEngineConfig) -> dict[str, str]:
    """Variables that verl reads when it is imported, in the driver and in the workers."""
    variables = {"VERL_ENGINE_VENDOR": "rlcsd", "TOKENIZERS_PARALLELISM": "false"}
    if settings.platform != "cuda":
        variables["VERL_PLATFORM"] = settings.platform
    if settings.modules:
        variables["VERL_USE_EXTERNAL_MODULES"] = ",".join(settings.modules)
    return variables


# ------------------------------------------------------------------ verl's config


def overrides(config: Config, model: str | None = None) -> list[str]:
    """Hydra overrides of verl's tree `ppo_trainer`; `model` is the path of another model as the teacher."""
    e = engine_settings(config)
    dtype = "bf16" if config.model.dtype == "bfloat16" else "fp32"
    frozen = model is not None
    limits = TokenLimits.of(config, context_length(config.model))
    sleeps = e.platform != "cpu" or e.rollout != "vllm"  # vLLM does not on a CPU
    values: dict[str, Any] = {
        "trainer.n_gpus_per_node": e.gpus_per_node,
        "trainer.nnodes": e.nodes,
        "trainer.device": e.platform,
        f"{_MODEL}.path": resolve_path(model or config.model.path),
        f"{_MODEL}.use_remove_padding": True,
        f"{_MODEL}.enable_gradient_checkpointing": config.model.gradient_checkpointing and not frozen,
        f"+{_MODEL}.override_config.attn_implementation": attention(config),
        f"{_ACTOR}.strategy": "fsdp2",
        f"{_ACTOR}.use_dynamic_bsz": True,
        f"{_ACTOR}.ppo_max_token_len_per_gpu": e.micro_batch_tokens,
        f"{_ACTOR}.ulysses_sequence_parallel_size": e.sequence_parallel,
        f"{_ACTOR}.use_torch_compile": False,
        f"{_ACTOR}.fsdp_config.use_torch_compile": False,
        f"{_ACTOR}.fsdp_config.seed": config.seed,
        f"{_ACTOR}.fsdp_config.model_dtype": dtype if frozen or config.model.master_dtype == "bfloat16" else "fp32",
        f"{_ACTOR}.fsdp_config.param_offload": e.offload == "all",
        f"{_ACTOR}.fsdp_config.optimizer_offload": e.offload != "none",
        f"+{_ACTOR}.fsdp_config.mixed_precision.param_dtype": dtype,
        f"+{_ACTOR}.fsdp_config.mixed_precision.reduce_dtype": "fp32",
        f"+{_ACTOR}.fsdp_config.mixed_precision.buffer_dtype": "fp32",
        f"{_ACTOR}.optim.lr": config.learning_rate,
        f"{_ACTOR}.optim.weight_decay": config.weight_decay,
        f"{_ACTOR}.optim.clip_grad": config.max_grad_norm,
        f"{_ROLLOUT}.name": e.rollout,
        f"{_ROLLOUT}.seed": config.seed,
        f"{_ROLLOUT}.n_gpus_per_node": e.gpus_per_node,
        f"{_ROLLOUT}.tensor_model_parallel_size": e.tensor_parallel,
        f"{_ROLLOUT}.dtype": config.model.dtype,
        f"{_ROLLOUT}.prompt_length": config.max_prompt_tokens,
        f"{_ROLLOUT}.response_length": limits.response,
        f"{_ROLLOUT}.max_model_len": limits.sequence,
        f"{_ROLLOUT}.max_num_seqs": e.rollout_rows,
        f"{_ROLLOUT}.gpu_memory_utilization": e.rollout_memory,
        f"{_ROLLOUT}.enforce_eager": e.rollout_eager,
        f"{_ROLLOUT}.free_cache_engine": sleeps,
        f"+{_ROLLOUT}.enable_sleep_mode": sleeps,
        f"{_ROLLOUT}.enable_chunked_prefill": True,
        f"{_ROLLOUT}.enable_prefix_caching": True,
        f"{_ROLLOUT}.calculate_log_probs": True,
        f"{_ROLLOUT}.logprobs_mode": "processed_logprobs",  # of the distribution that was sampled from
        f"{_ROLLOUT}.load_format": "dummy",  # weights come from the trainer
        f"{_ROLLOUT}.log_prob_use_dynamic_bsz": True,
        f"{_ROLLOUT}.log_prob_max_token_len_per_gpu": e.score_tokens,
        f"{_ROLLOUT}.checkpoint_engine.backend": "naive",  # trainer and servers share GPUs
    }
    if not frozen and keeps_sampling_mask(config):
        values[f"+{_ROLLOUT}.engine_kwargs.vllm.return_sampling_mask"] = True
    lora = None if frozen else config.model.lora
    if lora is not None:
        values |= {
            f"{_MODEL}.lora_rank": lora.rank,
            f"{_MODEL}.lora_alpha": int(lora.alpha),  # verl's class accepts no float
            f"{_MODEL}.target_modules": lora.target_modules,
            f"{_MODEL}.lora.merge": not adapters_alone(config),
        }
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def verl_config(config: Config, model: str | None = None, extra: Sequence[str] = ()) -> Any:
    """verl's whole config of a run, as omegaconf. verl must be installed."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", [*overrides(config, model), *extra])


def attention(config: Config) -> str:
    """The trainer's attention: `auto` is flash attention on NVIDIA GPUs in bfloat16 where flash-attn is installed or
    GPUs share a sequence, which nothing else can; and sdpa elsewhere."""
    e = engine_settings(config)
    if e.attention != "auto":
        return e.attention
    wanted = e.sequence_parallel > 1 or find_spec("flash_attn") is not None
    return "flash_attention_2" if wanted and e.platform == "cuda" and config.model.dtype == "bfloat16" else "sdpa"


def stop_ids(config: Config, tokenizer: Any) -> list[int]:
    """See `local.model.stop_ids`. A model without a generation config has its end tokens in its own config."""
    from transformers import AutoConfig, GenerationConfig

    path = resolve_path(config.model.path)
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(path))
    return local_model.stop_ids(generation, tokenizer)


# ------------------------------------------------------------------ checks before anything is started


def check(config: Config) -> None:
    """Refuse a config that this engine cannot run, and name what is not installed.

    A dry run calls it too, so a plan refuses what a run refuses.

    Raises:
        InputError: this engine does not do what the config asks for.
        MissingError: a library is not installed, or not in a tested version.
    """
    _check_model(config)
    _check_heads(config)
    together(check_version, lambda: _check_libraries(config))


def check_version() -> None:
    """Raise MissingError unless a tested version of verl is installed."""
    wanted = f"it was tested with verl from {TESTED[0]} to below {TESTED[1]}; pip install 'rlcsd[verl]'"
    found = installed_version("verl")
    if found is None:
        raise MissingError(f"engine=verl: verl is not installed; {wanted}")
    if not Version(TESTED[0]) <= Version(found) < Version(TESTED[1]):
        raise MissingError(f"engine=verl: verl {found} is installed, and {wanted}")


def _check_model(config: Config) -> None:
    model = config.model
    if model.gguf_file:
        raise InputError("model.gguf_file: engine=verl loads safetensors alone; use engine=local, or convert the file")
    for key, path in (
        ("model.path", model.path),
        ("method.teacher_model", getattr(config.method, "teacher_model", None)),
    ):
        if path is not None and adapter_folder(path) is not None:
            raise InputError(
                f"{key}={path}: an adapter without its base; engine=verl loads whole models: `rlcsd export "
                f"{path} --out DIR` merges it into one"
            )
    if model.lora is not None and model.lora.dropout:
        raise InputError(f"model.lora.dropout={model.lora.dropout}: engine=verl builds adapters without dropout; set 0")
    if model.lora is not None and not float(model.lora.alpha).is_integer():
        raise InputError(f"model.lora.alpha={model.lora.alpha}: engine=verl takes whole numbers alone")
    if attention(config) == "flash_attention_2" and model.dtype != "bfloat16":
        raise InputError(
            f"engine.attention=flash_attention_2: it does not compute in {model.dtype}; set model.dtype=bfloat16, or "
            "engine.attention=sdpa"
        )
    e = engine_settings(config)
    if e.sequence_parallel > 1 and attention(config) in _NOT_SHARED:
        raise InputError(
            f"engine.sequence_parallel={e.sequence_parallel}: in {attention(config)} attention each GPU would see its "
            "own part of a sequence alone; set engine.attention=flash_attention_2 with model.dtype=bfloat16, or "
            "engine.sequence_parallel=1"
        )


def _check_heads(config: Config) -> None:
    """GPUs that share a sequence, or a server, divide the attention heads among them."""
    found, e = text_config(config.model), engine_settings(config)
    if found is None:
        return
    heads = int(found.num_attention_heads)
    keys = int(getattr(found, "num_key_value_heads", None) or heads)
    if heads % e.tensor_parallel:
        raise InputError(f"engine.tensor_parallel={e.tensor_parallel}: must divide the model's {heads} attention heads")
    share = e.sequence_parallel
    if heads % share or (keys % share and share % keys):
        raise InputError(
            f"engine.sequence_parallel={share}: must divide the model's {heads} attention heads, and divide its {keys} "
            "key-value heads or be a multiple of them"
        )


def _install(server: str) -> str:
    return "-c requirements-gpu.lock 'rlcsd[vllm]'" if server == "vllm" else server


def _check_libraries(config: Config) -> None:
    e = engine_settings(config)
    missing = []
    if e.rollout in _SERVER_PACKAGES and find_spec(e.rollout) is None:
        missing.append(f"engine.rollout={e.rollout}: {e.rollout} is not installed; pip install {_install(e.rollout)}")
    if attention(config) == "flash_attention_2" and not any(find_spec(name) for name in _FLASH_PACKAGES):
        missing.append(
            "engine.attention=flash_attention_2: flash-attn is not installed; pip install flash-attn "
            "--no-build-isolation, which compiles it for the torch that is installed, or set engine.attention=sdpa"
        )
    if missing:
        raise MissingError(*missing)

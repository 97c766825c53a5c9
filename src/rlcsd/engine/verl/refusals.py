"""What the cluster cannot do with a config, and what it lacks here: a plan says it, and a run before it starts Ray."""

from __future__ import annotations

from importlib.util import find_spec

from ...config.schema import Config
from ...errors import InputError, MissingError, together
from ..local.adapters import adapter_folder
from ..local.network import text_config
from .settings import attention, engine_settings
from .tested import check_version

_SERVERS = ("vllm", "sglang")  # rollout servers that are packages of their own
_FLASH = ("flash_attn", "kernels")  # transformers takes flash attention from either


def check(config: Config) -> None:
    """Raises:
    InputError: this engine does not do what the config asks for.
    MissingError: a library is not installed, or of another version than those that were tested.
    """
    _check_model(config)
    _check_heads(config)
    together(check_version, lambda: _check_libraries(config))


def _check_model(config: Config) -> None:
    model = config.model
    if model.gguf_file:
        raise InputError("model.gguf_file: engine=verl loads safetensors alone; use engine=local, or convert the file")
    if adapter_folder(model.path) is not None:
        raise InputError(
            f"model.path={model.path}: an adapter without its base; engine=verl loads whole models, use engine=local"
        )
    if model.lora is not None and model.lora.dropout:
        raise InputError(f"model.lora.dropout={model.lora.dropout}: engine=verl builds adapters without dropout; set 0")
    if attention(config) == "flash_attention_2" and model.dtype != "bfloat16":
        raise InputError(
            f"engine.attention=flash_attention_2: it does not compute in {model.dtype}; set model.dtype=bfloat16, or "
            "engine.attention=sdpa"
        )


def _check_heads(config: Config) -> None:
    """GPUs that share a sequence or a server divide the heads among them."""
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


def _check_libraries(config: Config) -> None:
    e = engine_settings(config)
    lacking = []
    if e.rollout in _SERVERS and find_spec(e.rollout) is None:
        lacking.append(f"engine.rollout={e.rollout}: {e.rollout} is not installed; pip install {e.rollout}")
    if attention(config) == "flash_attention_2" and not any(find_spec(name) for name in _FLASH):
        lacking.append(
            "engine.attention=flash_attention_2: flash-attn is not installed; pip install flash-attn "
            "--no-build-isolation, or set engine.attention=sdpa"
        )
    if lacking:
        raise MissingError(*lacking)

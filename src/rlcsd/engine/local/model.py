"""Causal language models as both engines use them: loading, backbone and head apart, cache kinds, the teacher's copy.

Loading checks what would go wrong late: files that are not those of one whole model, a tokenizer without a chat
template, logits that are not those of the output embedding, and layers that do not cache keys and values.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import logging as transformers_logging

from ...config.schema import Config, ModelConfig
from ...errors import InputError, MissingError, first_line, is_out_of_memory
from ...methods.base import TeacherSchedule
from ...prompts import check_rendering, end_of_turn_ids
from ..architectures import known_architecture
from ..head import Head
from .attention import attend_in_blocks
from .lora import PICKLED, base_model_config, keep_gradients, quantization, with_adapters

transformers_logging.disable_progress_bar()

# Models in the package by name; the card in each folder says how it was made.
PACKAGED = {folder.name: folder for folder in sorted((Path(__file__).parents[2] / "bases").iterdir())}
TINY = PACKAGED["tiny"]
_FORMER_FOLDERS = {"rlcsd/warmstart/kk_tiny": "tiny", "rlcsd/warmstart/roll_call": "tiny_roll_call"}
_NO_LIMIT = 1 << 30  # context length of a model whose config states none


class Network:
    """`model` (a transformers causal LM, or a peft wrapper of one), its `backbone` and its chunked `head`."""

    def __init__(self, model: Any, head_chunk: int = 4096, autocast: bool = False, temperature: float = 1.0) -> None:
        self.model = model
        self.head_chunk = head_chunk
        self.autocast_dtype = torch.bfloat16 if autocast else None
        attend_in_blocks(self.core)
        self.backbone: Any = self.core.base_model
        softcap = getattr(self.core.config.get_text_config(), "final_logit_softcapping", None)
        self.head = Head(self.core.get_output_embeddings(), softcap, head_chunk, temperature)

    @property
    def core(self) -> Any:
        """The transformers model, without a wrapper for adapters."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def context_length(self) -> int:
        """Maximum number of tokens in one sequence."""
        return positions(self.core.config.get_text_config())

    def named_trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def trainable(self) -> list[nn.Parameter]:
        return list(self.named_trainable().values())

    def precision(self) -> Any:
        """The context for forward passes: bf16 autocast over float32 weights, or nothing."""
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        )

    @contextmanager
    def rounded_weights(self) -> Iterator[None]:
        """Within this context, linear layers of the backbone hold their weights in autocast's dtype.

        Autocast rounds them anew in each pass without gradient, which costs a sampled token as much as reading them.
        """
        held: list[tuple[nn.Module, str, Any]] = []
        try:
            for module in self.backbone.modules() if self.autocast_dtype else ():
                for name, tensor in module._parameters.items() if isinstance(module, nn.Linear) else ():
                    if tensor is not None and tensor.dtype == torch.float32:
                        held.append((module, name, tensor))
                        module._parameters[name] = nn.Parameter(tensor.detach().to(self.autocast_dtype), False)
            yield
        finally:
            for module, name, tensor in held:
                module._parameters[name] = tensor

    def hidden(self, cache: Any = None, **inputs: Any) -> Tensor:
        """Last hidden states `[B, T, H]`. With a `cache`, the inputs follow the tokens in it, and it grows in place."""
        if cache is not None:
            inputs |= {"use_cache": True, **cache_argument(self.backbone, cache)}
        output: Tensor = self.backbone(**inputs).last_hidden_state
        return output

    def twin(self) -> Network:
        """A frozen copy: trained parameters are copied, all other tensors are shared.

        With adapters, the copy is a second adapter over the same base; without, a second model.
        """
        shared = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        model, autocast = copy.deepcopy(self.model, shared), self.autocast_dtype is not None
        other = Network(model, self.head_chunk, autocast, self.head.temperature)
        for parameter in other.model.parameters():
            parameter.requires_grad_(False)
        other.model.eval()
        return other

    @torch.no_grad()
    def check(self) -> None:
        """Raise InputError unless head(backbone(x)) equals the model's own logits."""
        ids = torch.arange(1, 9, device=self.device)[None] % self.core.config.get_text_config().vocab_size
        ours = self.head.logits(self.hidden(input_ids=ids)[0])
        library = self.core(input_ids=ids).logits[0]
        close = 1e-3 if library.dtype == torch.float32 else 3e-2  # the model's own logits may be rounded to bf16
        if not torch.allclose(ours.float(), library.float(), atol=close, rtol=close):
            raise InputError(
                f"model: {type(self.core).__name__} computes logits otherwise than by its output embedding; it "
                "is not supported"
            )


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode within this context, then in the mode it had.

    Under gradient checkpointing, a model in train mode keeps no cache.
    """
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class Teacher:
    """The teacher's network in one process: a frozen twin that follows the policy by a schedule, or another model.

    With adapters only the adapter exists twice (`Network.twin`).
    """

    def __init__(self, policy: Network, schedule: TeacherSchedule, other: Network | None = None) -> None:
        """`other` is the teacher itself for kind `model`; every other kind starts as a twin of the policy."""
        self.schedule = schedule
        self.network = policy.twin() if other is None else other
        self._followed = sorted(policy.named_trainable()) if other is None else []

    def follow(self, policy: Network, optimizer_step: int) -> None:
        """Called after each optimizer step with its number, from 1."""
        if not self.schedule.due(optimizer_step):
            return
        source, target = dict(policy.model.named_parameters()), dict(self.network.model.named_parameters())
        for name in self._followed:
            self.schedule.move(target[name], source[name])

    def state(self) -> dict[str, Tensor]:
        """The teacher's own tensors by name; empty for a schedule that never moves and for another model."""
        if not self.schedule.moves:
            return {}
        parameters = dict(self.network.model.named_parameters())
        return {name: parameters[name].detach() for name in self._followed}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError unless `state` has exactly the tensors of `state()`."""
        if state.keys() != self.state().keys():
            raise ValueError("the teacher has other parameters")
        parameters = dict(self.network.model.named_parameters())
        for name, tensor in state.items():
            parameters[name].copy_(tensor)


# ------------------------------------------------------------------ names, devices, configs


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else the CPU.

    Raises:
        MissingError: a device that is not there, or has no float64, in which losses are summed (MPS).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise MissingError(f"engine.device={name}: not a usable device ({first_line(error)})") from None
    return device


def resolve_path(path: str) -> str:
    """Folder of the packaged model of this name; any other path is returned as it is.

    Adapters that were saved by earlier versions name the folder in which a packaged model was at that time.
    """
    former = "/".join(Path(path).parts[-3:])
    return str(PACKAGED.get(_FORMER_FOLDERS.get(former, path), path))


def architecture(model: ModelConfig) -> Any:
    """The transformers config of a model, without network access for those in `architectures.yaml`.

    Raises OSError or ValueError as transformers does.
    """
    base = base_model_config(model)
    extra = {"gguf_file": base.gguf_file} if base.gguf_file else {}
    return known_architecture(base.path) or AutoConfig.from_pretrained(resolve_path(base.path), **extra)


def text_config(model: ModelConfig) -> Any | None:
    """The config of a model's language part, or None if it cannot be loaded."""
    try:
        return architecture(model).get_text_config()
    except (OSError, ValueError, KeyError):
        return None


def context_length(model: ModelConfig) -> int:
    """Maximum number of tokens in one sequence; unlimited (2^30) if the model's config cannot be loaded."""
    return positions(text_config(model))


def positions(config: Any | None) -> int:
    """How many positions of a sequence a model embeds alike, whatever rows are beside it in a forward pass.

    LongRoPE (Phi-3 and Phi-4-mini with 128k) takes other frequencies for a whole pass, cached keys excepted, when its
    longest row is beyond the context before scaling. So a token's log-prob there would depend on the other rows, and
    differ between sampler, scorer and update.
    """
    longest = int(getattr(config, "max_position_embeddings", _NO_LIMIT))
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # of each kind of layers, or of all
    before = [kind.get("original_max_position_embeddings") for kind in kinds if kind.get("rope_type") == "longrope"]
    return min([longest, *(int(bound or longest) for bound in before)])


# ------------------------------------------------------------------ tokenizers


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, with a padding token.

    Raises:
        InputError: there is none, it has no chat template, or its prompts are not those of the template.
    """
    base = base_model_config(config).path
    own = base == config.path or (Path(config.path) / "tokenizer_config.json").is_file()
    path = resolve_path(config.path if own else base)
    extra = {"gguf_file": config.gguf_file} if config.gguf_file else {}
    if config.gguf_file and Path(path).is_dir() and not (Path(path) / config.gguf_file).is_file():
        raise InputError(f"model.gguf_file={config.gguf_file}: there is no such file in model.path={config.path}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **extra)
    except Exception as error:  # missing, broken or foreign files: each raises its own type
        absent = "" if Path(path).exists() else "there is no such folder, and from the hub: "
        reason = f"{absent}{first_line(error)}"
        raise InputError(f"model.path={config.path}: no tokenizer could be loaded ({reason})") from None
    if config.chat_template is not None:
        tokenizer.chat_template = config.chat_template
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"model.path={config.path}: the tokenizer has no chat template, which prompts are rendered with; give one "
            "with model.chat_template=FILE"
        )
    if tokenizer.pad_token_id is None:  # any token will do, since a mask hides it
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    check_rendering(tokenizer)
    return tokenizer


def stop_ids(generation: Any, tokenizer: Any) -> list[int]:
    """Token ids that end a response: those of a generation config (or None), the tokenizer's, and the end of a turn in
    the chat template, which base models often do not name."""
    declared = getattr(generation, "eos_token_id", None)
    several = declared if isinstance(declared, list) else [declared]
    ends = [*several, tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)]
    return sorted({int(token) for token in ends if token is not None})


def teacher_model_config(path: str, config: Config, tokenizer: Any) -> ModelConfig:
    """The config of another model as the teacher, with the dtype and chat template of the policy.

    Raises InputError unless its vocabulary equals that of `tokenizer`, the policy's, and its context has room for what
    it is to score.
    """
    teacher = ModelConfig(path=path, dtype=config.model.dtype, chat_template=tokenizer.chat_template)
    if load_tokenizer(teacher).get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"method.teacher_model={path}: its vocabulary is not the policy's, so it cannot score the same token ids"
        )
    hinted = getattr(config.method, "hint_source", "none") != "none"
    scored = config.max_teacher_tokens if hinted else config.max_prompt_tokens + config.sampling.max_tokens
    longest, room = context_length(config.model), context_length(teacher)
    if room < min(longest, scored or longest):
        keys = f"max_teacher_tokens={room}" if hinted else f"max_prompt_tokens and sampling.max_tokens of {room} in all"
        raise InputError(f"method.teacher_model={path}: its context has {room} tokens; set {keys}, or take another one")
    return teacher


# ------------------------------------------------------------------ weights


def load_network(config: ModelConfig, device: torch.device, head_chunk: int = 4096) -> Network:
    """The policy, ready to train: trained parameters in `model.master_dtype`, frozen weights below adapters in the
    config's dtype.

    Raises:
        InputError: no such model, incomplete or foreign weights, or a model that the engine does not support.
    """
    gguf_file = base_model_config(config).gguf_file
    extra: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    four_bits = quantization(config)
    if four_bits:
        extra |= {**four_bits, "device_map": {"": device}}
    half = config.dtype == "bfloat16"
    master = torch.bfloat16 if half and config.master_dtype == "bfloat16" else torch.float32
    dtype = torch.bfloat16 if half and config.lora is not None else master
    model = _load_model(config, dtype=dtype, attn_implementation="sdpa", **extra)
    if gguf_file:
        model = _forget_gguf(model)
    check_cache(model.config)
    disable_dropout(model)
    if four_bits:  # it is on the device already
        keep_gradients(model)
    else:
        model.to(device)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model = with_adapters(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft makes and reads adapters in float32
            parameter.data = parameter.data.to(master)
    network = Network(model, head_chunk, half)
    network.check()
    return network


def check_files(config: ModelConfig) -> None:
    """Raise InputError unless a model's files are those of one whole model; only their headers are read."""
    _load_model(config, device_map="meta")


def disable_dropout(model: Any) -> None:
    """Set every dropout rate to 0, so that the policy that is updated is the one that sampled."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(module, name, 0.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _load_model(config: ModelConfig, **options: Any) -> Any:
    """A transformers model from safetensors or GGUF files (pickles can run code), with all of its weights."""
    base = base_model_config(config)
    path = resolve_path(base.path)
    safe = {} if base.gguf_file else {"use_safetensors": True}
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, **safe, **options
        )
    except Exception as error:  # missing file, broken file, unknown architecture …: each raises its own type
        if is_out_of_memory(error):
            raise
        reason = _unusable_files(Path(path)) or first_line(error)
        raise InputError(f"model.path={config.path}: no model could be loaded ({reason})") from None
    _check_weights(config, loading)
    return model


def _unusable_files(folder: Path) -> str | None:
    """What to do about weights that were never fetched or are pickled; None for any other fault."""
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    for file in weights:
        with file.open("rb") as handle:
            if handle.read(19) == b"version https://git":
                return f"{file.name} is a pointer of git-lfs and no weights; fetch them with `git lfs pull`"
    if not weights and folder.is_dir() and any(folder.glob("*.bin")):
        return PICKLED
    return None


def _check_weights(config: ModelConfig, loading: Mapping[str, Any]) -> None:
    """Raise InputError if a weight is missing (it would be random), is not the model's, or has another shape."""
    for kind in ("missing", "unexpected", "mismatched"):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading.get(f"{kind}_keys") or ())
        if keys:
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            wrong = {"mismatched": "of another shape than its config says"}.get(kind, kind)
            raise InputError(
                f"model.path={config.path}: weights are {wrong}: {shown}; the files must be those of one complete model"
            )


def _forget_gguf(model: Any) -> Any:
    """The same model without the quantization config of its GGUF file, with which transformers refuses to save it."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=model.dtype)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain


# ------------------------------------------------------------------ KV caches


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """A KV cache as the keyword argument that the model takes it by: `cache` or `past_key_values`, by its version."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_cache_parameter(core.__class__): cache}


@cache
def _cache_parameter(kind: type) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"  # type: ignore[attr-defined]


def sliding_windows(config: Any) -> list[int]:
    """Lengths in tokens of the sliding windows that a model's layers attend within, each once; empty without any.

    Read from the cache that transformers makes for the model, because config fields differ between architectures.
    """
    layers = DynamicCache(config=config).layers
    return sorted({int(layer.sliding_window) for layer in layers if getattr(layer, "is_sliding", False)})


def check_cache(config: Any) -> None:
    """Raise InputError for a model whose layers cache something else than keys and values (state-space or linear
    attention)."""
    for layer in DynamicCache(config=config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise InputError(
                f"model: {config.model_type} has layers that do not cache keys and values ({type(layer).__name__}); "
                "the local engine needs attention in every layer"
            )

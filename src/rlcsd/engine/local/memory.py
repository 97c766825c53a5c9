"""Estimate of a run's device memory, from the model's shape and the config alone.

`benchmarks/memory.py` compares it with measured peaks. It counts weights, gradients, optimizer states, teacher and
reference, and the largest of the three phases (sampling, scoring, update).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ...config.schema import Config, ModelConfig, VerlEngineConfig
from ...errors import InputError, MissingError, first_line
from ...methods.base import ContrastConfig, HintedConfig, Method
from .attention import MASK_ENTRIES
from .model import architecture, resolve_device

_EIGHT_BIT_BYTES = {"adamw_8bit": 2.1, "paged_adamw_8bit": 0.0}  # optimizer states per trained parameter
_FOUR_BITS = 0.52  # bytes of a 4-bit weight with its share of the scales
_HEAD_COPIES = 3  # of a chunk's logits at once: logits, their gradient, and the entropy's or the rounded gradient
_SAMPLE_COPIES = 7  # of the logits that a token is sampled from: scaled, sorted, order (8 bytes), masked, softmax …
_CPU_GIB = 16.0  # of the sampler's caches without a GPU
_USABLE = 0.9  # share of a GPU's memory that a plan may fill; the rest is libraries' and the allocator's


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that memory and time depend on; `queries` and `keys` are heads × head dimension."""

    parameters: int
    layers: int
    hidden: int
    feed_forward: int
    queries: int
    keys: int
    vocabulary: int
    linear: int  # in + out dimensions of all linear layers in the backbone; an adapter has rank × linear parameters
    tied: bool = True  # the output embedding is the input embedding


def shape_of(config: Any, model: Any = None) -> Shape:
    """The shape of a transformers config, counted on `model` or on a model on the meta device."""
    if model is None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    linear = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
    return Shape(
        sum(parameter.numel() for parameter in model.parameters()),
        text.num_hidden_layers,
        text.hidden_size,
        getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        text.num_attention_heads * head_dim,
        (getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head_dim,
        text.vocab_size,
        sum(module.in_features + module.out_features for module in linear),
        bool(getattr(config, "tie_word_embeddings", True)),
    )


def load_shape(model: ModelConfig) -> Shape:
    """The shape of a model, from its transformers config alone.

    Raises InputError if that config cannot be loaded or lacks these sizes.
    """
    try:
        return shape_of(architecture(model))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"the config of {model.path} could not be loaded ({first_line(error)})") from error


def load_shapes(config: Config, method: Method) -> tuple[Shape, Shape | None]:
    """The shapes of the policy and of `method.teacher_model`, if it is set. Raises InputError as `load_shape` does."""
    settings = method.config
    path = settings.teacher_model if isinstance(settings, HintedConfig) else None
    teacher = load_shape(ModelConfig(path=path, dtype=config.model.dtype)) if path else None
    return load_shape(config.model), teacher


def update_bytes(shape: Shape, config: Config, tokens: int, stream: float | None = None) -> float:
    """Activations of one micro-batch of `tokens`, forward and backward, and the head's chunk.

    `stream` is the bytes of a number in the residual stream, by default as in the local engine.
    """
    half = config.model.dtype == "bfloat16"
    stream = stream or (2 if half and config.model.lora else trained_bytes(config.model))
    inner = 2 if half else 4
    # A layer saves for its backward pass: inputs, quotients and results of both norms; queries and keys before and
    # after their norm and rotation, values, attention's output; gate, its activation, up, and their product.
    saved = stream * 6 * shape.hidden + inner * (7 * shape.queries + 6 * shape.keys + 4 * shape.feed_forward)
    layers = (
        stream * shape.layers * shape.hidden + saved if config.model.gradient_checkpointing else shape.layers * saved
    )
    kept = tokens * (layers + saved)  # plus the gradients of the layer in progress
    return kept + head_bytes(shape, config, tokens)


def _autocast_bytes(shape: Shape, config: Config) -> float:
    """Weights of the layers as autocast rounds them and an update keeps them; the head's are in `head_bytes`."""
    if config.model.gradient_checkpointing:
        return 0.0
    embeddings = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return max(0.0, _rounded_weights(shape, config) - 2 * embeddings)


def head_bytes(shape: Shape, config: Config, tokens: int) -> float:
    """The logits of one chunk with their copies, and in bf16 the rounded weight."""
    rounded = 2 * shape.vocabulary * shape.hidden if config.model.dtype == "bfloat16" else 0
    return min(config.engine.head_chunk, tokens) * shape.vocabulary * 4 * _HEAD_COPIES + rounded


def pass_bytes(shape: Shape, config: Config, tokens: int) -> float:
    """A forward pass without gradient over `tokens`: the largest layer's tensors, and a block of the mask.

    The residual stream three times, with either queries, keys and values, the latter two repeated for all heads, and
    attention's output, or the gate, its activation and their product.
    """
    inner = 2 if config.model.dtype == "bfloat16" else 4
    layer = 4 * 3 * shape.hidden + inner * max(4 * shape.queries + 2 * shape.keys, 3 * shape.feed_forward)
    return tokens * layer + min(MASK_ENTRIES, tokens**2) * (1 + inner)


def scoring_bytes(shape: Shape, config: Config, context: int, response: int, rows: float = math.inf) -> float:
    """The caches of one batch of contexts and of the responses after them, and a forward pass or the head.

    Batches stay within `engine.score_tokens`, unless one row alone has more, and within the `rows` that there are.
    """
    budget = min(config.engine.score_tokens, rows * (context + response))
    positions = int(max(budget, context + response))
    tokens = int(budget) if positions == budget else max(context, response)
    head = head_bytes(shape, config, int(min(tokens, rows * response)))
    work = max(pass_bytes(shape, config, tokens), head)
    return 2 * cache_bytes(shape, config, positions) + 4 * tokens * shape.hidden + work


def sampling_bytes(
    shape: Shape, config: Config, rows: int, prompts: int, prompt: int, longest: int, slots: float = math.inf
) -> float:
    """Rounded weights, and the larger of a prefill and of the last tokens of `rows` responses.

    The prefill is of `prompts`, of `prompt` tokens each, in batches of `engine.score_tokens`. `longest` is prompt and
    response in tokens; the cache holds at most `slots` tokens, but one response always.
    """
    batch = max(prompt, min(prompts * prompt, config.engine.score_tokens))
    prefill = pass_bytes(shape, config, batch) + cache_bytes(shape, config, batch + min(rows * prompt, slots))
    cache = cache_bytes(shape, config, max(longest, min(rows * longest, slots)))
    grown = cache * (1 + 1 / shape.layers)  # a layer exists twice while the cache is laid out anew
    return _rounded_weights(shape, config) + max(prefill, grown + _choice_bytes(shape, config, rows))


def _rounded_weights(shape: Shape, config: Config) -> float:
    """The bf16 copy of weights that are trained in float32."""
    half = config.model.dtype == "bfloat16"
    return 2.0 * shape.parameters if half and config.model.lora is None and trained_bytes(config.model) == 4 else 0.0


def _choice_bytes(shape: Shape, config: Config, rows: int) -> float:
    return rows * shape.vocabulary * 4.0 * _SAMPLE_COPIES


def cache_bytes(shape: Shape, config: Config, tokens: float) -> float:
    """Keys and values of `tokens` positions in all layers."""
    return tokens * shape.layers * 2 * shape.keys * (2 if config.model.dtype == "bfloat16" else 4)


def device_memory(config: Config) -> int | None:
    """Bytes of memory of the GPU that the engine uses; None on a CPU, and for a device that is not there."""
    try:
        device = resolve_device(config.engine.device)
    except MissingError:
        return None
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else None


def sample_slots(shape: Shape, config: Config, static: float, memory: int | None) -> int:
    """Tokens that the sampler's cache has room for: on a GPU what is left beside `static` bytes and a token's logits.

    It follows from the device's whole `memory` and the plan, not from what happens to be free, so a machine repeats it.
    `engine.sample_gib` bounds it.
    """
    given = config.engine.sample_gib
    room = (given or _CPU_GIB) * 2**30
    if memory is not None:
        batch = max(config.engine.score_tokens, config.max_prompt_tokens)
        prefill = pass_bytes(shape, config, batch) + cache_bytes(shape, config, batch)
        work = max(_choice_bytes(shape, config, config.engine.sample_rows), prefill)
        left = _USABLE * memory - static - _rounded_weights(shape, config) - work
        room = left * shape.layers / (shape.layers + 1)
        room = room if given is None else min(room, given * 2**30)
    return max(1, int(room / cache_bytes(shape, config, 1)))


def shared_prompt_bytes(shape: Shape, config: Config) -> float:
    """Tensors of a mini-batch's shared prompts while its micro-batches are computed.

    Activations of one block of prompts, and their caches: as computed, in float32 with gradients in float32, and for
    each row of a micro-batch, where normalised keys are in float32. Prompts are not shared under gradient
    checkpointing.
    """
    c = config
    if c.model.gradient_checkpointing:
        return 0.0
    block = min(c.prompts_per_update * c.max_prompt_tokens, max(c.engine.micro_batch_tokens, c.max_prompt_tokens))
    rows = max(1, c.engine.micro_batch_tokens // max(1, c.sampling.max_tokens))
    expanded = min(rows, c.prompts_per_update * c.group_size) * c.max_prompt_tokens
    activations = update_bytes(shape, c, block) - head_bytes(shape, c, block)
    in_float32 = 2 * block * shape.layers * 2 * shape.keys * 4.0
    of_rows = expanded * shape.layers * shape.keys * (4.0 + (2 if c.model.dtype == "bfloat16" else 4))
    return activations + cache_bytes(shape, c, block) + in_float32 + of_rows


def _frozen_bytes(shape: Shape, model: ModelConfig) -> float:
    """Frozen weights below adapters; in 4 bits, embeddings stay whole."""
    size = 2 if model.dtype == "bfloat16" else 4
    whole = shape.vocabulary * shape.hidden if model.quantization else shape.parameters
    return whole * size + (shape.parameters - whole) * _FOUR_BITS


def memory_plan(shape: Shape, config: Config, method: Method, teacher_shape: Shape | None = None) -> dict[str, float]:
    """Bytes by purpose on the device of the local engine; `peak` must fit.

    `teacher_shape` is that of `method.teacher_model`, if there is one.
    """
    lora = config.model.lora
    trained = lora.rank * shape.linear if lora else shape.parameters
    frozen = _frozen_bytes(shape, config.model) if lora else 0.0
    twins = weight_copies(config, method)
    c, each = config, trained_bytes(config.model)
    longest = c.max_prompt_tokens + c.sampling.max_tokens
    rows = min(c.engine.sample_rows, c.prompts_per_step * c.group_size)
    updated = c.prompts_per_update * c.group_size
    scorer = teacher_shape or shape  # its contexts are the prompt and a sibling as the hint
    scored = updated * (1 + (method.config.k_max if isinstance(method.config, ContrastConfig) else 0))
    plan = {
        "weights": frozen + each * trained,
        "gradients": each * trained,
        "optimizer": _state_bytes(c) * trained,
        "teacher and reference": each * trained * twins + (4.0 * teacher_shape.parameters if teacher_shape else 0.0),
        "scoring": scoring_bytes(scorer, c, longest, c.sampling.max_tokens, scored) if method.hinted else 0.0,
        "update": update_bytes(shape, c, min(max(c.engine.micro_batch_tokens, longest), updated * longest))
        + shared_prompt_bytes(shape, c)
        + _autocast_bytes(shape, c),
        "top-k log-probs": topk_bytes(c, method),
    }
    for phase in ("scoring", "update"):
        plan[phase] += plan["top-k log-probs"]
    static = static_bytes(plan)
    slots = sample_slots(shape, c, static, device_memory(c))
    prompts = -(-rows // c.group_size)
    plan["sampling"] = sampling_bytes(shape, c, rows, prompts, c.max_prompt_tokens, longest, slots)
    return {**plan, "peak": static + max(plan["sampling"], plan["scoring"], plan["update"])}


def trained_bytes(model: ModelConfig) -> int:
    """Bytes of a trained weight, and of its gradient."""
    return 2 if model.master_dtype == "bfloat16" else 4


def _state_bytes(config: Config) -> float:
    """Bytes of AdamW's states per trained parameter: two numbers in its own format, or in 8 bits."""
    return _EIGHT_BIT_BYTES.get(config.engine.optimizer, 2.0 * trained_bytes(config.model))


def weight_copies(config: Config, method: Method) -> int:
    """How many copies of the trained weights exist: a teacher with weights of its own, and a reference."""
    teacher = method.config.schedule if isinstance(method.config, HintedConfig) else None
    fixed = teacher is not None and teacher.kind == "fixed"  # which is the reference as well
    return int(teacher is not None and teacher.copies) + int(config.kl_coefficient > 0 and not fixed)


def static_bytes(plan: Mapping[str, float]) -> float:
    """What a plan's phases have beside them."""
    return sum(plan[name] for name in ("weights", "gradients", "optimizer", "teacher and reference"))


def topk_bytes(config: Config, method: Method) -> float:
    """Top-k ids of a mini-batch with the log-probs at them, from scoring until the update is done."""
    if method.topk_from == "none":
        return 0.0
    tokens = config.prompts_per_update * config.group_size * config.sampling.max_tokens
    return tokens * getattr(method.config, "top_k", 0) * (8.0 + 4.0 * (2 if method.needs_contrast else 1))


def checkpoint_bytes(shape: Shape, config: Config, method: Method) -> float:
    """One checkpoint on the disk: the model or its adapters, and the state to resume from (weights, optimizer states,
    a teacher that moves)."""
    lora, settings = config.model.lora, method.config
    trained = float(lora.rank * shape.linear if lora else shape.parameters)
    moves = isinstance(settings, HintedConfig) and settings.schedule.moves
    eight_bit = getattr(config.engine, "optimizer", "adamw") in _EIGHT_BIT_BYTES
    each = trained_bytes(config.model)
    states = _EIGHT_BIT_BYTES["adamw_8bit"] if eight_bit else 2.0 * each
    return trained * (each + each + states + (each if moves else 0.0))


def loading_bytes(shape: Shape, config: Config) -> float:
    """Host memory that the weights take while the engine loads them, on one machine, where the device is a GPU.

    Under verl the first rank alone reads them, whole.
    """
    each = trained_bytes(config.model)
    if isinstance(config.engine, VerlEngineConfig):
        return float(each * shape.parameters)
    return _frozen_bytes(shape, config.model) if config.model.lora else float(each * shape.parameters)


def memory_line(config: Config, method: Method) -> str:
    """One line for a run's plan; states why there is no estimate if the config of a model cannot be loaded."""
    try:
        shape, teacher_shape = load_shapes(config, method)
    except InputError as error:
        return f"not estimated: {error}"
    plan = memory_plan(shape, config, method, teacher_shape)
    parts = ", ".join(f"{name} {value / 2**30:.2f}" for name, value in plan.items() if name != "peak" and value)
    peak = f"{plan['peak'] / 2**30:.2f} GiB"
    line = f"about {peak} on one device ({parts}; the largest of sampling, scoring and update counts)"
    if config.engine.sampler == "local" or not (torch.cuda.is_available() or config.engine.sampler == "vllm"):
        return line
    leaves = "which it leaves while the trainer computes" if config.engine.vllm_sleep else "at all times"
    return f"{line}; vLLM, if it samples, takes {config.engine.vllm_memory:.0%} of the GPU beside it, {leaves}"

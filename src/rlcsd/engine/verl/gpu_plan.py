"""Plan the memory of each GPU of a cluster from the model's shape and the config, and compare it with GPUs of 80 GB.

Needs neither verl nor weights. An estimate, counted as the local engine counts activations; never measured on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...config.schema import Config
from ...errors import InputError
from ...methods.base import Method
from ..costs import DEVICES
from ..interface import TokenLimits
from ..local.memory import (
    Shape,
    cache_bytes,
    head_bytes,
    load_shapes,
    loading_bytes,
    pass_bytes,
    scoring_bytes,
    trained_bytes,
    update_bytes,
    weight_copies,
)
from ..local.model import context_length
from .settings import adapters_alone, engine_settings

_GIB = 2**30
_GPU_BYTES = DEVICES["H100"].memory  # the need is compared with GPUs of this size


@dataclass(frozen=True)
class GpuPlan:
    """Bytes on one GPU by phase, and in host memory: `host` for each GPU, `whole` on the first node.

    `resting` is what the trainer keeps on the GPU while servers sample; `scoring` and `update` are peaks, during which
    servers sleep. A server takes `engine.rollout_memory` of the GPU: `served` for weights and `row` for each prompt
    with a response of full length; requests that do not fit wait. `whole` is taken while a rank loads or saves the
    model.
    """

    resting: float
    scoring: float
    update: float
    served: float
    row: float
    host: float
    whole: float

    @property
    def peak(self) -> float:
        """The trainer's own peak."""
        return max(self.resting, self.scoring, self.update)


def gpu_plan(shape: Shape, config: Config, method: Method, teacher: Shape | None = None) -> GpuPlan:
    """The plan of one GPU; `teacher` is the shape of another model as the teacher (`method.teacher_model`)."""
    e, lora = engine_settings(config), config.model.lora
    bytes_each = 2.0 if config.model.dtype == "bfloat16" else 4.0
    trained = float(lora.rank * shape.linear if lora else shape.parameters)
    each = trained_bytes(config.model)

    weights = each * (shape.parameters + (trained if lora else 0.0)) / e.gpus
    moments = 2.0 * each * trained / e.gpus
    copies = each * trained * weight_copies(config, method) / e.gpus
    copies += bytes_each * (teacher.parameters if teacher else 0) / e.gpus
    offloaded = {"none": 0.0, "optimizer": moments, "all": weights + moments + copies}[e.offload]
    resident = weights + moments + copies
    # With offload=all, scoring needs the weights back, and the update everything but the copies.
    while_scoring = resident - (offloaded - weights if e.offload == "all" else offloaded)
    while_updating = resident - (copies if e.offload == "all" else 0.0)
    gradients = each * trained / e.gpus

    longest = config.max_prompt_tokens + config.sampling.max_tokens
    served = bytes_each * shape.parameters / e.tensor_parallel
    asleep = served if adapters_alone(config) else 0.0  # a server that gets adapters alone keeps its base

    row_tokens = max(e.micro_batch_tokens, longest) // e.sequence_parallel
    return GpuPlan(
        resting=resident - offloaded,
        scoring=while_scoring + _scoring_pass(teacher or shape, config, method),
        update=while_updating
        + gradients
        + bytes_each * 2 * _gathered_unit(shape)
        + update_bytes(shape, config, row_tokens, stream=bytes_each),
        served=served,
        row=cache_bytes(shape, config, TokenLimits.of(config, context_length(config.model)).sequence)
        / e.tensor_parallel,
        host=offloaded + asleep,
        whole=loading_bytes(shape, config),
    )


def _scoring_pass(scorer: Shape, config: Config, method: Method) -> float:
    """Bytes of one scoring pass: the scorer's gathered weights, caches, and activations or the head."""
    e, response = engine_settings(config), config.sampling.max_tokens
    bytes_each = 2.0 if config.model.dtype == "bfloat16" else 4.0
    hint = config.max_prompt_tokens + (response if method.hinted else 0)  # a sibling's response as the hint
    if e.share_prefixes:
        return bytes_each * scorer.parameters + scoring_bytes(scorer, config, hint, response)
    tokens = max(e.score_tokens, hint + response) // e.sequence_parallel
    work = max(pass_bytes(scorer, config, tokens), head_bytes(scorer, config, tokens))
    return bytes_each * (_gathered_unit(scorer) + tokens * scorer.hidden) + work


def _gathered_unit(shape: Shape) -> float:
    """Parameters that are gathered at once: one layer, and the embedding with the head."""
    return (shape.parameters - 2 * shape.vocabulary * shape.hidden) / shape.layers + 2 * shape.vocabulary * shape.hidden


# ------------------------------------------------------------------ lines of a dry run


def engine_line(config: Config) -> str:
    """Where the run would be computed."""
    e = engine_settings(config)
    shares = [(e.sequence_parallel, "sequence of the trainer"), (e.tensor_parallel, "rollout server")]
    line = f"verl on {e.nodes} × {e.gpus_per_node} {'GPUs' if e.platform == 'cuda' else e.platform}"
    return ", ".join([line, *(f"{count} GPUs for each {what}" for count, what in shares if count > 1)])


def memory_line(config: Config, method: Method) -> str:
    """The memory plan on one line, or why there is none (the model's config is out of reach)."""
    try:
        shape, teacher = load_shapes(config, method)
    except InputError as error:
        return f"not estimated: {error}"
    plan, e = gpu_plan(shape, config, method, teacher), engine_settings(config)
    line = (
        f"about {plan.peak / _GIB:.2f} GiB on each GPU for training (scoring {plan.scoring / _GIB:.2f}, update "
        f"{plan.update / _GIB:.2f}); while sampling {plan.resting / _GIB:.2f} beside the server's "
        f"{e.rollout_memory:.0%} of the GPU (weights {plan.served / _GIB:.2f}, and {plan.row / _GIB:.2f} for each "
        "response of full length)"
    )
    host = f"; {plan.host * e.gpus_per_node / _GIB:.2f} GiB of each node's own memory" if plan.host else ""
    shortage, size = _shortage(plan, config, method), f"GPUs of {_GPU_BYTES / 1e9:.0f} GB"
    return f"{line}{host}; " + (f"DOES NOT FIT {size}: {shortage}" if shortage else f"fits {size}")


def _shortage(plan: GpuPlan, config: Config, method: Method) -> str | None:
    """What does not fit `_GPU_BYTES` and which keys lower the need, in one sentence; None if everything fits."""
    e = engine_settings(config)
    server, offload = e.rollout_memory * _GPU_BYTES, "engine.offload=all, " * (e.offload != "all")
    more_gpus = "use more GPUs (engine.nodes, engine.gpus_per_node) or adapters (model.lora.rank=64)"
    longest = config.max_prompt_tokens + config.sampling.max_tokens
    if plan.peak > _GPU_BYTES and plan.scoring == plan.peak:
        row = longest + (config.sampling.max_tokens if method.hinted else 0)
        tokens = "engine.score_tokens" if e.score_tokens > row else "sampling.max_tokens"
        unshared = "engine.share_prefixes=false, " * e.share_prefixes
        return f"scoring needs {plan.peak / 1e9:.0f} GB; set {offload}{unshared}a smaller {tokens}, or {more_gpus}"
    if plan.peak > _GPU_BYTES:
        tokens = "engine.micro_batch_tokens" if e.micro_batch_tokens > longest else "sampling.max_tokens"
        recompute = "model.gradient_checkpointing=true, " * (not config.model.gradient_checkpointing)
        keys = f"{offload}{recompute}a smaller {tokens} or engine.head_chunk"
        return f"the update needs {plan.peak / 1e9:.0f} GB; set {keys}, or {more_gpus}"
    if plan.resting + server > _GPU_BYTES:
        return (
            f"the trainer's {plan.resting / 1e9:.0f} GB do not fit beside the server's {server / 1e9:.0f} GB; set "
            f"{offload}a smaller engine.rollout_memory, or {more_gpus}"
        )
    if plan.served + plan.row > server:
        return (
            f"a server needs {(plan.served + plan.row) / 1e9:.0f} GB for weights and one response, and may take "
            f"{server / 1e9:.0f} GB; set a larger engine.rollout_memory or engine.tensor_parallel, or a smaller "
            "evaluation.sampling.max_tokens"
        )
    return None

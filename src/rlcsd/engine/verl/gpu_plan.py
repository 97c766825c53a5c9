"""How much memory each GPU of a cluster needs, from the model's shape and the config alone.

An estimate to plan with, by the same count of activations as the local engine's; it was not held against a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...config.engines import VerlEngineConfig
from ...config.schema import Config
from ...errors import InputError
from ...methods.base import HintedConfig, Method
from ..costs import DEVICES
from ..interface import longest_response
from ..local.memory import Shape, cache_bytes, head_bytes, load_shapes, pass_bytes, scoring_bytes, update_bytes
from .settings import engine_settings


@dataclass(frozen=True)
class GpuPlan:
    """Bytes on one GPU, by phase, and in the host memory that belongs to it.

    `resting` is what the trainer keeps on the GPU while servers sample. A server takes `engine.rollout_memory` of the
    GPU: `served` for weights, and `row` for each prompt and response of full length; what does not fit waits.
    """

    resting: float
    scoring: float
    update: float
    served: float
    row: float
    host: float

    @property
    def peak(self) -> float:
        """The trainer's own peak; servers sleep meanwhile."""
        return max(self.resting, self.scoring, self.update)


def gpu_plan(shape: Shape, config: Config, method: Method, teacher: Shape | None = None) -> GpuPlan:
    """What one GPU of the run holds; `teacher` is the shape of a teacher of its own (`method.teacher_model`)."""
    e, lora, kind = engine_settings(config), config.model.lora, 2.0 if config.model.dtype == "bfloat16" else 4.0
    trained = float(lora.rank * shape.linear if lora else shape.parameters)
    wanted = method.config
    follows = method.hinted and teacher is None
    fixed = isinstance(wanted, HintedConfig) and wanted.teacher == "fixed"
    shadows = int(follows) + int(config.kl_coefficient > 0 and not (follows and fixed))
    weights = 4.0 * (shape.parameters + (trained if lora else 0.0)) / e.gpus
    moments = 8.0 * trained / e.gpus
    copies = 4.0 * trained * shadows / e.gpus + kind * (teacher.parameters if teacher else 0) / e.gpus
    parts = {"none": 0.0, "optimizer": moments, "all": weights + moments + copies}
    longest = config.max_prompt_tokens + config.sampling.max_tokens
    longest_row = max(e.micro_batch_tokens, longest) // e.sequence_parallel
    scorer = teacher or shape
    hinted = longest + (config.sampling.max_tokens if method.hinted else 0)  # a sibling's response as the hint
    batch = max(e.score_tokens, hinted)
    gathered = kind * (scorer.parameters if e.share_prefixes else _unit(scorer))
    hint = hinted - config.sampling.max_tokens
    if e.share_prefixes:
        scoring = scoring_bytes(scorer, config, hint, config.sampling.max_tokens)
    else:
        mine = batch // e.sequence_parallel
        scoring = max(pass_bytes(scorer, config, mine), head_bytes(scorer, config, mine)) + kind * mine * scorer.hidden
    activations = update_bytes(shape, config, longest_row, stream=kind)
    reply = config.max_prompt_tokens + longest_response(config)
    return GpuPlan(
        resting=weights + moments + copies - parts[e.offload],
        scoring=weights + moments + copies - (parts["all"] - weights if e.offload == "all" else parts[e.offload])
        + gathered + scoring,
        update=weights + moments + copies - (copies if e.offload == "all" else 0.0)
        + 4.0 * trained / e.gpus + kind * 2 * _unit(shape) + activations,
        served=kind * shape.parameters / e.tensor_parallel,
        row=cache_bytes(shape, config, reply) / e.tensor_parallel,
        host=parts[e.offload],
    )  # fmt: skip


def _unit(shape: Shape) -> float:
    """Parameters that are gathered at once: one layer, and the embedding with the head."""
    return (shape.parameters - 2 * shape.vocabulary * shape.hidden) / shape.layers + 2 * shape.vocabulary * shape.hidden


# ------------------------------------------------------------------ plan
# What a dry run says of the cluster: where it would compute, the memory of each GPU, and whether that is there.

_GIB = 2**30
_GPU = DEVICES["H100"].memory  # what the need is held against


def engine_line(config: Config) -> str:
    """Where the run would be computed."""
    e = engine_settings(config)
    parallel = [f"{count} GPUs for each {what}" for count, what in _shares(config) if count > 1]
    return ", ".join(
        [f"verl on {e.nodes} × {e.gpus_per_node} {'GPUs' if e.platform == 'cuda' else e.platform}", *parallel]
    )


def _shares(config: Config) -> list[tuple[int, str]]:
    e = engine_settings(config)
    return [(e.sequence_parallel, "sequence of the trainer"), (e.tensor_parallel, "rollout server")]


def memory_line(config: Config, method: Method) -> str:
    """One line for a run's plan; says so if the model's config is out of reach."""
    try:
        shape, theirs = load_shapes(config, method)
    except InputError as error:
        return f"not estimated: {error}"
    plan = gpu_plan(shape, config, method, theirs)
    e = engine_settings(config)
    line = (
        f"about {plan.peak / _GIB:.2f} GiB on each GPU for training (scoring {plan.scoring / _GIB:.2f}, update "
        f"{plan.update / _GIB:.2f}); while sampling {plan.resting / _GIB:.2f} beside the server's "
        f"{e.rollout_memory:.0%} of the GPU (weights {plan.served / _GIB:.2f}, and {plan.row / _GIB:.2f} for each "
        "response of full length)"
    )
    host = f"; {plan.host * e.gpus_per_node / _GIB:.2f} GiB of each node's own memory" if plan.host else ""
    return f"{line}{host}; {verdict(shape, config, method, theirs)}"


def lacks(plan: GpuPlan, e: VerlEngineConfig) -> str | None:
    """What of a plan does not fit a GPU of 80 GB, or None."""
    server = e.rollout_memory * _GPU
    if plan.peak > _GPU:
        return f"{'scoring' if plan.scoring == plan.peak else 'the update'} needs {plan.peak / 1e9:.0f} GB"
    if plan.resting + server > _GPU:
        return f"the trainer's {plan.resting / 1e9:.0f} GB do not fit beside the server's {server / 1e9:.0f} GB"
    if plan.served + plan.row > server:
        needed = (plan.served + plan.row) / 1e9
        return f"a server needs {needed:.0f} GB for weights and one response, and may take {server / 1e9:.0f} GB"
    return None


@dataclass(frozen=True)
class Change:
    """Keys of the engine, and of the model, that lower the need."""

    engine: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)

    def named(self) -> dict[str, Any]:
        """The same by the names of the keys in the config."""
        parts = {"engine": self.engine, "model": self.model}
        return {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}


def _changes(e: VerlEngineConfig) -> Iterator[Change]:
    """What can be given up, from what costs least time to what costs most."""
    yield Change({"rollout_memory": max(0.85, e.rollout_memory)})
    yield Change({"offload": "optimizer"})
    yield Change({"offload": "all"})
    yield Change({"score_tokens": min(16384, e.score_tokens), "head_chunk": min(1024, e.head_chunk)})
    yield Change(model={"gradient_checkpointing": True})
    yield Change({"share_prefixes": False})
    for count in (2, 4, 8):
        if e.gpus % count == 0 and count > e.sequence_parallel:
            yield Change({"share_prefixes": False, "sequence_parallel": count, "tensor_parallel": count})


def verdict(shape: Shape, config: Config, method: Method, teacher: Shape | None) -> str:
    """Whether a run fits GPUs of 80 GB, and otherwise the changes with which it would."""

    def lacking(changes: list[Change]) -> str | None:
        update: dict[str, Any] = {"engine": {}, "model": {}}
        for change in changes:
            update["engine"] |= change.engine
            update["model"] |= change.model
        parts = {name: getattr(config, name).model_copy(update=keys) for name, keys in update.items()}
        changed = config.model_copy(update=parts)
        return lacks(gpu_plan(shape, changed, method, teacher), engine_settings(changed))

    size, said = f"{_GPU / 1e9:.0f} GB", lacking([])
    if said is None:
        return f"fits GPUs of {size}"
    tried: list[Change] = []
    for change in _changes(engine_settings(config)):
        tried.append(change)
        if lacking(tried) is not None:
            continue
        for one in list(tried[:-1]):  # what turns out not to be needed
            without = [other for other in tried if other is not one]
            tried = without if lacking(without) is None else tried
        named = {key: value for one in tried for key, value in one.named().items()}
        advice = f"set {' '.join(f'{key}={str(value).lower()}' for key, value in named.items())}"
        return f"DOES NOT FIT GPUs of {size}: {said}; {advice}"
    advice = "use more GPUs (engine.nodes, engine.gpus_per_node), adapters (model.lora.rank=64) or shorter responses"
    return f"DOES NOT FIT GPUs of {size}: {said}; {advice}"

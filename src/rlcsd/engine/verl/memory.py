"""How much memory each GPU of a cluster needs, from the model's shape and the config alone.

An estimate to plan with, by the same count of activations as the local engine's; it was not held against a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...config.schema import Config, ModelConfig
from ...errors import first_line
from ...methods.base import HintedConfig, Method
from ..local.memory import Shape, cache_bytes, head_bytes, load_shape, update_bytes
from .settings import engine_settings, longest_response

_GIB = 2**30


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
    caches = 2 * cache_bytes(scorer, config, batch) if e.share_prefixes else 0.0
    activations = update_bytes(shape, config, longest_row, stream=kind)
    reply = config.max_prompt_tokens + longest_response(config)
    return GpuPlan(
        resting=weights + moments + copies - parts[e.offload],
        scoring=weights + moments + copies - (parts["all"] - weights if e.offload == "all" else parts[e.offload])
        + gathered + caches + head_bytes(scorer, config, batch),
        update=weights + moments + copies - (copies if e.offload == "all" else 0.0)
        + 4.0 * trained / e.gpus + kind * 2 * _unit(shape) + activations,
        served=kind * shape.parameters / e.tensor_parallel,
        row=cache_bytes(shape, config, reply) / e.tensor_parallel,
        host=parts[e.offload],
    )  # fmt: skip


def _unit(shape: Shape) -> float:
    """Parameters that are gathered at once: one layer, and the embedding with the head."""
    return (shape.parameters - 2 * shape.vocabulary * shape.hidden) / shape.layers + 2 * shape.vocabulary * shape.hidden


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
        wanted = method.config
        other = wanted.teacher_model if isinstance(wanted, HintedConfig) else None
        theirs = load_shape(ModelConfig(path=other, dtype=config.model.dtype)) if other else None
        plan = gpu_plan(load_shape(config.model), config, method, theirs)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"not estimated: the config of {config.model.path} could not be loaded ({first_line(error)})"
    e = engine_settings(config)
    line = (
        f"about {plan.peak / _GIB:.2f} GiB on each GPU for training (scoring {plan.scoring / _GIB:.2f}, update "
        f"{plan.update / _GIB:.2f}); while sampling {plan.resting / _GIB:.2f} beside the server's "
        f"{e.rollout_memory:.0%} of the GPU (weights {plan.served / _GIB:.2f}, and {plan.row / _GIB:.2f} for each "
        "response of full length)"
    )
    return line + (f"; {plan.host * e.gpus_per_node / _GIB:.2f} GiB of each node's own memory" if plan.host else "")

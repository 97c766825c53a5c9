"""How much memory each GPU of a cluster needs, from the model's shape and the config alone.

An estimate to plan with, by the same count of activations as the local engine's; it was not held against a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...config.schema import Config
from ...methods.base import HintedConfig, Method
from ..base import longest_response
from ..local.memory import Shape, cache_bytes, head_bytes, pass_bytes, scoring_bytes, update_bytes
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

"""What each engine can be told: the keys below `engine`."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .messages import suggestion
from .values import Count, Section, Text

_MOST_THREADS = 1024


def _threads(count: int) -> int:
    if count > _MOST_THREADS:
        raise ValueError(f"must be at most {_MOST_THREADS}; this machine has {os.cpu_count()} CPUs")
    return count


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|xpu|npu|hpu)(:\d+)?", name):
        raise ValueError(
            "must be auto, cpu, cuda or cuda:NUMBER (losses are summed in float64, which mps does not have)"
        )
    return name


class EngineConfig(Section):
    """What every engine has: where and how the arithmetic is done."""

    name: str = Field(description="the engine, which decides what other keys engine has")


class LocalEngineConfig(EngineConfig):
    """One process on one device.

    All token budgets change results by rounding alone. The budgets of sampling (`sample_rows`, `sample_gib`) also
    change which responses a seed draws.
    """

    name: Literal["local"] = Field("local", description="the engine, which decides what other keys engine has")
    device: Annotated[Text, AfterValidator(_device)] = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    threads: Annotated[int, Field(ge=0), AfterValidator(_threads)] = Field(
        0,
        description=f"CPU threads, at most {_MOST_THREADS}; 0: one for a small model, else as many as torch takes",
    )
    micro_batch_tokens: Count = Field(16384, description="tokens of one forward pass with gradient")
    score_tokens: Count = Field(32768, description="tokens of one forward pass without gradient")
    sample_rows: Count = Field(256, description="responses decoded side by side, at most")
    sample_gib: float = Field(16.0, gt=0, description="GiB that their caches may take: fewer rows for long responses")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw", description="the optimizer, with 32-bit or 8-bit state"
    )
    sampler: Literal["auto", "local", "vllm"] = Field(
        "auto", description="auto: vLLM if it is installed and the device is a GPU"
    )
    vllm_memory: float = Field(0.35, gt=0, lt=1, description="share of the GPU's memory that vLLM may take")
    self_check: bool = Field(
        True, description="compare sampler, scorer and update with a plain pass of the model before a run"
    )
    head_chunk: Count = Field(4096, description="tokens whose logits are held at once")


class VerlEngineConfig(EngineConfig):
    """A cluster: verl's FSDP2 workers and rollout servers on `nodes × gpus_per_node` GPUs.

    Token budgets are those of one GPU. How rows are spread over GPUs changes results by rounding alone.
    """

    name: Literal["verl"] = Field("verl", description="the engine, which decides what other keys engine has")
    nodes: Count = Field(1, description="machines")
    gpus_per_node: Count = Field(8, description="GPUs of each machine")
    ray_address: Text | None = Field(
        None,
        description="a running Ray cluster (auto: the one of this machine); null starts one on this machine",
    )
    micro_batch_tokens: Count = Field(
        16384, description="tokens of one forward pass with gradient; a longer row is alone"
    )
    score_tokens: Count = Field(32768, description="tokens of one forward pass without gradient")
    head_chunk: Count = Field(4096, description="tokens whose logits are held at once")
    share_prefixes: bool = Field(
        True, description="compute a hint once for all responses after it; gathers the scorer's weights on each GPU"
    )
    sequence_parallel: Count = Field(
        1, description="GPUs that share each sequence (Ulysses); above 1 needs share_prefixes=false"
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="what waits in host memory while it is not used: nothing, moments, or weights too"
    )
    attention: Text = Field(
        "auto",
        description="attention of the trainer, a name that transformers knows; auto: flash_attention_2 in bfloat16",
    )
    rollout: Text = Field("vllm", description="rollout server, a name that verl knows")
    tensor_parallel: Count = Field(1, description="GPUs of one rollout server")
    rollout_memory: float = Field(0.7, gt=0, lt=1, description="share of a GPU's memory that a server may take")
    rollout_rows: Count = Field(256, description="responses that one server decodes side by side, at most")
    rollout_eager: bool = Field(False, description="decode without CUDA graphs")
    timeout: float = Field(
        3600.0,
        gt=0,
        description="seconds that a call of the workers may take, or that may pass without an answer of the servers",
    )
    self_check: bool = Field(True, description="compare server, scorer and update on this model before a run")
    platform: Text = Field("cuda", description="device type, a name that verl knows")
    modules: list[Text] = Field(
        [], description="Python modules that each process imports: platforms or rollout servers registered with verl"
    )

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @model_validator(mode="after")
    def _divisible(self) -> VerlEngineConfig:
        for name in ("sequence_parallel", "tensor_parallel"):
            count = getattr(self, name)
            if self.gpus % count:
                raise ValueError(
                    f"engine.{name}={count}: must divide the number of GPUs, {self.nodes} × {self.gpus_per_node}"
                )
            if self.gpus_per_node % count and count % self.gpus_per_node:
                raise ValueError(
                    f"engine.{name}={count}: must divide engine.gpus_per_node={self.gpus_per_node}, or be a multiple"
                    " of it"
                )
        if self.sequence_parallel > 1 and self.share_prefixes:
            raise ValueError(
                f"engine.sequence_parallel={self.sequence_parallel}: sequences that several GPUs share have no common "
                "caches; set engine.share_prefixes=false"
            )
        return self


# `engine.name` selects the class; a further engine registers its class here (and a file in groups/engine).
ENGINES: dict[str, type[EngineConfig]] = {"local": LocalEngineConfig, "verl": VerlEngineConfig}


def engine_class(name: object) -> type[EngineConfig]:
    """The class of an engine's keys. Raises pydantic.ValidationError, located at `name`, for an unknown engine."""
    if isinstance(name, str) and name in ENGINES:
        return ENGINES[name]
    unknown = PydanticCustomError("engine", "unknown engine; {hint}", {"hint": suggestion(str(name), ENGINES)})
    raise ValidationError.from_exception_data("engine", [{"type": unknown, "loc": ("name",), "input": name}])

"""The typed, frozen configuration: every key, its default, its range, and what it means.

Defaults stand here alone; the YAML groups hold what a choice changes.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..records import Sampling
from .words import nearest

_LARGEST = 2**31 - 1
_MOST_THREADS = 1024


def _printable(text: str) -> str:
    """`text`, unless it is empty or has a character that no name or path may have."""
    if not text.strip():
        raise ValueError("must not be empty")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("must be without control characters such as NUL or a line break")
    return text


def _without_nul(value: Any) -> Any:
    """`value`, unless a text somewhere in it has a character that neither a path nor a file may have."""
    if isinstance(value, str) and any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
        raise ValueError("must be without NUL characters and broken encodings")
    for part in (
        (*value.keys(), *value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    ):
        _without_nul(part)
    return value


def _inside(name: str) -> str:
    """`name`, unless it would lead out of the folder that it is put in, or is too long for a file system."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or parts[0].endswith(":") or any(part in (".", "..") for part in parts):
        raise ValueError("must stay inside output_dir: a name, without a leading / and without . or .. as a part")
    if len(name.encode()) > 200:
        raise ValueError("must have at most 200 bytes")
    return name


def _template(value: str) -> str:
    """A chat template: the text itself, or what stands in the file that it names."""
    if "{{" in value or "{%" in value:
        return value
    try:
        text = Path(value).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ValueError("must be a file with a chat template, or the template itself, with {{ … }} in it") from None
    if "{{" not in text and "{%" not in text:
        raise ValueError("must be a file with a chat template; this one has no {{ … }} in it")
    return text


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


Text = Annotated[str, AfterValidator(_printable)]
Count = Annotated[int, Field(ge=1, le=_LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=_LARGEST)]


class Section(BaseModel):
    """Frozen, without unknown keys, and strict: no number is read from a text or from true and false."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, strict=True)


class LoraConfig(Section):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    rank: Count = Field(64, description="rank of the adapters")
    alpha: float = Field(128, gt=0, description="scale of the adapters, which are multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the adapters' inputs that is dropped in training")
    target_modules: list[Text] | Literal["all-linear"] = Field(
        "all-linear", description="names of the layers that get adapters"
    )


class ModelConfig(Section):
    """The policy."""

    path: Text = Field(
        "tiny",
        description="tiny or another packaged model, a hub name, a local folder, or a folder with gguf_file in it",
    )
    gguf_file: Text | None = Field(
        None, description="name of the GGUF file in the folder or repository that path names"
    )
    chat_template: Annotated[str, AfterValidator(_without_nul), AfterValidator(_template)] | None = Field(
        None, description="chat template (Jinja) for a model that has none, a file or the text; kept as the text"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="number format of the weights")
    thinking_student: bool = Field(True, description="whether the student's prompt asks for a thinking part")
    thinking_teacher: bool = Field(True, description="whether the teacher's prompt asks for a thinking part")
    thinking_eval: bool = Field(True, description="whether prompts of the evaluation ask for a thinking part")
    lora: LoraConfig | None = Field(None, description="low-rank adapters; null trains all weights")
    quantization: Literal["4bit"] | None = Field(
        None, description="4bit: the frozen weights below adapters in 4 bits (QLoRA); null: whole weights"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass, which saves memory"
    )


class SamplingConfig(Section):
    """How responses are drawn."""

    temperature: float = Field(1.0, ge=0, description="divides the logits; 0 takes the likeliest token")
    top_p: float = Field(
        0.95, gt=0, le=1, description="draw from the likeliest tokens of this total probability; 1 switches it off"
    )
    top_k: CountOrZero = Field(20, description="draw from this many likeliest tokens; 0 switches it off")
    max_tokens: Count = Field(16384, description="most tokens of a response")

    def settings(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens)


class EvaluationConfig(Section):
    """When and how held-out accuracy is measured."""

    every: CountOrZero = Field(50, description="steps between evaluations; 0: only before and after training")
    samples: Count = Field(1, description="responses per problem: the n of mean@n")
    sampling: SamplingConfig = Field(
        SamplingConfig(temperature=0.6, max_tokens=38912), description="how responses of the evaluation are drawn"
    )
    before: bool = Field(True, description="whether to evaluate before the first step as well")
    patience: CountOrZero = Field(
        0, description="evaluations in a row without a better mean accuracy before the run stops early; 0: never"
    )
    min_gain: float = Field(0.0, ge=0, description="by how much a mean accuracy must be better to count as better")
    batch: Count = Field(128, description="problems answered at a time; what is resumed, and part of what a seed draws")


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
    attention: Text = Field("flash_attention_2", description="attention of the trainer, a name that transformers knows")
    rollout: Text = Field("vllm", description="rollout server, a name that verl knows")
    tensor_parallel: Count = Field(1, description="GPUs of one rollout server")
    rollout_memory: float = Field(0.7, gt=0, lt=1, description="share of a GPU's memory that a server may take")
    rollout_rows: Count = Field(256, description="responses that one server decodes side by side, at most")
    rollout_eager: bool = Field(False, description="decode without CUDA graphs")
    timeout: float = Field(
        3600.0, gt=0, description="seconds that one call or one request may take before the run ends"
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
            if self.gpus % getattr(self, name):
                raise ValueError(
                    f"engine.{name}={getattr(self, name)}: must divide the number of GPUs, {self.nodes} × "
                    f"{self.gpus_per_node}"
                )
        if self.sequence_parallel > 1 and self.share_prefixes:
            raise ValueError(
                f"engine.sequence_parallel={self.sequence_parallel}: sequences that several GPUs share have no common "
                "caches; set engine.share_prefixes=false"
            )
        return self


def _ordered(band: list[float]) -> list[float]:
    if band[0] > band[1]:
        raise ValueError("must be [low, high] with low at most high")
    return band


Band = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class GuardConfig(Section):
    """When a run counts as diverged; see `guards.Guards`."""

    policy: Literal["skip", "stop"] = Field(
        "skip", description="skip: leave out the update of a step that looks wrong; stop: end the run at once"
    )
    patience: Count = Field(3, description="steps in a row that may look wrong before the run ends")
    entropy: Band | None = Field(None, description="[low, high]: band of the policy's mean entropy in nats")
    length: Band | None = Field(None, description="[low, high]: band of the mean response length in tokens")
    no_reward_steps: CountOrZero = Field(0, description="steps in a row without any reward; 0: as many as there are")
    weight_growth: float = Field(
        100.0, gt=1, description="largest root mean square of the trained weights over that at the start"
    )


# `engine.name` selects the class; a further engine registers its class here (and a file in groups/engine).
ENGINES: dict[str, type[EngineConfig]] = {"local": LocalEngineConfig, "verl": VerlEngineConfig}

if TYPE_CHECKING:  # the local engine reads its own fields without narrowing
    AnyEngineConfig = LocalEngineConfig
else:
    AnyEngineConfig = SerializeAsAny[EngineConfig]


def engine_class(name: object) -> type[EngineConfig]:
    """The class of an engine's keys. Raises pydantic.ValidationError, located at `name`, for an unknown engine."""
    if isinstance(name, str) and name in ENGINES:
        return ENGINES[name]
    unknown = PydanticCustomError("engine", "unknown engine; {hint}", {"hint": nearest(str(name), ENGINES)})
    raise ValidationError.from_exception_data("engine", [{"type": unknown, "loc": ("name",), "input": name}])


class Config(Section):
    """One run, whole."""

    model: ModelConfig = Field(ModelConfig(), description="the policy")
    task: Annotated[dict[str, Any], AfterValidator(_without_nul)] = Field(
        default_factory=dict, description="name and parameters of the task"
    )
    method: Annotated[dict[str, Any], AfterValidator(_without_nul)] = Field(
        default_factory=dict, description="name and hyper-parameters of the method"
    )
    engine: AnyEngineConfig = Field(LocalEngineConfig(), description="where and how the arithmetic is done")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how training responses are drawn")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="when and how held-out accuracy is measured")

    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything that is drawn")
    steps: Count | None = Field(None, description="training steps; null: epochs decides")
    epochs: Count = Field(30, description="passes over the training problems, if steps is null")
    prompts_per_step: Count = Field(64, description="problems of one rollout batch")
    prompts_per_update: Count = Field(16, description="problems of one optimizer mini-batch")
    group_size: Count = Field(8, description="rollouts per problem, G")
    learning_rate: float = Field(1e-6, gt=0, description="learning rate after the warm-up")
    lr_scheduler_type: Literal[
        "constant",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = Field("constant", description="how the learning rate goes on after its warm-up: a schedule of transformers")
    lr_scheduler_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of that schedule, for example {min_lr_rate: 0.1}"
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of the optimizer")
    warmup_steps: CountOrZero = Field(50, description="training steps of linear learning-rate warm-up")
    grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    kl_coefficient: float = Field(
        0.0, ge=0, description="weight of the reference KL (low_var_kl) that is added to the loss"
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    rollout_correction: Literal["none", "token"] = Field("token", description="truncated importance weight per token")
    correction_cap: float = Field(2.0, gt=0, description="largest importance weight of a token")
    max_prompt_tokens: Count = Field(2048, description="problems with a longer prompt are left out")
    max_teacher_tokens: Count | None = Field(
        None, description="most tokens of teacher prompt and response; null: the model's context"
    )
    guard: GuardConfig = Field(GuardConfig(), description="when a run counts as diverged")
    save_every: CountOrZero = Field(50, description="steps between checkpoints; 0: only at the end")
    keep_last: Count | None = Field(3, description="newest checkpoints that are kept; null: all")
    keep_best: bool = Field(True, description="also keep the checkpoint of the highest mean held-out accuracy")
    log_rollouts: CountOrZero = Field(4, description="groups per step written out with hints and signals")
    show_completion_every: CountOrZero = Field(
        10, description="steps between the responses that are shown while a run goes on; 0: none"
    )
    trackers: list[Literal["tensorboard", "wandb", "swanlab", "trackio"]] = Field(
        ["tensorboard"], description="where metrics are sent"
    )
    project: Text = Field("rlcsd", description="name of the project in the trackers")
    push_to_hub: Text | None = Field(
        None, description="owner/name of a model on the hub that the finished run is uploaded to; null: none"
    )
    run_name: Annotated[Text, AfterValidator(_inside)] | None = Field(
        None, description="name of the run's folder in output_dir; null: from task, method, seed and time"
    )
    output_dir: Text = Field("runs", description="folder that run folders are put in")
    figures: bool = Field(True, description="whether the report has a figure")

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return engine_class(value.get("name", "local")).model_validate(value)

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.prompts_per_step % self.prompts_per_update:
            raise ValueError(
                f"prompts_per_update={self.prompts_per_update} must divide prompts_per_step={self.prompts_per_step}"
            )
        if self.evaluation.patience and not self.evaluation.every:
            raise ValueError(
                f"evaluation.patience={self.evaluation.patience}: stopping early needs evaluations during training; "
                "set evaluation.every"
            )
        if self.model.quantization and self.engine.name != "local":
            raise ValueError(
                f"model.quantization={self.model.quantization}: engine={self.engine.name} has no weights in 4 bits; "
                "use engine=local"
            )
        if self.model.quantization and self.model.lora is None:
            raise ValueError(
                f"model.quantization={self.model.quantization}: weights in 4 bits cannot be trained; set "
                "model.lora.rank as well"
            )
        return self

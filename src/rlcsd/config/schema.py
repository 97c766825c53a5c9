"""The configuration schema: every key with its type, range, default and meaning.

Frozen pydantic models. Defaults are defined here and in the classes of methods and tasks; the YAML groups hold only
what a named choice changes. `config.load` makes a `Config` from overrides, a mapping or a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    SerializeAsAny,
    field_serializer,
    field_validator,
    model_validator,
)

from ..errors import InputError, suggestion
from ..methods import ContrastConfig, MethodConfig, method_class
from ..records import Sampling
from ..tasks.registry import PythonTaskParameters, TaskParameters, task_parameters
from ..validation import sections
from .fields import (
    MAX_THREADS,
    RESUMABLE,
    Band,
    ChatTemplate,
    Count,
    CountOrZero,
    Device,
    Resumable,
    RunName,
    Section,
    StepsOrShare,
    Text,
    ThreadCount,
    TokensOrShare,
    without_nul,
)
from .names import FORMER_VALUES

DEFAULT_METHOD = "rlcsd"


class LoraConfig(Section):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    rank: Count = Field(64, description="rank of the adapters")
    alpha: float = Field(128, gt=0, description="scale of the adapters, which are multiplied by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout probability of the adapters' inputs in training")
    target_modules: Annotated[list[Text], Field(min_length=1)] | Literal["all-linear"] = Field(
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
    chat_template: ChatTemplate | None = Field(
        None, description="chat template (Jinja) for a model that has none, a file or the text; kept as the text"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="number format of the computation")
    master_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number format in which trained weights are kept and stepped; bfloat16, with dtype=bfloat16: "
        "without a float32 master copy, so that steps below half the spacing of bfloat16 are lost",
    )
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
    """How responses are sampled."""

    temperature: float = Field(1.0, ge=0, description="divides the logits; 0 takes the likeliest token")
    top_p: float = Field(
        0.95, gt=0, le=1, description="sample from the likeliest tokens of this total probability; 1 switches it off"
    )
    top_k: CountOrZero = Field(20, description="sample from this many likeliest tokens; 0 switches it off")
    max_tokens: Count = Field(16384, description="maximum tokens of a response")

    @property
    def truncated(self) -> bool:
        """Whether a response may be sampled from a part of the vocabulary. Greedily there is nothing to sample."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)

    def settings(self, keep_mask: bool = False) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, keep_mask)


class EvaluationConfig(Section):
    """When and how held-out accuracy is measured."""

    every: Resumable[StepsOrShare] = Field(
        50, description="steps between evaluations, or that share of the run; 0: only before and after training"
    )
    samples: Count = Field(1, description="responses per problem: the n of mean@n")
    sampling: SamplingConfig = Field(
        SamplingConfig(temperature=0.6, max_tokens=38912), description="how responses of the evaluation are sampled"
    )
    before: bool = Field(True, description="whether to evaluate before the first step as well")
    patience: Resumable[CountOrZero] = Field(
        0, description="evaluations in a row without a better mean accuracy before the run stops early; 0: never"
    )
    min_gain: Resumable[float] = Field(
        0.0, ge=0, description="by how much a mean accuracy must be better to count as better"
    )
    batch: Count | None = Field(
        None,
        description="problems answered at a time, over all sets; null: all, and 64 with rlcsd eval --out, which "
        "resumes after the last whole batch",
    )


class OverlongConfig(Section):
    """A length penalty on the reward of training responses (DAPO, arXiv 2503.14476, eq. 13); see `stages.grade`."""

    buffer: TokensOrShare = Field(
        0,
        description="last tokens before sampling.max_tokens over which the penalty grows from 0 to its full size, or "
        "that share of sampling.max_tokens, such as 0.2; 0: no penalty",
    )
    penalty: float = Field(1.0, ge=0, description="taken from the reward of a response of sampling.max_tokens tokens")

    def buffer_tokens(self, max_tokens: int) -> int:
        """`buffer` in tokens, of responses of at most `max_tokens`; a share is at least one token."""
        return max(1, round(self.buffer * max_tokens)) if isinstance(self.buffer, float) else self.buffer


class GuardConfig(Section):
    """When a run counts as diverged; see `health.Guards`."""

    policy: Literal["skip", "stop"] = Field(
        "skip", description="skip: leave out the update of a step that looks wrong; stop: end the run at once"
    )
    patience: Count = Field(3, description="steps in a row that may look wrong before the run ends")
    entropy: Band | None = Field(None, description="[low, high]: band of the policy's mean entropy in nats")
    length: Band | None = Field(None, description="[low, high]: band of the mean response length in tokens")
    no_reward_steps: CountOrZero = Field(0, description="steps in a row without any reward; 0: no limit")
    weight_growth: float = Field(
        100.0, gt=1, description="largest root mean square of the trained weights over that at the start"
    )


# ------------------------------------------------------------------------------------------------------------- engines


class EngineConfig(Section):
    """What every engine has. Token budgets change results by rounding alone."""

    name: str = Field(description="the engine, which decides what other keys engine has")
    peak_tflops: Resumable[Annotated[float, Field(gt=0)] | None] = Field(
        None, description="peak of one device in dense bf16 TFLOP/s, for perf/mfu; null: by its name, if it is known"
    )


class LocalEngineConfig(EngineConfig):
    """One process on one device."""

    name: Literal["local"] = Field("local", description="the engine, which decides what other keys engine has")
    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    threads: ThreadCount = Field(
        0,
        description=f"CPU threads, at most {MAX_THREADS}; 0: one for a small model, else as many as torch takes",
    )
    micro_batch_tokens: Resumable[Count] = Field(16384, description="tokens of one forward pass with gradient")
    score_tokens: Resumable[Count] = Field(32768, description="tokens of one forward pass without gradient")
    sample_rows: Resumable[Count] = Field(256, description="maximum responses decoded side by side")
    sample_gib: Resumable[float | None] = Field(
        None,
        gt=0,
        description="most GiB that their caches may take; null: what the GPU has beside weights and optimizer states, "
        "16 on a CPU",
    )
    cuda_graph: Resumable[bool] = Field(
        True, description="on a GPU, replay the kernels of each token as one CUDA graph in the local sampler"
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw", description="the optimizer, with 32-bit or 8-bit states"
    )
    sampler: Literal["auto", "local", "vllm"] = Field(
        "auto", description="auto: vLLM if it is installed and the device is a GPU; vllm: also its CPU build on a CPU"
    )
    vllm_memory: Resumable[float] = Field(
        0.35, gt=0, lt=1, description="share of the device's memory that vLLM may take while it samples"
    )
    vllm_sleep: Resumable[bool] = Field(
        True, description="vLLM gives the GPU's memory back while the trainer scores and updates; nothing on a CPU"
    )
    vllm_adapters: Literal["auto", "merged"] = Field(
        "auto", description="auto: vLLM is given adapters alone where it has kernels for them; merged: whole weights"
    )
    self_check: Resumable[bool] = Field(
        True, description="compare sampler, scorer and update with a plain pass of the model before a run"
    )
    deterministic: Resumable[bool] = Field(
        True, description="on a GPU, kernels that give the same result each time, where there are any"
    )
    head_chunk: Resumable[Count] = Field(4096, description="tokens whose logits are held at once")
    profile_steps: Resumable[list[Count]] = Field(
        [], description="steps that are traced by torch's profiler, into profile/ of the run folder"
    )


class VerlEngineConfig(EngineConfig):
    """A cluster: verl's FSDP2 workers and rollout servers on `nodes × gpus_per_node` GPUs.

    Token budgets are those of one GPU. How rows are spread over GPUs changes results by rounding alone.
    """

    name: Literal["verl"] = Field("verl", description="the engine, which decides what other keys engine has")
    nodes: Resumable[Count] = Field(1, description="machines")
    gpus_per_node: Resumable[Count] = Field(8, description="GPUs of each machine")
    ray_address: Resumable[Text | None] = Field(
        None,
        description="a running Ray cluster (auto: the one of this machine); null starts one on this machine",
    )
    micro_batch_tokens: Resumable[Count] = Field(
        16384, description="tokens of one forward pass with gradient; a longer row is alone"
    )
    score_tokens: Resumable[Count] = Field(32768, description="tokens of one forward pass without gradient")
    head_chunk: Resumable[Count] = Field(4096, description="tokens whose logits are held at once")
    share_prefixes: Resumable[bool] = Field(
        True, description="compute a hint once for all responses after it; gathers the scorer's weights on each GPU"
    )
    sequence_parallel: Resumable[Count] = Field(
        1, description="GPUs that share each sequence (Ulysses); above 1 needs share_prefixes=false"
    )
    offload: Resumable[Literal["none", "optimizer", "all"]] = Field(
        "none", description="what waits in host memory while it is not used: nothing, optimizer states, or weights too"
    )
    attention: Resumable[Text] = Field(
        "auto",
        description="attention of the trainer, a name that transformers knows; auto: flash_attention_2 in bfloat16 if "
        "flash-attn is installed, else sdpa",
    )
    rollout: Text = Field("vllm", description="rollout server, a name that verl knows")
    tensor_parallel: Resumable[Count] = Field(1, description="GPUs of one rollout server")
    rollout_memory: Resumable[float] = Field(
        0.7, gt=0, lt=1, description="share of a GPU's memory that a server may take"
    )
    rollout_rows: Resumable[Count] = Field(256, description="maximum responses that one server decodes side by side")
    rollout_eager: Resumable[bool] = Field(False, description="decode without CUDA graphs")
    rollout_adapters: Resumable[Literal["auto", "merged"]] = Field(
        "auto", description="auto: servers get adapters alone where vLLM has kernels for them; merged: whole weights"
    )
    timeout: Resumable[float] = Field(
        3600.0,
        gt=0,
        description="seconds that a call of the workers may take, or that may pass without an answer of the servers",
    )
    self_check: Resumable[bool] = Field(
        True, description="compare server, scorer and update on this model before a run"
    )
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
ENGINES: dict[str, type[EngineConfig]] = {
    "local": LocalEngineConfig,
    "verl": VerlEngineConfig,
}

if TYPE_CHECKING:  # the local engine reads its own fields without narrowing
    AnyEngineConfig = LocalEngineConfig
else:
    AnyEngineConfig = SerializeAsAny[EngineConfig]


class Config(Section):
    """One run: every key that there is, checked (`rlcsd config keys`).

    >>> import rlcsd
    >>> config = rlcsd.load_config(["method=rlcsd", "steps=20"])
    >>> config.steps, config.method.name, isinstance(config, rlcsd.Config)
    (20, 'rlcsd', True)
    """

    model: ModelConfig = Field(ModelConfig(), description="the policy")
    task: TaskParameters | PythonTaskParameters = Field(
        default_factory=lambda: TaskParameters(name=""),
        description="name and parameters of the task; without a name the task is passed to the run itself",
    )
    method: SerializeAsAny[MethodConfig] = Field(
        default_factory=lambda: method_class(DEFAULT_METHOD).Config(name=DEFAULT_METHOD),
        description="name and hyper-parameters of the method",
    )
    engine: AnyEngineConfig = Field(LocalEngineConfig(), description="where and how the arithmetic is done")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how training responses are sampled")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="when and how held-out accuracy is measured")

    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
    steps: Resumable[Count | None] = Field(None, description="training steps; null: epochs decides")
    epochs: Resumable[Count] = Field(30, description="passes over the training problems, if steps is null")
    prompts_per_step: Count = Field(64, description="problems of one rollout batch")
    prompts_per_update: Count = Field(16, description="problems of one optimizer mini-batch")
    group_size: Count = Field(8, description="rollouts per problem, G")
    refill_batches: CountOrZero = Field(
        0,
        description="batches that a step may sample beyond its own to replace groups that are all right or all wrong "
        "(DAPO's dynamic sampling); 0: none",
    )
    shuffle: bool = Field(
        True, description="take each pass over the training problems in a new random order; false: in the data's order"
    )
    loss_normalisation: Literal["mini_batch", "micro_batch"] = Field(
        "mini_batch",
        description="what the loss is a mean over: the whole mini-batch, or each of its micro-batches by itself, which "
        "then weighs by its rollouts and makes the loss depend on how the mini-batch is cut",
    )
    normalisation_tokens: Count = Field(
        40960, description="token budget of these micro-batches; it leaves those of the engine as they are"
    )
    overlong: OverlongConfig = Field(OverlongConfig(), description="penalty on the reward of long responses")
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
    ] = Field("constant", description="learning-rate schedule after the warm-up, one of transformers")
    lr_scheduler_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of that schedule, for example {min_lr_rate: 0.1}"
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of the optimizer")
    warmup_steps: StepsOrShare = Field(
        50, description="training steps of linear learning-rate warm-up, or that share of the run, such as 0.1"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    kl_coefficient: float = Field(
        0.0, ge=0, description="weight of the reference KL (low_var_kl) that is added to the loss"
    )
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    sampling_mask: bool | None = Field(
        False,
        description="keep which tokens top-p and top-k left to be sampled, and take the policy's log-probs in ratios, "
        "updates and gaps among these; null: where training samples are truncated and the engine can",
    )
    rollout_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        "token_truncate",
        description="importance weight π_old / π_rollout of a token, its own or the product over its rollout: "
        "truncated to its bounds, or 0 outside them",
    )
    importance_weight_cap: float = Field(2.0, gt=0, description="upper bound of the importance weight")
    importance_weight_floor: float = Field(0.0, ge=0, description="lower bound of the importance weight")
    rollout_rejection: Band | None = Field(
        None,
        description="[low, high]: rollouts whose geometric mean of π_old / π_rollout is outside are left out of the "
        "update; null: none",
    )
    max_prompt_tokens: Count = Field(2048, description="problems with a longer prompt are left out")
    max_teacher_tokens: Count | None = Field(
        None, description="maximum tokens of teacher prompt and response together; null: the model's context"
    )
    rehearsal: bool = Field(
        False, description="rlcsd train measures three steps in a folder of their own, and extrapolates the run's costs"
    )
    guard: Resumable[GuardConfig] = Field(GuardConfig(), description="when a run counts as diverged")
    save_every: Resumable[StepsOrShare] = Field(
        50, description="steps between checkpoints, or that share of the run; 0: only at the end"
    )
    save_in_background: Resumable[bool | None] = Field(
        None,
        description="write checkpoints while the next step samples, from a copy in host memory; null: if the weights "
        "are on a GPU and the host has room for the copy (engine=local)",
    )
    keep_last: Resumable[Count | None] = Field(3, description="newest checkpoints that are kept; null: all")
    keep_best: Resumable[bool] = Field(
        True, description="also keep the checkpoint of the highest mean held-out accuracy"
    )
    log_rollouts: Resumable[CountOrZero] = Field(4, description="groups per step written out with hints and signals")
    show_completion_every: Resumable[CountOrZero] = Field(
        10, description="steps between the responses that are shown, and sent to the trackers as a table; 0: none"
    )
    trackers: Resumable[list[Literal["tensorboard", "wandb", "swanlab", "trackio"]]] = Field(
        ["tensorboard"], description="where metrics are sent"
    )
    project: Resumable[Text] = Field("rlcsd", description="name of the project in the trackers")
    export_dtype: Resumable[Literal["float32", "bfloat16"] | None] = Field(
        None,
        description="number format of the weights that rlcsd export writes; null: bfloat16 for all weights trained in "
        "bfloat16, else float32, because merging into bfloat16 loses small updates of adapters",
    )
    push_to_hub: Resumable[Text | None] = Field(
        None, description="owner/name of a model on the hub that the finished run is uploaded to; null: none"
    )
    run_name: Resumable[RunName | None] = Field(
        None, description="name of the run's folder in output_dir; null: from task, method, seed and time"
    )
    output_dir: Resumable[Text] = Field("runs", description="folder that run folders are put in")
    figures: Resumable[bool] = Field(True, description="whether the report has a figure")

    @field_validator("rollout_correction", mode="before")
    @classmethod
    def _former_correction(cls, value: Any) -> Any:
        return FORMER_VALUES["rollout_correction"].get(value, value) if isinstance(value, str) else value

    @field_validator("task", mode="before")
    @classmethod
    def _task_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return task_parameters(without_nul(value)) if value else TaskParameters(name="")

    @field_serializer("task")
    def _task_as_given(self, task: TaskParameters | PythonTaskParameters) -> dict[str, Any]:
        return task.model_dump(exclude_unset=True) if task.name else {}

    def __reduce__(self) -> tuple[Any, ...]:
        # By value, so that a worker process loads the class of a method in the user's own file again.
        return Config.model_validate, (self.model_dump(),)

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = str(value.get("name", "local"))
        if name not in ENGINES:
            raise InputError(f"engine.name={name!r}: unknown engine; {suggestion(name, ENGINES)}")
        return ENGINES[name].model_validate(value)

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = str(without_nul(value).get("name", DEFAULT_METHOD))
        return method_class(name).Config.model_validate({**value, "name": name})

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.prompts_per_step % self.prompts_per_update:
            raise ValueError(
                f"prompts_per_update={self.prompts_per_update} must divide prompts_per_step={self.prompts_per_step}"
            )
        if self.overlong.buffer > self.sampling.max_tokens:
            raise ValueError(
                f"overlong.buffer={self.overlong.buffer}: must be at most sampling.max_tokens="
                f"{self.sampling.max_tokens}; a share of it is overlong.buffer=0.2"
            )
        if self.evaluation.patience and not self.evaluation.every:
            raise ValueError(
                f"evaluation.patience={self.evaluation.patience}: stopping early needs evaluations during training; "
                "set evaluation.every"
            )
        if self.model.master_dtype == "bfloat16" and self.model.dtype != "bfloat16":
            raise ValueError(
                f"model.master_dtype=bfloat16: model.dtype={self.model.dtype} would compute in a wider format than the "
                "weights have; set model.dtype=bfloat16"
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

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Config:
        if self.importance_weight_floor > self.importance_weight_cap:
            raise ValueError(
                f"importance_weight_floor={self.importance_weight_floor:g}: must be at most "
                f"importance_weight_cap={self.importance_weight_cap:g}"
            )
        if self.rollout_rejection is not None and self.rollout_rejection[0] < 0:
            raise ValueError(
                f"rollout_rejection={self.rollout_rejection}: bounds of a ratio are positive numbers, such as [0.5,2]"
            )
        return self

    @model_validator(mode="after")
    def _groups_large_enough(self) -> Config:
        method, siblings = self.method, False
        if isinstance(method, ContrastConfig):
            siblings = method.hint_source == "self_rollout" and method.exclude_self
        if siblings and self.group_size < 3:
            raise ValueError(
                f"group_size={self.group_size}: method={method.name} shows the teacher a correct and a wrong sibling "
                "of each rollout, so a group needs at least 3 rollouts"
            )
        reads_advantage = method_class(method.name).uses_advantage != "never"
        if self.group_size < 2 and reads_advantage:
            raise ValueError(f"group_size={self.group_size}: a group advantage needs at least 2 rollouts")
        if self.refill_batches and not reads_advantage and getattr(method, "hint_source", "none") == "none":
            raise ValueError(
                f"refill_batches={self.refill_batches}: method={method.name} reads neither rewards nor hints of "
                "siblings, so groups with both outcomes give it nothing; set refill_batches=0"
            )
        if self.refill_batches and self.group_size < 2:
            raise ValueError(
                f"refill_batches={self.refill_batches}: a group of one rollout never has both outcomes; set "
                "refill_batches=0, or raise group_size"
            )
        return self


def default_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a nested config leaves out, by section; without those of the task.

    Nothing that the config names is imported: of a method in a user's file no default is known.
    """
    method, engine = values["method"], values.get("engine")
    name = str(engine.get("name")) if isinstance(engine, Mapping) else ""
    config = Config.model_validate({"engine": {"name": name}} if name in ENGINES else {})
    defaults = config.model_dump(mode="json", exclude={"task", "method"})
    known: dict[str, Any] = {}
    if ".py:" not in method["name"]:
        with suppress(ValueError):  # a method or a value of another version
            known = method_class(method["name"]).Config.model_validate(method).model_dump(mode="json")
    return {**defaults, "method": known}


def different_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The keys, sorted, in which two flat configs differ; a key that one of them lacks is None there."""
    return [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]


def may_change_on_resume(schema: type[BaseModel] = Config, prefix: str = "") -> tuple[str, ...]:
    """The dotted keys marked `Resumable`, those of every engine included; a section stands for all of its keys."""

    def keys() -> Iterator[str]:
        for name, field in schema.model_fields.items():
            if RESUMABLE in field.metadata:
                yield prefix + name
                continue
            for section in ENGINES.values() if name == "engine" else sections(field.annotation):
                yield from may_change_on_resume(section, f"{prefix}{name}.")

    return tuple(dict.fromkeys(keys()))


def is_free(key: str) -> bool:
    """Whether a resumed run may change the dotted key."""
    return any(key == free or key.startswith(f"{free}.") for free in may_change_on_resume())

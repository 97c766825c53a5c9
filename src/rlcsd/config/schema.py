"""The typed, frozen configuration: every key, its default, its range, and what it means. `engines.py` has the engines'.

Defaults stand here alone; the YAML groups hold what a choice changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializeAsAny, field_validator, model_validator

from ..records import Sampling
from .engines import EngineConfig, LocalEngineConfig, engine_class
from .values import Count, CountOrZero, Section, Text, inside, template, without_nul

if TYPE_CHECKING:  # the local engine reads its own fields without narrowing
    AnyEngineConfig = LocalEngineConfig
else:
    AnyEngineConfig = SerializeAsAny[EngineConfig]


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
    chat_template: Annotated[str, AfterValidator(without_nul), AfterValidator(template)] | None = Field(
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


class Config(Section):
    """One run, whole."""

    model: ModelConfig = Field(ModelConfig(), description="the policy")
    task: Annotated[dict[str, Any], AfterValidator(without_nul)] = Field(
        default_factory=dict, description="name and parameters of the task"
    )
    method: Annotated[dict[str, Any], AfterValidator(without_nul)] = Field(
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
    run_name: Annotated[Text, AfterValidator(inside)] | None = Field(
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

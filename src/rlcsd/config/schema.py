"""The typed, frozen configuration: every key, its range, and what it means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..records import Sampling


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class LoraConfig(Section):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    rank: int = Field(64, ge=1)
    alpha: float = Field(128, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"


class ModelConfig(Section):
    """The policy. `path` is `tiny`, a hub name, a local folder, or a folder with `gguf_file` in it."""

    path: str = "tiny"
    gguf_file: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    thinking_student: bool = True
    thinking_teacher: bool = True
    thinking_eval: bool = True
    lora: LoraConfig | None = None
    gradient_checkpointing: bool = False
    deepmath_band: str = Field("5_7", description="the difficulty band of DeepMath that task=math_deepmath trains on")


class SamplingConfig(Section):
    """How responses are drawn; `top_k = 0` and `top_p = 1` switch the filters off."""

    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(20, ge=0)
    max_tokens: int = Field(16384, ge=1)

    def settings(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens)


class EvaluationConfig(Section):
    """When and how held-out accuracy is measured. `every = 0`: only before and after training."""

    every: int = Field(50, ge=0)
    samples: int = Field(1, ge=1, description="responses per problem: the n of mean@n")
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, max_tokens=38912)
    before: bool = True
    batch: int = Field(128, ge=1, description="problems answered at a time; what is resumed, and part of what a seed draws")


class EngineConfig(Section):
    """Where and how the arithmetic is done. Budgets change results by rounding alone; those of sampling also the draws of a seed."""

    name: Literal["local"] = "local"
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves torch's choice")
    micro_batch_tokens: int = Field(16384, ge=1, description="tokens of one forward pass with gradient")
    score_tokens: int = Field(32768, ge=1, description="tokens of one forward pass without gradient")
    sample_rows: int = Field(256, ge=1, description="responses decoded side by side, at most")
    sample_gib: float = Field(16.0, gt=0, description="GiB that their caches may take: fewer rows for long responses")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    sampler: Literal["auto", "local", "vllm"] = Field("auto", description="auto: vLLM if it is installed and the device is a GPU")
    vllm_memory: float = Field(0.35, gt=0, lt=1, description="share of the GPU's memory that vLLM may take")
    self_check: bool = Field(True, description="compare sampler, scorer and update with a plain pass of the model before a run")
    head_chunk: int = Field(4096, ge=1, description="tokens whose logits are held at once")


class Config(Section):
    """One run, whole."""

    model: ModelConfig = ModelConfig()
    task: dict[str, Any] = Field(default_factory=dict, description="name and parameters of the task")
    method: dict[str, Any] = Field(default_factory=dict, description="name and hyper-parameters of the method")
    engine: EngineConfig = EngineConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    seed: int = Field(0, ge=0, lt=2**31)
    steps: int | None = Field(None, ge=1, description="training steps; null: `epochs` decides")
    epochs: int = Field(30, ge=1)
    prompts_per_step: int = Field(64, ge=1, description="problems of one rollout batch")
    prompts_per_update: int = Field(16, ge=1, description="problems of one optimizer mini-batch")
    group_size: int = Field(8, ge=1, description="rollouts per problem, G")
    learning_rate: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(50, ge=0, description="training steps of linear learning-rate warm-up")
    grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    kl_coefficient: float = Field(0.0, ge=0, description="reference KL (low_var_kl) added to the loss")
    entropy_coefficient: float = Field(0.0, ge=0, description="entropy bonus")
    rollout_correction: Literal["none", "token"] = Field("token", description="truncated importance weight per token")
    correction_cap: float = Field(2.0, gt=0)
    max_prompt_tokens: int = Field(2048, ge=1)
    max_teacher_tokens: int | None = Field(None, ge=1, description="teacher prompt + response; null: the model's context")
    save_every: int = Field(50, ge=0, description="steps between checkpoints; 0: only at the end")
    log_rollouts: int = Field(4, ge=0, description="groups per step written out with hints and signals")
    trackers: list[Literal["tensorboard", "wandb", "swanlab", "trackio"]] = ["tensorboard"]
    project: str = "rlcsd"
    run_name: str | None = None
    output_dir: str = "runs"
    figures: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.prompts_per_step % self.prompts_per_update:
            raise ValueError(f"prompts_per_update={self.prompts_per_update} must divide prompts_per_step={self.prompts_per_step}")
        return self

"""The credit methods (grpo, rlsd, rlcsd …) and their objectives in TRL's GRPO trainer: `pip install 'rlcsd[trl]'`.

TRL generates, rewards and updates. This trainer chooses the hints, lets the teacher score, and gives each token its
advantage. TRL's loss takes advantages `[B, T]`, and the surrogate is positively homogeneous in them, so a token's
weight in the method's loss moves into its advantage. Weights belong to the whole optimizer mini-batch: all
micro-batches of a gradient accumulation, on all processes. Ratio and surrogate are TRL's own, as far as it has them.
Hints need whole groups, so they are chosen before TRL shuffles the responses.

Written against TRL 1.16, whose private methods it overrides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from ..decoding import response_text
from ..engine.local.model import Network
from ..errors import InputError
from ..layout import Layout
from ..methods import CreditMethod, method_class
from ..methods.grpo import GRPO
from ..metrics import combined
from ..records import Group, TrainingExample
from ..stages import step_rng
from ..stages.hint import HintCounts, TeacherPrompts, teacher_token_limit
from ..stages.score import build_token_batch
from ..validation import as_input_error
from .training_examples import (
    BatchHealth,
    RewardedResponse,
    TeacherScorer,
    build_examples,
    build_groups,
    nothing_usable,
    problem_of,
    stays_in_update,
    total_rewards,
)

# Settings of ours that warnings speak of, as they are called here.
_NAMES = {
    "sampling.max_tokens": "max_completion_length", "group_size": "num_generations", "method.unusable": "unusable",
    "method.hint_source": "hint_source", "sampling.temperature": "temperature", "task.instruction": "the prompt",
    "task.verifier": "the reward function", "model.path": "model", "rollouts": "responses",
    "Task(answer_of=…), or a verifier that returns rlcsd.Verdict(…, answer=…)": "RLCSDTrainer(…, answer_of=…)",
    "as the task says": "hints_by_text=True takes the text alone, or",
}  # fmt: skip
_FILE = "rlcsd_teacher.safetensors"
_NEEDED = {"loss_type": "dapo", "importance_sampling_level": "token", "top_entropy_quantile": 1.0}
_NEEDED |= {"off_policy_mask_threshold": None, "use_liger_kernel": False}
_NEEDED |= {"multi_objective_aggregation": "sum_then_normalize", "scale_rewards": "group"}


@dataclass
class RLCSDConfig(GRPOConfig):  # type: ignore[misc]
    """TRL's GRPOConfig with a method of this project and its hyper-parameters, from which the clip ranges are set.

    The data set has the columns `prompt` (messages), `answer_column`, and for some hints `solution_column`.
    """

    method: str = field(default="rlcsd", metadata={"help": "grpo, dapo, rlsd, rlcsd … or file.py:ClassName"})
    method_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "its hyper-parameters by name"})
    answer_column: str = field(default="answer", metadata={"help": "column of the final answers"})
    solution_column: str = field(default="solution", metadata={"help": "column of worked solutions, if there is one"})
    success: float = field(default=1.0, metadata={"help": "a response is correct from this reward on"})
    hints_by_text: bool = field(
        default=False, metadata={"help": "whether a wrong response without an answer may be a hint by its text"}
    )
    thinking_teacher: bool = field(default=True, metadata={"help": "whether the teacher's prompt asks for thinking"})
    max_teacher_tokens: int | None = field(default=None, metadata={"help": "most tokens of its prompt and response"})
    score_tokens: int = field(default=32768, metadata={"help": "tokens of one pass of the teacher"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in _NEEDED.items():
            if getattr(self, name, value) != value:
                raise InputError(f"{name}={getattr(self, name)!r}: must be {value!r}; what varies is in method_options")
        if self.steps_per_generation % self.gradient_accumulation_steps:
            wrong = f"steps_per_generation={self.steps_per_generation}: must be a multiple of "
            raise InputError(f"{wrong}gradient_accumulation_steps, {self.gradient_accumulation_steps}")
        objective = self.build_method().objective
        self.epsilon, self.delta = objective.epsilon, objective.dual_clip
        # TRL's cap of CISPO is the ratio itself, its clip range of PPO the distance from 1.
        self.epsilon_high = objective.bounds[1] - (objective.surrogate == "ppo")

    def build_method(self) -> CreditMethod:
        """Raises InputError for an unknown method, one that distils, or a hyper-parameter out of range; and for a loss
        that TRL's own differs from.
        """
        cls = method_class(self.method)
        if not issubclass(cls, CreditMethod):
            raise InputError(f"method={self.method}: its loss is no clipped surrogate, so TRL's trainer cannot run it")
        try:
            method = cls.from_fields(**{"constant_length": self.max_completion_length, **self.method_options})
        except ValidationError as error:
            raise as_input_error(error, "method_options.", cls.Config.model_fields) from None
        if getattr(method.config, "teacher", "") == "model":
            raise InputError("method_options.teacher=model: here the teacher is a copy of the policy; use rlcsd train")
        if (differs := _unlike_trl(method)) is not None:
            raise InputError(f"{differs}; use rlcsd train")
        return method


def _unlike_trl(method: CreditMethod) -> str | None:
    """How TRL's loss differs from the method's at the method's folded advantages; None: it does not."""
    objective = method.objective
    if objective.surrogate == "cispo":
        if objective.epsilon < 1:
            return f"method_options.epsilon={objective.epsilon}: TRL's CISPO has no lower bound, which is epsilon=1"
        return None
    if objective.ratio == "sequence" and not isinstance(method, GRPO):
        return (
            "method_options.ratio=sequence: TRL has one gradient for all tokens of a response, and "
            f"method={method.name} gives them advantages of their own"
        )
    if objective.dual_clip is not None and objective.bounds[1] > objective.dual_clip:
        return f"method_options.dual_clip={objective.dual_clip}: TRL applies it to A > 0 as well, within the clip range"
    return None


class _TeacherFollows(TrainerCallback):  # type: ignore[misc]
    def __init__(self, teacher: TeacherScorer) -> None:
        self.teacher = teacher

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        self.teacher.follow(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if args.should_save and (tensors := self.teacher.state()):
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / _FILE)


class RLCSDTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer, arguments and all, whose advantages are those of `args.method`.

    `answer_of` reads the final answer of a response for its hint, None if it has none; by default it is the content of
    its last box.

    Raises InputError for what the methods cannot work with: sharded weights, tools, prompts that are no chats.
    """

    _tag_names = ["trl", "grpo", "rlcsd"]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: RLCSDConfig | None = None,
        *,
        answer_of: Callable[[str], str | None] | None = None,
        **options: Any,
    ) -> None:
        self.answer_of = answer_of
        self.method = (args := args or RLCSDConfig(output_dir="rlcsd")).build_method()
        self._in_loss: dict[str, Any] | None = None
        super().__init__(model, reward_funcs, args, **options)
        if self.accelerator.distributed_type in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
            raise InputError(f"{self.accelerator.distributed_type}: the teacher is a whole copy of the policy; use DDP")
        if self.method.whole_minibatch and self.accelerator.num_processes > 1:
            raise InputError(
                f"method={args.method}: it compares the tokens of a whole mini-batch, which are spread over "
                f"{self.accelerator.num_processes} processes here; use one process, or rlcsd train"
            )
        if self.tools:
            raise InputError("tools: a teacher cannot score responses that contain what tools answered")
        self.importance_sampling_level = self.method.objective.ratio
        self.loss_type = "cispo" if self.method.objective.surrogate == "cispo" else "dapo"  # of the same denominator
        model = self.model.to(self.accelerator.device)
        policy = Network(model, autocast=args.bf16, temperature=args.temperature)  # at which TRL's log-probs are
        self.teacher = TeacherScorer(policy, self.method, self._tokenizer.pad_token_id, args.score_tokens)
        self.health = BatchHealth(self.method, _NAMES)
        self.add_callback(_TeacherFollows(self.teacher))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.teacher.state():
            self.teacher.load_state(load_file(Path(checkpoint) / _FILE))

    def _generate(self, prompts: Any) -> Any:
        generated = super()._generate(prompts)
        self._prompt_ids = generated[0]
        return generated

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            totals = total_rewards(rewards, self.reward_weights.to(rewards.device))  # of all processes
            problems = [problem_of(row, self.args.answer_column, self.args.solution_column) for row in inputs]
            texts = [  # TRL's own leave out marks of thinking that are special tokens, and know nothing of the prompt
                response_text(self._tokenizer, ids, prompt)
                for ids, prompt in zip(completion_ids_list, self._prompt_ids, strict=True)
            ]
            mine = list(zip(problems, texts, map(tuple, completion_ids_list), strict=True))
            self._lengths = tuple(map(len, completion_ids_list))
            rewarded = zip(gather_object(mine), totals, strict=True)
            ends = self._end_ids()
            self._responses = [
                RewardedResponse(problem, text, ids, reward, bool(ids) and ids[-1] in ends)
                for (problem, text, ids), reward in rewarded
            ]
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not training:
            return output
        if "tool_mask" in output:
            raise InputError("rollout_func: returns env_mask, and a teacher cannot score what an environment answered")
        first, device = self.accelerator.process_index * len(inputs), output["completion_ids"].device
        limit = teacher_token_limit(self.args.max_teacher_tokens, self.teacher.policy.context_length)
        by_text = self.args.hints_by_text
        prompts = TeacherPrompts(self._tokenizer, limit, self.args.thinking_teacher, instruction="", by_text=by_text)
        rng, step = step_rng(self.args.seed, "hint", self.state.global_step), self._training_step()  # alike everywhere
        groups = build_groups(self._responses, self.num_generations, self.method, self.args.success, self.answer_of)
        examples, counts = build_examples(groups, self.method, prompts, rng, step)
        written = output["completion_mask"].bool().any(dim=1)  # TRL may leave out what the token limit cut off
        self._report(groups, examples, counts, self.accelerator.gather(written).tolist())
        rows = examples[first : first + len(inputs)]
        self._columns = build_token_batch(self.teacher, rows, self.method)  # type: ignore[arg-type]
        if not isinstance(self.method, GRPO):  # which needs none
            self._columns = self._columns.with_columns(**self._old_columns(output))
        self._kept = written & torch.tensor([stays_in_update(row, self.method, step) for row in rows], device=device)
        output["row"], self._weighed = torch.arange(len(inputs), device=device), False
        return output

    def _report(
        self,
        groups: Sequence[Group],
        examples: Sequence[TrainingExample],
        counts: HintCounts,
        written: Sequence[bool],
    ) -> None:
        """Log the counts of a rollout batch, which is that of all processes; warn about one that teaches nothing.

        `written` says of which responses TRL's loss has tokens.
        """
        figures, told = self.health.after_batch(
            groups, examples, counts, self.args.hints_by_text, self._training_step(), written
        )
        self._log(figures)
        if not any(written):
            told.insert(
                0, f"mask_truncated_completions leaves out all {len(written)} responses of this batch: no update"
            )
        elif not figures["hints/updated_share"]:
            told.insert(0, nothing_usable(self._responses, self.method, self.args.success))
        for sentence in told if self.accelerator.is_main_process else ():
            warnings.warn(sentence, stacklevel=2)

    def _log(self, figures: Mapping[str, float]) -> None:
        """Add to what TRL logs next: of each name the mean since it logged last."""
        for name, value in figures.items():
            self._metrics["train"][name].append(value)

    def _end_ids(self) -> set[int]:
        """Token ids that end a response."""
        more = getattr(self.model.generation_config, "eos_token_id", None)
        return {self._tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])}

    def _old_columns(self, output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log-probs `[N]` of the policy, and its entropies `[N]` for a method that reads them.

        TRL leaves the log-probs out where they are those of its loss; methods read them before. It never has entropies.
        """
        wanted = self.method.needs_entropy
        old = output.get("old_per_token_logps")
        found = {} if old is None else {"old_log_prob": old}
        if old is None or wanted:
            whole = [torch.cat([output[f"{p}_{x}"] for p in ("prompt", "completion")], 1) for x in ("ids", "mask")]
            kept, size = output["completion_ids"].size(1), self.args.per_device_train_batch_size
            with torch.no_grad():
                computed = self._get_per_token_logps_and_entropies(
                    self.model, *whole, kept, batch_size=size, compute_entropy=wanted
                )
            found = dict(zip(("old_log_prob", "entropy") if wanted else ("old_log_prob",), computed, strict=False))
        return {
            name: Layout(self._lengths, matrix.device).flat(matrix[:, : max(self._lengths)])
            for name, matrix in found.items()
        }

    def _training_step(self) -> int:
        """The number, from 1, of the rollout batch that is being generated or used."""
        again = self.args.steps_per_generation * self.num_iterations // self.args.gradient_accumulation_steps
        return 1 + int(self.state.global_step) // again

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if "row" in inputs and not self._weighed:
            self._weighed, size = True, self.args.gradient_accumulation_steps
            for start in range(0, len(self._buffered_inputs), size):
                self._weigh(self._buffered_inputs[start : start + size])
        return inputs

    def _weigh(self, batches: Sequence[dict[str, Any]]) -> None:
        """Add its token columns to each micro-batch of a mini-batch, weighted by sums over all processes."""
        layout = Layout(self._lengths, self._kept.device)
        tokens = [layout.tokens(batch["row"][self._kept[batch["row"]]].tolist()) for batch in batches]
        assigned = self.method.assign(self._columns[torch.cat(tokens)], self._training_step())
        sums = {**self.method.sums(assigned), "tokens": torch.tensor(float(len(assigned)), dtype=torch.float64)}
        total = self.accelerator.reduce(torch.stack([value.to(layout.device) for value in sums.values()]), "sum")
        sums = dict(zip(sums, total, strict=True))
        weighted = self.method.normalise(assigned, sums)
        self._log(combined(gather_object([self.method.metrics(weighted)])))
        begin = 0
        for batch, part in zip(batches, tokens, strict=True):
            batch["token_batch"], begin = weighted[begin : begin + len(part)], begin + len(part)
            batch["mini_batch_tokens"] = sums["tokens"].float()
            batch["tool_mask"] = batch["completion_mask"] * self._kept[batch["row"]][:, None]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if "token_batch" in inputs:
            # TRL divides by this number, scaled from a rollout batch to a mini-batch: a mean over the latter's tokens.
            scale = self.args.steps_per_generation / self.current_gradient_accumulation_steps
            inputs = self._in_loss = {**inputs, "num_items_in_batch": inputs["mini_batch_tokens"] * scale}
        loss: Tensor = super()._compute_loss(model, inputs)
        self._in_loss = None
        return loss

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **options: Any) -> Any:
        """As TRL's; inside the loss, which reads the advantages afterwards, they become those at these log-probs."""
        output = super()._get_per_token_logps_and_entropies(*arguments, **options)
        if (inputs := self._in_loss) is not None:
            kept, log_probs, tokens = inputs["tool_mask"].bool(), output[0].detach(), int(inputs["mini_batch_tokens"])
            folded = self.method.folded_advantages(log_probs[kept], inputs["token_batch"], tokens)
            inputs["advantages"] = torch.zeros_like(log_probs).masked_scatter(kept, folded.to(log_probs.dtype))
        return output

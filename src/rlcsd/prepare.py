"""Prepare a run: build its method and task, and check all that is known before weights are loaded.

A run, its plan (`rlcsd train --dry-run`) and a `Trainer` made by hand all start with `prepare`, so that each of them
refuses the same configs in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import get_scheduler

from .config.load import build_method
from .config.schema import Config
from .engine.interface import TokenLimits, max_sequence
from .engine.local.model import context_length, load_tokenizer
from .errors import InputError, first_line
from .evaluation import EvaluationSettings
from .evaluation import check as check_evaluation
from .methods.base import HintedConfig, Method
from .prompts import student_prompt
from .records import Problem
from .stages.hint import solution_hint
from .tasks.registry import build_task
from .tasks.task import Task
from .verifiers import silent

Schedule = Callable[[int], float]
_WORTH_SAVING = 10  # steps of a run that one would not like to lose


@dataclass(frozen=True)
class Prepared:
    """All that a `Trainer` needs beside an engine.

    Attributes:
        config: the run's config, with numbers of steps in place of shares of the run.
        problems: the training problems whose prompt fits `max_prompt_tokens`.
        sizes: number of problems of each set of the task, `train` for those of `problems`.
        steps: number of training steps.
        schedule: the factor of `learning_rate` at each training step, from 1 to `steps`.
        warnings: what is allowed and rarely meant, a sentence each.
        tokenizer: the one that the prompts were checked with, or None.
    """

    config: Config
    method: Method
    task: Task
    problems: Sequence[Problem]
    sizes: Mapping[str, int]
    steps: int
    schedule: Schedule
    warnings: tuple[str, ...] = ()
    tokenizer: Any = None

    def check_prompts(self) -> list[tuple[int, ...]]:
        """Three of the run's prompts, of unequal length if possible, with which an engine checks its arithmetic."""
        if self.tokenizer is None:
            return []
        some = self.problems[:16]
        rendered = {tuple(training_prompt(self.tokenizer, self.task, self.config, problem)) for problem in some}
        ordered = sorted(rendered, key=lambda ids: (len(ids), ids))
        return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def prepare(
    config: Config,
    task: Task | None = None,
    *,
    tokenizer: Any = None,
    check_prompts: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> Prepared:
    """Build the method and the task of a run, and check what can be checked without weights.

    Args:
        task: replaces the config's task.
        tokenizer: replaces that of `model.path`.
        check_prompts: False leaves out what needs a tokenizer; then `problems` are all training problems.
        sizes: those of the run, where `task` holds fewer problems than it will have (`TaskParameters.preview`).

    Raises:
        MissingError: the task's data is not on this machine.
        InputError: the run could not make its first step, or not its first evaluation.
    """
    method = build_method(config)
    task = task if task is not None else build_task(config.task)
    _check_task(config, task, method)
    problems: Sequence[Problem] = task.train
    if check_prompts:
        tokenizer = tokenizer if tokenizer is not None else load_tokenizer(config.model)
        context = context_length(config.model)
        problems = fitting_problems(tokenizer, task, config, context)
        check_evaluation(tokenizer, task, EvaluationSettings.of(config), max_sequence(config, context), context)
    sizes = sizes or {"train": len(problems), **{name: len(found) for name, found in task.evaluations.items()}}
    steps = config.steps or max(1, config.epochs * sizes["train"] // config.prompts_per_step)
    config = with_whole_steps(config, steps)
    schedule = learning_rate_schedule(config, steps)
    return Prepared(config, method, task, problems, sizes, steps, schedule, too_late(config, steps), tokenizer)


def with_whole_steps(config: Config, steps: int) -> Config:
    """The config with numbers of steps in place of shares of the run: at least one step each."""

    def whole(value: int | float) -> int:
        return value if isinstance(value, int) else max(1, round(value * steps))

    evaluation = config.evaluation.model_copy(update={"every": whole(config.evaluation.every)})
    changed = {"warmup_steps": whole(config.warmup_steps), "save_every": whole(config.save_every)}
    return config.model_copy(update={**changed, "evaluation": evaluation})


def too_late(config: Config, steps: int) -> tuple[str, ...]:
    """A sentence for each thing that a run of so many steps plans for later than its end."""
    found = []
    if config.warmup_steps >= steps > 1:
        reached = "first reached at the end" if config.warmup_steps == steps else "never reached"
        found.append(
            f"warmup_steps={config.warmup_steps}: the warm-up covers all {steps} steps, so learning_rate="
            f"{config.learning_rate:g} is {reached}; "
            "a share of the run is warmup_steps=0.1"
        )
    if config.save_every >= steps >= _WORTH_SAVING:
        found.append(
            f"save_every={config.save_every}: no checkpoint comes before the end of {steps} steps, so a run that is "
            "killed begins anew; a share of the run is save_every=0.25"
        )
    return tuple(found)


def training_prompt(tokenizer: Any, task: Task, config: Config, problem: Problem) -> list[int]:
    """Token ids of the student's prompt for a training problem."""
    return student_prompt(tokenizer, problem, task.instruction, config.model.thinking_student)


def fitting_problems(tokenizer: Any, task: Task, config: Config, context: int) -> list[Problem]:
    """The training problems whose prompt has at most `max_prompt_tokens` tokens, in order.

    Raises:
        InputError: they are fewer than `prompts_per_step`, or the longest prompt and a response exceed the `context`
            length of the model.
    """
    limit, wanted = config.max_prompt_tokens, config.prompts_per_step
    # A text longer than `limit` times the longest token cannot fit; tokenizing megabytes to count them takes minutes.
    max_characters = limit * max(map(len, tokenizer.get_vocab()))
    short = [problem for problem in task.train if len(problem.text) <= max_characters]
    lengths = [len(training_prompt(tokenizer, task, config, problem)) for problem in short]
    fits = [problem for problem, length in zip(short, lengths, strict=True) if length <= limit]
    if not fits:
        shortest = f"; the shortest has {min(lengths)}" if lengths else ""
        raise InputError(f"max_prompt_tokens={limit}: every training prompt is longer{shortest}")
    if len(fits) < wanted:
        raise InputError(
            f"prompts_per_step={wanted}: there are only {len(fits)} training problems, and a pass over them must fill "
            f"a batch; use at most {len(fits)}, and a prompts_per_update that divides it"
        )
    longest = max(length for length in lengths if length <= limit)
    TokenLimits.of(config, context).check_context(longest, config.sampling.settings())
    return fits


def _check_task(config: Config, task: Task, method: Method) -> None:
    """Raise InputError if the task lacks what the method or early stopping needs: solutions, feedback, evaluations."""
    source = method.config.hint_source if isinstance(method.config, HintedConfig) else None
    if source == "gt_cot":
        for problem in task.train:
            solution_hint(problem)
    if source in ("answer_only", "answer_pair") and not all(problem.answer for problem in task.train):
        raise InputError(
            f"method.hint_source={source}: task={task.name} has problems without an answer; use a rollout source"
        )
    if source == "feedback" and silent(task.verifier):
        raise InputError(
            f"method.hint_source=feedback: the verifier of task={task.name} says no more than right or wrong; "
            "use one that returns rlcsd.Verdict(…, feedback=…)"
        )
    if config.evaluation.patience and not task.evaluations:
        raise InputError(
            f"evaluation.patience={config.evaluation.patience}: task={task.name} has no evaluation sets whose accuracy "
            "could stop the run"
        )


def learning_rate_schedule(config: Config, steps: int) -> Schedule:
    """The factor of `learning_rate` at training step `number`, from 1 to `steps`.

    Step `number` takes the schedule's value after `number` of `steps + 1` steps, so that neither the first step nor the
    last has a learning rate of 0. That value depends on nothing else: a resumed run has it without any state.

    Raises:
        InputError: an argument that the schedule does not take or lacks, or a warm-up that leaves no step to decay.
    """
    config = with_whole_steps(config, steps)
    name: str = config.lr_scheduler_type
    arguments = dict(config.lr_scheduler_kwargs)
    if name == "constant":
        if arguments:
            raise InputError(f"lr_scheduler_kwargs={arguments}: a constant learning rate takes no arguments")
        name = "constant_with_warmup"
    elif config.warmup_steps >= steps:
        raise InputError(
            f"warmup_steps={config.warmup_steps}: lr_scheduler_type={name} begins after the warm-up, and the run has "
            f"{steps} steps; lower it"
        )
    if name == "warmup_stable_decay":
        arguments = {"num_decay_steps": max(1, (steps - config.warmup_steps) // 5), **arguments}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    try:
        scheduler = get_scheduler(name, optimizer, config.warmup_steps, steps + 1, arguments)
        factor: Schedule = scheduler.lr_lambdas[0]
        values = [factor(number) for number in (1, steps)]
    except (TypeError, ValueError, AssertionError, ArithmeticError) as error:
        raise InputError(
            f"lr_scheduler_kwargs={arguments}: lr_scheduler_type={name} does not take them ({first_line(error)})"
        ) from None
    if not all(isinstance(value, float | int) and 0 <= value < float("inf") for value in values):
        raise InputError(
            f"lr_scheduler_kwargs={arguments}: lr_scheduler_type={name} would begin at {values[0]:g} and end at "
            f"{values[1]:g} times learning_rate"
        )
    return factor

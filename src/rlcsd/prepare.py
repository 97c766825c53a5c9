"""What a run works on, known before any weights are loaded: prompts, the number of steps, what would go wrong late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import get_scheduler

from .config.schema import Config
from .engine.interface import TokenLimits
from .errors import InputError, first_line
from .methods.base import HintedConfig, Method
from .prompts import student_prompt
from .records import Problem
from .stages.hint import solution_hint
from .tasks.task import Task
from .verifiers import silent


def training_prompt(tokenizer: Any, task: Task, config: Config, problem: Problem) -> list[int]:
    """Token ids of a training problem as the student sees it."""
    return student_prompt(tokenizer, problem, task.instruction, config.model.thinking_student)


def fitting_problems(tokenizer: Any, task: Task, config: Config, context: int) -> list[Problem]:
    """The training problems whose prompt fits `max_prompt_tokens`.

    Raises:
        InputError: they do not fill one batch, or the longest with a response exceeds the model's `context`.
    """
    most, wanted = config.max_prompt_tokens, config.prompts_per_step
    # A text that is longer than so many of the longest token needs no counting, which takes minutes for megabytes.
    longest = most * max(map(len, tokenizer.get_vocab()))
    short = [problem for problem in task.train if len(problem.text) <= longest]
    lengths = [len(training_prompt(tokenizer, task, config, problem)) for problem in short]
    fits = [problem for problem, length in zip(short, lengths, strict=True) if length <= most]
    if not fits:
        shortest = f"; the shortest has {min(lengths)}" if lengths else ""
        raise InputError(f"max_prompt_tokens={most}: every training prompt is longer{shortest}")
    if len(fits) < wanted:
        raise InputError(
            f"prompts_per_step={wanted}: there are only {len(fits)} training problems, and a batch holds none twice; "
            f"use at most {len(fits)}, and a prompts_per_update that divides it"
        )
    fitting = max(length for length in lengths if length <= most)
    TokenLimits.of(config, context).check_context(fitting, config.sampling.settings())
    return fits


def training_steps(config: Config, problems: int) -> int:
    """How many training steps a run on so many problems has."""
    return config.steps or max(1, config.epochs * problems // config.prompts_per_step)


def check_task(config: Config, task: Task, method: Method) -> None:
    """Raise InputError for what a run would notice only later: a problem without a solution, nothing to stop by."""
    source = method.config.hint_source if isinstance(method.config, HintedConfig) else None
    if source == "gt_cot":
        for problem in task.train:
            solution_hint(problem)
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


# ------------------------------------------------------------------ schedule
# The learning rate over a run: the schedules of transformers, as a function of the training step alone.

Schedule = Callable[[int], float]


def learning_rate_schedule(config: Config, steps: int) -> Schedule:
    """The factor of `learning_rate` at training step `number`, from 1 to `steps`.

    Step `number` takes the schedule's value after `number` of `steps + 1` steps, so that neither the first step nor the
    last has a learning rate of 0. That value depends on nothing else: a resumed run has it without any state.

    Raises:
        InputError: an argument that the schedule does not take or lacks, or a warm-up that leaves no step to decay.
    """
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

"""What a run works on, known before any weights are loaded: prompts, the number of steps, what would go wrong late."""

from __future__ import annotations

from typing import Any

from .config.schema import Config
from .errors import InputError
from .methods.base import HintedConfig, Method
from .prompts import student_prompt
from .records import Problem
from .stages.hint import solution_hint
from .tasks.base import Task
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
    _check_context(config, max(length for length in lengths if length <= most), context)
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


def _check_context(config: Config, longest: int, context: int) -> None:
    """Raise InputError if the longest prompt and a response exceed the model's context."""
    most = config.sampling.max_tokens
    if longest + most > context:
        raise InputError(
            f"sampling.max_tokens={most}: with a prompt of {longest} tokens the model's context of {context} is "
            f"exceeded; use at most {context - longest}"
        )

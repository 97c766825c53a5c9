"""The learning rate over a run: the schedules of transformers, as a function of the training step alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import get_scheduler

from .config.schema import Config
from .errors import InputError, first_line

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

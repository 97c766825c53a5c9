"""What a run would do, said before any weights are loaded."""

from __future__ import annotations

from ..config.load import build_method
from ..config.schema import Config
from ..engine.base import engine_line, memory_line
from ..engine.local.network import load_tokenizer
from ..errors import InputError
from ..tasks.base import Task
from ..tasks.build import build_task
from ..tasks.overlap import overlaps
from ..trainer import fitting_problems, training_steps


def plan(config: Config) -> str:
    """Steps, rollouts, memory, and the most tokens that the run can ask for. Raises InputError as the run would."""
    task = build_task(config.task)
    problems, left_out = _problems(config, task)
    steps = training_steps(config, problems)
    rollouts = config.prompts_per_step * config.group_size
    updates = config.prompts_per_step // config.prompts_per_update
    evaluations = ", ".join(f"{name} {len(problems)}" for name, problems in task.evaluations.items())
    lines = [
        f"task       {task.name}: {problems} training problems{left_out}; {evaluations}",
        f"steps      {steps}, each {config.prompts_per_step} prompts × {config.group_size} rollouts and "
        f"{updates} optimizer steps",
        f"tokens     at most {rollouts * config.sampling.max_tokens:,} sampled per step, "
        f"{steps * rollouts * config.sampling.max_tokens:,} in all",
        f"engine     {engine_line(config)}",
        f"memory     {memory_line(config, build_method(config))}",
    ]
    lines += [f"overlap    {overlap}" for overlap in overlaps(task.train, task.evaluations) if overlap.normalised]
    return "\n".join(lines)


def _problems(config: Config, task: Task) -> tuple[int, str]:
    """How many training problems the run will use, and a remark on the others."""
    try:
        tokenizer = load_tokenizer(config.model)
    except InputError:
        return len(task.train), f" (prompt lengths not checked: there is no tokenizer for {config.model.path} here)"
    fits = len(fitting_problems(tokenizer, task, config))
    left_out = len(task.train) - fits
    return fits, f" ({left_out} longer than max_prompt_tokens are left out)" if left_out else ""

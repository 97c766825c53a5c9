"""`rlcsd chat RUN`: ask the base model and the trained model of a run the same question."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config.load import build_method, changed, from_yaml
from ..config.schema import Config, LocalEngineConfig
from ..decoding import response_text
from ..engine.interface import Engine, build_engine
from ..errors import InputError
from ..methods import METHODS
from ..prompts import BOXED_INSTRUCTION, student_prompt
from ..records import Problem
from ..tasks.registry import build_task
from ..tasks.task import Task
from .checkpoint import checkpoint_of
from .folder import with_task_of_run


@dataclass(frozen=True)
class Answers:
    """The responses of both models, base first.

    `reference` is the answer of a problem of the task and `correct` the verdict on each response; both are None for a
    free question.
    """

    question: str
    names: tuple[str, str]
    texts: tuple[str, str]
    reference: str | None = None
    correct: tuple[bool, bool] | None = None

    def as_dict(self) -> dict[str, Any]:
        base, trained = (
            {"model": name, "response": text, **({"correct": self.correct[index]} if self.correct else {})}
            for index, (name, text) in enumerate(zip(self.names, self.texts, strict=True))
        )
        reference = {"reference": self.reference} if self.reference is not None else {}
        return {"question": self.question, **reference, "base": base, "trained": trained}

    def show(self, with_question: bool = False) -> None:
        """Print the responses, side by side on a terminal and one below the other elsewhere."""
        console = Console(highlight=False, force_jupyter=False)
        heads = [
            f"{name}{'' if self.correct is None else ', right' if self.correct[index] else ', wrong'}"
            for index, name in enumerate(self.names)
        ]
        if self.reference is not None:
            console.print(Text(f"{self.question}\nreference answer: {self.reference}\n"), soft_wrap=True)
        elif with_question:
            console.print(Text(f"? {self.question}\n"), soft_wrap=True)
        if console.is_terminal and not console.is_dumb_terminal:
            table = Table(expand=True)
            for head in heads:
                table.add_column(Text(head), ratio=1)
            table.add_row(*map(Text, self.texts))
            console.print(table)
            return
        for head, text in zip(heads, self.texts, strict=True):
            console.print(Text(f"--- {head}\n{text}\n"), soft_wrap=True)


class Chat:
    """Both models of a run, loaded. They sample as the run's evaluation does.

    Args:
        run: the folder of the run.
        overrides: changes to its config, such as `evaluation.sampling.temperature=0`.
        step: the step of the trained model's checkpoint, by default the newest.
        problem: a problem of the task, as `SET:INDEX`, that `ask` poses when it gets no question.
        task: the run's task, where it was given from Python and cannot be rebuilt from the folder.
        warn: told if the code of such a task has changed.

    Raises:
        InputError: there is no such run, checkpoint or problem, or an override is not valid.
    """

    def __init__(
        self,
        run: Path,
        overrides: Sequence[str] = (),
        step: int | None = None,
        problem: str | None = None,
        task: Task | None = None,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        checkpoint = checkpoint_of(run, step)
        config = changed(_plain(from_yaml(run / "config.yaml")), overrides)
        self.sampling, self.config = config.evaluation.sampling.settings(), config
        self.task: Task | None = None
        self.problem: Problem | None = None
        self.instruction = getattr(config.task, "instruction", None)
        self.system_prompt = getattr(config.task, "system_prompt", "")
        if problem is not None:
            config, task = with_task_of_run(run, config, task, warn)
            self.task = task if task is not None else build_task(config.task)
            self.problem = _problem(self.task, problem)
        # A checkpoint is a whole model, or an adapter of the base that the run began with.
        model = config.model.model_copy(update={"path": str(checkpoint), "gguf_file": None})
        trained = config.model_copy(update={"model": model})
        self.names = (f"base ({config.model.path})", f"trained ({checkpoint.name})")
        self.engines: tuple[Engine, Engine] = tuple(  # type: ignore[assignment]
            build_engine(one, build_method(one)) for one in (config, trained)
        )
        self.questions = 0

    def ask(self, question: str | None = None) -> Answers:
        """The responses of both models to a question, or to the chosen problem."""
        problem = self.problem if question is None and self.problem is not None else self._free_question(question or "")
        seed = random.Random(f"{self.config.seed}/chat/{self.questions}").getrandbits(62)
        self.questions += 1
        texts = (self._response(self.engines[0], problem, seed), self._response(self.engines[1], problem, seed))
        if self.problem is None or self.task is None:
            return Answers(problem.text, self.names, texts)
        ((base, trained),) = self.task.judge([self.problem], [texts])
        return Answers(problem.text, self.names, texts, self.problem.answer, (base.correct, trained.correct))

    def _free_question(self, question: str) -> Problem:
        """A problem without an answer, with the task's system message if it has one."""
        return Problem(question, "", history=(("system", self.system_prompt),) if self.system_prompt else ())

    def _response(self, engine: Engine, problem: Problem, seed: int) -> str:
        given = self.task.instruction if self.task is not None else self.instruction
        instruction = BOXED_INSTRUCTION if given is None else given
        prompt = student_prompt(engine.tokenizer, problem, instruction, self.config.model.thinking_eval)
        if len(prompt) + self.sampling.max_tokens > engine.context_length:
            raise InputError(
                f"evaluation.sampling.max_tokens={self.sampling.max_tokens}: with a question of {len(prompt)} tokens "
                f"the model's context of {engine.context_length} is exceeded"
            )
        (sample,) = engine.sample([prompt], 1, self.sampling, seed)[0]
        return response_text(engine.tokenizer, sample.ids)


def _plain(config: Config) -> Config:
    """The run's config for sampling alone, on one device: without teacher and reference, and without new adapters
    unless the base is in 4 bits."""
    engine = config.engine if config.engine.name == "local" else LocalEngineConfig()
    model = config.model if config.model.quantization else config.model.model_copy(update={"lora": None})
    return config.model_copy(
        update={
            "engine": engine,
            "model": model,
            "method": METHODS["grpo"].Config(name="grpo"),
            "kl_coefficient": 0.0,
            "push_to_hub": None,
        }
    )


def _problem(task: Task, given: str) -> Problem:
    """The problem named `SET:INDEX`."""
    name, _, number = given.rpartition(":")
    sets = task.evaluations
    if name not in sets:
        raise InputError(f"--problem {given}: reads SET:N; the sets are {', '.join(sets)}")
    if not number.isdigit() or int(number) >= len(sets[name]):
        raise InputError(f"--problem {given}: {name} has the problems 0 to {len(sets[name]) - 1}")
    return sets[name][int(number)]

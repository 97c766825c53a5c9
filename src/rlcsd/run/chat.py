"""`rlcsd chat RUN`: ask the base model and the trained model of a run the same question."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from ..prompts import student_prompt
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
    """The base and the trained model of a run, each loaded when it is first asked. They sample as in its evaluation.

    >>> import rlcsd
    >>> chat = rlcsd.chat("runs/mine", ["evaluation.sampling.max_tokens=8"])
    >>> answers = chat.ask("Who is a knave?")
    >>> [name.split()[0] for name in answers.names]
    ['base', 'trained']

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
        run: str | Path,
        overrides: Sequence[str] = (),
        step: int | None = None,
        problem: str | None = None,
        task: Task | None = None,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        run = Path(run)
        checkpoint = checkpoint_of(run, step)
        config = changed(_plain(from_yaml(run / "config.yaml")), overrides)
        self.sampling, self.config = config.evaluation.sampling.settings(), config
        self.task: Task | None = None
        self.problem: Problem | None = None
        instruction = getattr(config.task, "instruction", None)
        self.system_prompt = getattr(config.task, "system_prompt", "")
        if problem is not None or instruction is None:  # a task in a file says itself how it asks
            config, task = with_task_of_run(run, config, task, warn)
            self.task = task if task is not None else build_task(config.task)
            instruction, self.system_prompt = self.task.instruction, self.task.system_prompt
            self.problem = _problem(self.task, problem) if problem is not None else None
        self.instruction = str(instruction)
        # A checkpoint is a whole model, or an adapter of the base that the run began with.
        model = config.model.model_copy(update={"path": str(checkpoint), "gguf_file": None})
        self._trained_config = config.model_copy(update={"model": model})
        self.names = (f"base ({config.model.path})", f"trained ({checkpoint.name})")
        self.questions = 0

    @cached_property
    def base(self) -> Engine:
        """The model that the run began with."""
        return build_engine(self.config, build_method(self.config))

    @cached_property
    def trained(self) -> Engine:
        """The model of the checkpoint."""
        return build_engine(self._trained_config, build_method(self._trained_config))

    def ask(self, question: str | None = None) -> Answers:
        """The responses of both models to a question, or to the chosen problem."""
        problem = self.problem if question is None and self.problem is not None else self._free_question(question or "")
        seed = self._next_seed()
        texts = (self._responses(self.base, [problem], seed)[0], self._responses(self.trained, [problem], seed)[0])
        if problem is not self.problem or self.task is None:
            return Answers(problem.text, self.names, texts)
        ((base, trained),) = self.task.judge([problem], [texts])
        return Answers(problem.text, self.names, texts, problem.answer, (base.correct, trained.correct))

    def generate(self, questions: Sequence[str | Sequence[Mapping[str, Any]]]) -> list[str]:
        """A response of the trained model to each question, all sampled together.

        Args:
            questions: texts, or chats: lists of messages with role and content in which the user has the last word.

        Raises:
            InputError: something else than a text or a chat, or a question that leaves no room for a response.
        """
        if not isinstance(questions, Sequence) or isinstance(questions, str):
            raise InputError(f"generate: a question is a text or a chat, and several are a list, not {questions!r}")
        try:
            problems = [self._free_question(question) for question in questions]
        except ValueError as error:
            raise InputError(f"generate: {error}") from None
        return self._responses(self.trained, problems, self._next_seed())

    def _next_seed(self) -> int:
        self.questions += 1
        return random.Random(f"{self.config.seed}/chat/{self.questions - 1}").getrandbits(62)

    def _free_question(self, question: Any) -> Problem:
        """A problem without an answer, with the task's system message if it has none."""
        problem = Problem(question, "")
        if not self.system_prompt or any(role == "system" for role, _ in problem.history):
            return problem
        return replace(problem, history=(("system", self.system_prompt), *problem.history))

    def _responses(self, engine: Engine, problems: Sequence[Problem], seed: int) -> list[str]:
        thinking = self.config.model.thinking_eval
        prompts = [student_prompt(engine.tokenizer, problem, self.instruction, thinking) for problem in problems]
        longest = max(map(len, prompts), default=0)
        if longest + self.sampling.max_tokens > engine.context_length:
            raise InputError(
                f"evaluation.sampling.max_tokens={self.sampling.max_tokens}: with a question of {longest} tokens "
                f"the model's context of {engine.context_length} is exceeded"
            )
        samples = engine.sample(prompts, 1, self.sampling, seed)
        return [
            response_text(engine.tokenizer, sample.ids, prompt)
            for prompt, (sample,) in zip(prompts, samples, strict=True)
        ]


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

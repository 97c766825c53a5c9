"""Tasks by kind: the parameters that every task has, and from a config's `task` section to a `Task`.

Each kind of task stands in a module of its own with its parameters (a `TaskParameters`) and its builder, and registers
both here. `rlcsd.tasks` imports the modules of this package; experiments register theirs when they are
imported. A user's own task needs no registration: `task=path/to/file.py:name`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, suggestion, together
from ..plugins import described, load_attribute, load_experiments
from ..prompts import BOXED_INSTRUCTION
from ..validation import as_input_error
from ..verifiers import CONCURRENCY, Verifier, get, needs_answer
from .task import Problem, Reward, Task

if TYPE_CHECKING:  # the module needs torch, and tasks do not
    from ..metrics import Metrics

VERIFIER = "exact, math, knights_and_knaves, a registered name, or path/to/file.py:name"  # describes such fields


class RewardParameters(BaseModel):
    """One of several rewards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    verifier: str = Field(description="a name, path/to/file.py:name, or task for the task's own verifier")
    weight: float = Field(1.0, description="what its reward is multiplied by")
    name: str = Field("", description="its name in the log; by default the verifier's")
    decides: bool = Field(
        False, description="whether it decides what is correct; where none does, those of the largest weight do"
    )


class TaskParameters(BaseModel):
    """Parameters that every kind of task has; a kind derives from it and adds its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the task in tables and folders")
    kind: str = Field("", description="kind of the task, which decides what other keys it has; by default its name")
    instruction: str = Field(
        BOXED_INSTRUCTION, description="what follows the question unless the question itself asks for a box"
    )
    system_prompt: str = Field("", description="system message of problems that have none of their own")
    success: float | None = Field(
        None,
        description="where a number is returned: the least that is correct; null: 1, of a rubric what weighs most",
    )
    rewards: list[RewardParameters] | None = Field(
        None, description="several verifiers with weights, whose sum is the reward"
    )
    verifier_seconds: float | None = Field(
        60.0, gt=0, description="limit for judging one response; null: none, in the run's own process"
    )
    unfinished_thoughts: bool = Field(
        False, description="whether exact, math and knights_and_knaves take a box in a thought that never ends"
    )

    on_verifier_error: Literal["stop", "retry", "wrong"] = Field(
        "stop",
        description="a verifier that fails on a response ends the run, is asked up to five times more, or the response "
        "counts as wrong",
    )
    verifier_processes: int | None = Field(
        None, ge=1, description="processes that a verifier of your own runs in; null: up to 4"
    )
    verifier_concurrency: int = Field(
        CONCURRENCY, ge=1, description="responses that an async def verifier, or a batch, judges at a time"
    )

    def task(
        self,
        train: Sequence[Problem],
        evaluations: Mapping[str, Sequence[Problem]],
        verifier: Verifier | str,
        figures: Callable[[Problem, str], Metrics] | None = None,
        source: str = "",
        answer_of: Callable[[str], str | None] | None = None,
    ) -> Task:
        """A task of these problems, judged by `verifier`, or by `rewards` if there are any."""
        judge: Verifier | str | list[Reward] = verifier
        if self.rewards is not None:
            judge = [
                Reward(verifier if r.verifier == "task" else r.verifier, r.weight, r.name, r.decides)
                for r in self.rewards
            ]
        return Task(
            self.name,
            train,
            evaluations,
            judge,
            self.instruction,
            self.verifier_seconds,
            1.0 if self.success is None else self.success,
            self.system_prompt,
            figures,
            source,
            self.unfinished_thoughts,
            answer_of,
            self.on_verifier_error,
            self.verifier_processes,
            self.verifier_concurrency,
        )

    def preview(self, least: int) -> tuple[Self, dict[str, int]] | None:
        """A smaller version with `least` training problems or more, and the sizes of the sets that it stands for.

        For a plan, which need not make all problems of a task that draws them. None: the task has to be built.
        """
        return None

    def needs_answer(self, own: str) -> bool:
        """Whether a verifier compares with a reference answer; True where one is not there (see `check_verifiers`)."""
        try:
            return any(needs_answer(name) for name in self._verifier_names(own))
        except InputError:
            return True

    def _verifier_names(self, own: str) -> list[str]:
        rewards = [own if reward.verifier == "task" else reward.verifier for reward in self.rewards or ()]
        return list(dict.fromkeys(rewards or [own]))

    def check_verifiers(self, own: str) -> None:
        """Raise InputError for a verifier that is not there, before any data is read."""
        together(*(partial(get, name) for name in dict.fromkeys((own, *self._verifier_names(own)))))


class PythonTaskParameters(BaseModel):
    """A task from a user's Python file; what else stands in the section is for the function that builds it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(description="path/to/file.py:name of a rlcsd.Task, or of a function that returns one")
    kind: str = Field("", description="of no use here")


# ------------------------------------------------------------------ the registry

P = TypeVar("P", bound=BaseModel)
_kinds: dict[str, tuple[type[BaseModel], Callable[[Any], Task]]] = {}


def register(kind: str, parameters: type[P], builder: Callable[[P], Task]) -> None:
    """Make a kind of task known: `task.kind=<kind>` is checked against `parameters` and built by `builder`."""
    _kinds[kind] = (parameters, builder)


def task_parameters(values: Mapping[str, Any]) -> TaskParameters | PythonTaskParameters:
    """The checked parameters in a config's `task` section; `model_dump(exclude_unset=True)` gives the section back.

    Raises:
        InputError: an unknown kind, an unknown parameter, or a value that it cannot have.
    """
    name = str(values.get("name", ""))
    if ".py:" in name:
        return PythonTaskParameters(**values)
    parameters, _ = _kind(str(values.get("kind") or name))
    return _checked(parameters, values)


def build_task(task: Mapping[str, Any] | BaseModel) -> Task:
    """The task of a config's `task` section, or of its checked parameters.

    Raises:
        InputError: as `task_parameters`, or data that cannot be read.
    """
    parameters = task_parameters(task) if isinstance(task, Mapping) else task
    if isinstance(parameters, PythonTaskParameters):
        return _python_task(parameters)
    builders = [builder for schema, builder in _kinds.values() if schema is type(parameters)]
    if not builders:
        raise InputError("task: none is chosen; give task=NAME, or pass a rlcsd.Task to the run")
    return builders[0](parameters)


def _kind(kind: str) -> tuple[type[Any], Callable[[Any], Task]]:
    if kind not in _kinds:
        load_experiments()
    if kind not in _kinds:
        raise InputError(f"task.kind={kind}: {suggestion(kind, _kinds)}")
    return _kinds[kind]


def _checked(parameters: type[P], values: Mapping[str, Any]) -> P:
    try:
        return parameters(**values)
    except ValidationError as error:
        known = [f"task.{key}" for key in parameters.model_fields]
        rewards = values.get("rewards")
        for index in range(len(rewards) if isinstance(rewards, Sequence) else 0):
            known += [f"task.rewards.{index}.{key}" for key in RewardParameters.model_fields]
        raise as_input_error(error, "task.", known) from None


# ------------------------------------------------------------------ tasks in a user's file


def _python_task(parameters: PythonTaskParameters) -> Task:
    """A `Task` of a user's file, some of whose fields may be changed, or what a function there returns."""
    name, values = parameters.name, parameters.model_extra or {}
    attribute = load_attribute("task", name)
    if not isinstance(attribute, Task) and attribute is not None and callable(attribute):
        own, of_tasks = _arguments(attribute, values)
        try:
            attribute = attribute(**own)
        except InputError:
            raise
        except Exception as error:
            path = name.rpartition(":")[0]
            raise InputError(f"task={name}: it could not be built ({described(error, path)})") from None
        values = of_tasks
    if not isinstance(attribute, Task):
        raise InputError(f"task={name}: the file has no such rlcsd.Task, or function returning one")
    return changed_task(name, attribute, values) if values else attribute


def _arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values for a function that builds a task, and those of every task that it does not take itself."""
    taken = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    of_tasks = {} if anything else {key: values[key] for key in values if key in _CHANGEABLE and key not in taken}
    return {key: values[key] for key in values if key not in of_tasks}, of_tasks


_CHANGEABLE = (
    *("instruction", "system_prompt", "success", "verifier_seconds", "unfinished_thoughts"),
    *("on_verifier_error", "verifier_processes", "verifier_concurrency"),
)


def changed_task(name: str, task: Task, values: Mapping[str, Any]) -> Task:
    """The task with other values of what every task has, its data and its verifier aside.

    Raises:
        InputError: a value that cannot be, or a key that a finished task has no such value for.
    """
    known = _CHANGEABLE
    for key in values:
        if key not in known:
            raise InputError(
                f"task.{key}: task={name} is a finished rlcsd.Task, of which {', '.join(known)} can be changed; a "
                "function that returns a task takes any keys"
            )
    try:
        checked = TaskParameters(name=task.name, **values)
    except ValidationError as error:
        raise as_input_error(error, "task.", [f"task.{key}" for key in known]) from None
    return replace(task, **{key: getattr(checked, key) for key in values})

"""From the `task` part of a config to a `Task`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, together
from ..metrics import Metrics
from ..plugins import described, load_attribute, load_experiments
from ..prompts import BOXED_INSTRUCTION
from ..validation import as_input_error
from ..verifiers import Verifier, get
from . import environment
from . import reasoning_gym as rg
from .knights_and_knaves import FORMS, NAMES, Recipe, draw_problems
from .knights_and_knaves.puzzle_data import range_name
from .parquet_layout import is_published, read_layout, reads_published
from .tabular import Columns, read_problems
from .task import Problem, Reward, Task

VERIFIER = "exact, math, knights_and_knaves, a registered name, or path/to/file.py:name"


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
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(description="name of the task in tables and folders")
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

    def task(
        self,
        train: Sequence[Problem],
        evaluations: Mapping[str, Sequence[Problem]],
        verifier: Verifier | str,
        figures: Callable[[Problem, str], Metrics] | None = None,
        source: str = "",
    ) -> Task:
        """A task of these problems, judged by its own verifier or by `rewards`."""
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
        )

    def check_verifiers(self, own: str) -> None:
        """Raise InputError for a verifier that is not there, before any data is read."""
        names = dict.fromkeys((own, *(reward.verifier for reward in self.rewards or ())))
        together(*(partial(get, name) for name in names if name != "task"))


class KnightsAndKnavesParameters(TaskParameters):
    """Puzzles drawn on the spot; `unseen_sizes` are evaluated but never trained on."""

    train_sizes: list[int] = Field([3], min_length=1, description="people per puzzle in the training set")
    unseen_sizes: list[int] = Field(
        [], description="people per puzzle in an evaluation set of sizes that are never trained on"
    )
    train_per_size: int = Field(512, ge=1, description="training puzzles of each size")
    eval_per_size: int = Field(100, ge=1, description="evaluation puzzles of each size")
    eval_split: Literal["val", "test"] = Field("val", description="split that evaluation puzzles are drawn from")
    forms: list[str] = Field(list(FORMS), description="forms of statements: " + ", ".join(FORMS))
    people: int = Field(len(NAMES), ge=2, le=len(NAMES), description="how many of the names are used")
    wording: Literal["varied", "plain"] = Field("varied", description="several ways to put a statement, or one")
    seed: int = Field(0, ge=0, description="seed of the puzzles")
    processes: int = Field(1, ge=1, description="processes that draw puzzles")
    published: str | None = Field(
        None, description="folder of data sets: where the authors' own puzzles of these sizes are there, they are used"
    )


class FileParameters(TaskParameters):
    """A user's own data: jsonl, csv, parquet or a data set on the hub, with the columns that hold each field."""

    train: str = Field(description="training problems: a jsonl, csv or parquet file, or hub:owner/name")
    evaluations: dict[str, str] = Field({}, description="name and source of each evaluation set")
    verifier: str = Field("exact", description=VERIFIER)
    question: str = Field("question", description="column of the question")
    answer: str = Field("answer", description="column of the answer")
    solution: str | None = Field(None, description="column of the worked solution")
    group: str | None = Field(None, description="column of the kind of problem, for tables")


class VerlParameters(TaskParameters):
    """Data in the published parquet layout under `root`; each data source of `evaluation` is a set of its own."""

    root: str = Field("data/verl", description="folder of the data sets")
    train: str = Field(description="name of the training data set below root")
    evaluation: str | None = Field(None, description="name of the evaluation data set below root, sets joined with +")
    verifier: str = Field("math", description=VERIFIER)


class ReasoningGymParameters(TaskParameters):
    """Problems of the reasoning-gym package, drawn on the spot; `parameters` set their difficulty."""

    dataset: str | list[str] = Field(description="a data set of reasoning-gym, such as countdown, or several")
    parameters: dict[str, Any] = Field(
        {}, description="parameters of the data set's own config; with several data sets, a mapping of each one's name"
    )
    train_size: int = Field(2048, ge=1, le=100_000, description="training problems")
    eval_size: int = Field(100, ge=1, le=100_000, description="evaluation problems")
    seed: int = Field(0, ge=0, lt=128, description="seed of the problems; those of evaluation come from other seeds")
    verifier_seconds: float | None = Field(
        10.0, gt=0, description="limit for scoring one response, which is wrong then; null: none, in the run's process"
    )


class EnvironmentParameters(TaskParameters):
    """A single-turn environment, or a taskset, of the verifiers package."""

    environment: str = Field(description="name of an installed environment or taskset")
    arguments: dict[str, Any] = Field({}, description="arguments that the environment is loaded with")
    train_size: int = Field(100_000, ge=1, description="most training problems")
    eval_size: int = Field(100, ge=1, description="most evaluation problems")
    instruction: str = Field("", description="what follows the question; environments say themselves how to answer")


def from_environment(p: EnvironmentParameters) -> Task:
    verifier: Verifier
    if environment.has_classic_environments():
        loaded = environment.load_environment(p.environment, p.arguments)
        train, held_out = environment.environment_problems(loaded, p.train_size, p.eval_size)
        verifier = environment.RubricVerifier(loaded, p.success)
    else:
        tasks = environment.load_taskset(p.environment, p.arguments, p.train_size + p.eval_size)
        train, held_out = environment.parted(environment.taskset_problems(p.environment, tasks), p.eval_size)
        verifier = environment.TasksetVerifier(p.environment, tasks, p.success)
    return p.task(train, {"held_out": held_out} if held_out else {}, verifier)


def reasoning_gym(p: ReasoningGymParameters) -> Task:
    names = [p.dataset] if isinstance(p.dataset, str) else list(dict.fromkeys(p.dataset))
    if not names:
        raise InputError("task.dataset=[]: at least one data set is needed, for example countdown")
    given = {names[0]: p.parameters} if isinstance(p.dataset, str) else p.parameters
    for name, values in given.items():
        if name not in names or not isinstance(values, dict):
            raise InputError(f"task.parameters.{name}: with several data sets, parameters read {{{names[0]}: {{…}}}}")
    parameters = {name: given.get(name, {}) for name in names}
    scorer = rg.Scorer(rg.build_datasets(parameters))
    train = rg.draw(parameters, p.train_size, 2 * p.seed * rg.RANGE)
    asked = {problem.question for problem in train}
    held_out = rg.draw(parameters, p.eval_size, (2 * p.seed + 1) * rg.RANGE, asked)
    return p.task(train, {"fresh": held_out}, scorer)


def knights_and_knaves(p: KnightsAndKnavesParameters) -> Task:
    name = range_name(p.train_sizes)
    if p.published is not None and is_published(Path(p.published) / name):
        sets = "+".join([f"{name}_test", *(range_name([size]) for size in p.unseen_sizes)])
        source = _source(p.published, name, sets)
        return p.task(*_layout(p.published, name, sets), "knights_and_knaves", source=source)
    recipe = Recipe(tuple(p.forms), NAMES[: p.people], p.wording)
    overlap = sorted(set(p.train_sizes) & set(p.unseen_sizes))
    if overlap:
        raise InputError(f"task.unseen_sizes={p.unseen_sizes}: {overlap[0]} is a training size as well")
    for size in (*p.train_sizes, *p.unseen_sizes):
        if not 2 <= size <= p.people:
            raise InputError(f"task: a puzzle of {size} people needs a size from 2 to people={p.people}")
    evaluations = {
        "seen_sizes": draw_problems(p.train_sizes, p.eval_per_size, p.eval_split, recipe, p.seed, p.processes)
    }
    if p.unseen_sizes:
        evaluations["unseen_sizes"] = draw_problems(
            p.unseen_sizes, p.eval_per_size, p.eval_split, recipe, p.seed, p.processes
        )
    train = draw_problems(p.train_sizes, p.train_per_size, "train", recipe, p.seed, p.processes)
    return p.task(train, evaluations, "knights_and_knaves")


def from_files(p: FileParameters) -> Task:
    columns = Columns(p.question, p.answer, p.solution, p.group)
    _, train, *held_out = together(
        lambda: p.check_verifiers(p.verifier),
        lambda: read_problems("task.train", p.train, columns),
        *(partial(read_problems, f"task.evaluations.{n}", path, columns) for n, path in p.evaluations.items()),
    )
    return p.task(train, dict(zip(p.evaluations, held_out, strict=True)), p.verifier)


def from_verl(p: VerlParameters) -> Task:
    _, (train, evaluations) = together(
        lambda: p.check_verifiers(p.verifier), lambda: _layout(p.root, p.train, p.evaluation)
    )
    return p.task(train, evaluations, p.verifier, source=_source(p.root, p.train, p.evaluation))


def _source(root: str, train: str, evaluation: str | None) -> str:
    """Which files are the authors', if any are."""
    theirs = {"training": reads_published(root, train, "train")}
    if evaluation:
        theirs["evaluation"] = reads_published(root, evaluation, "val")
    if all(theirs.values()):
        return f"the authors' files in {root}"
    some = [what for what, is_theirs in theirs.items() if is_theirs]
    return f"the authors' files in {root} for {some[0]}, our own build for the rest" if some else ""


def _layout(root: str, train: str, evaluation: str | None) -> tuple[list[Problem], dict[str, list[Problem]]]:
    by_source, evaluations = together(
        lambda: read_layout("task.train", root, train, "train"),
        lambda: read_layout("task.evaluation", root, evaluation, "val") if evaluation else {},
    )
    return [problem for problems in by_source.values() for problem in problems], evaluations


def _plugin(name: str, parameters: Mapping[str, Any]) -> Task:
    """`path/to/file.py:name`: a `Task`, some of whose fields may be changed, or a function that returns one."""
    attribute = load_attribute("task", name)
    if isinstance(attribute, Task) and parameters:
        return _changed(name, attribute, parameters)
    if attribute is not None and not isinstance(attribute, Task) and callable(attribute):
        try:
            attribute = attribute(**parameters)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"task={name}: it could not be built ({described(error, name.rpartition(':')[0])})"
            ) from None
    if not isinstance(attribute, Task):
        raise InputError(f"task={name}: the file has no such rlcsd.Task, or function returning one")
    return attribute


def _changed(name: str, task: Task, parameters: Mapping[str, Any]) -> Task:
    """The task with other values of what every task has, its data and its verifier aside."""
    known = ("instruction", "system_prompt", "success", "verifier_seconds")
    for key in parameters:
        if key not in known:
            raise InputError(
                f"task.{key}: task={name} is a finished rlcsd.Task, of which {', '.join(known)} can be changed; a "
                "function that returns a task takes any keys"
            )
    try:
        checked = TaskParameters(name=task.name, **parameters)
    except ValidationError as error:
        raise as_input_error(error, "task.", [f"task.{key}" for key in known]) from None
    return replace(task, **{key: getattr(checked, key) for key in parameters})


_BUILDERS: dict[str, tuple[type[TaskParameters], Callable[[Any], Task]]] = {
    "knights_and_knaves": (KnightsAndKnavesParameters, knights_and_knaves),
    "files": (FileParameters, from_files),
    "verl": (VerlParameters, from_verl),
    "environment": (EnvironmentParameters, from_environment),
    "reasoning_gym": (ReasoningGymParameters, reasoning_gym),
}


def register(kind: str, parameters: type[TaskParameters], builder: Callable[[Any], Task]) -> None:
    """Make a kind of task known: `task.kind=<kind>` is checked against `parameters` and built by `builder`."""
    _BUILDERS[kind] = (parameters, builder)


def _parameters(values: Mapping[str, Any]) -> tuple[TaskParameters, Callable[[Any], Task]]:
    kind = str(values.get("kind", values.get("name", "")))
    if kind not in _BUILDERS:
        load_experiments()
    if kind not in _BUILDERS:
        close = difflib.get_close_matches(kind, _BUILDERS, n=1)
        raise InputError(
            f"task.kind={kind}: " + (f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_BUILDERS)}")
        )
    schema, builder = _BUILDERS[kind]
    try:
        return schema(**{key: value for key, value in values.items() if key != "kind"}), builder
    except ValidationError as error:
        known = [f"task.{key}" for key in schema.model_fields]
        for place, _ in enumerate(values.get("rewards") or ()):
            known += [f"task.rewards.{place}.{key}" for key in RewardParameters.model_fields]
        raise as_input_error(error, "task.", known) from None


def task_parameters(values: Mapping[str, Any]) -> TaskParameters | None:
    """The checked parameters that a config's `task` mapping describes; None for a task from a user's file.

    Raises:
        InputError: unknown name or parameter.
    """
    return None if ".py:" in str(values.get("name", "")) else _parameters(values)[0]


def build_task(values: Mapping[str, Any]) -> Task:
    """The task that a config's `task` mapping describes.

    Raises:
        InputError: unknown name or parameter, or data that cannot be read.
    """
    name = str(values.get("name", ""))
    if ".py:" in name:
        return _plugin(name, {key: value for key, value in values.items() if key not in ("name", "kind")})
    parameters, builder = _parameters(values)
    return builder(parameters)

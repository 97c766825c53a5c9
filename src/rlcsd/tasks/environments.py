"""Single-turn environments of the `verifiers` package as tasks: their data and their rewards.

Before release 0.4 the package has environments with a data set and a rubric; from 0.4 on it has tasksets, whose tasks
have rewards of their own. `task=environment` takes whichever the installed release has.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from pydantic import Field

from ..errors import InputError, MissingError, first_line
from ..records import Problem, Verdict, conversation
from ..verifiers import Verifier
from .registry import TaskParameters, register
from .task import Task

_ROUNDING = 1e-6  # what rounding may take from full marks
_NO_ANSWER = "any answer that the rubric accepts"  # rubrics and tasksets judge by code, often without an answer


class EnvironmentParameters(TaskParameters):
    """A single-turn environment, or a taskset, of the verifiers package."""

    environment: str = Field(description="name of an installed environment or taskset")
    arguments: dict[str, Any] = Field({}, description="arguments that the environment is loaded with")
    train_size: int = Field(100_000, ge=1, description="most training problems")
    eval_size: int = Field(100, ge=1, description="most evaluation problems")
    instruction: str = Field("", description="what follows the question; environments say themselves how to answer")


def from_environment(p: EnvironmentParameters) -> Task:
    """Load the environment or taskset.

    Raises:
        InputError: it is not installed, cannot be loaded, or needs more than one response without tools.
    """
    verifier: Verifier
    if has_classic_environments():
        environment = load_environment(p.environment, p.arguments)
        train, held_out = environment_problems(environment, p.train_size, p.eval_size)
        verifier = RubricVerifier(environment, p.success)
    else:
        tasks = load_taskset(p.environment, p.arguments, p.train_size + p.eval_size)
        train, held_out = parted(taskset_problems(p.environment, tasks), p.eval_size)
        verifier = TasksetVerifier(p.environment, tasks, p.success)
    return p.task(train, {"held_out": held_out} if held_out else {}, verifier)


register("environment", EnvironmentParameters, from_environment)


def is_correct(reward: float, success: float | None, weights: Mapping[str, float], parts: Mapping[str, float]) -> bool:
    """Whether the reward is at least `success`; None: whether the functions of the largest weight all give 1, or, where
    no weight is positive, the reward."""
    largest = max(weights.values(), default=0.0)
    if success is not None or largest <= 0:
        return reward >= (1.0 if success is None else success) - _ROUNDING
    return all(parts.get(name, 0.0) >= 1 - _ROUNDING for name, weight in weights.items() if weight == largest)


def _conversation(where: str, prompt: Any, system: str | None = None) -> tuple[tuple[tuple[str, str], ...], str]:
    """(history, question) of a prompt, which is a text or a list of messages."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        return conversation([{"role": "system", "content": system}, *(messages or [])] if system else messages)
    except ValueError as error:
        raise InputError(f"{where}: its prompt is no chat ({error})") from None


# ------------------------------------------------------------------ environments with a rubric, before 0.4


class RubricVerifier:
    """An environment's rubric: the reward is its weighted sum, and the parts are its functions' own figures.

    Correct is a reward of at least `success`; None: the functions of the largest weight all give 1, so that a right
    answer stays right without the marks for its form. The feedback is that of the rubric's judge.
    """

    reads_boxes = False

    def __init__(self, environment: Any, success: float | None = None) -> None:
        self.environment, self.success = environment, success
        self.__name__ = str(getattr(environment, "env_id", "") or "rubric")

    def __call__(self, response: str, problem: Problem) -> Verdict:
        state = self._state(response, problem.extra)
        asyncio.run(self.environment.rubric.score_rollout(state))
        reward, metrics = float(state["reward"] or 0.0), state["metrics"] or {}
        parts = {name: float(value) for name, value in metrics.items() if value is not None}
        words = state.get("judge_response")  # of a rubric that asks a model: its replies by prompt
        said = "\n".join(map(str, words.values())) if isinstance(words, Mapping) else None
        return Verdict(
            is_correct(reward, self.success, weights_of(self.environment.rubric), parts), reward, parts, said
        )

    def _state(self, response: str, row: Mapping[str, Any]) -> Any:
        """The state of a rollout that ended after one turn, as the environment itself would have made it."""
        from verifiers.types import RolloutTiming, State
        from verifiers.utils.message_utils import normalize_messages

        row = dict(row)
        if isinstance(row.get("info"), str):
            row["info"] = json.loads(row["info"])
        row["prompt"] = normalize_messages(row["prompt"])
        state = State(input=row)
        state["task"] = row
        state["completion"] = normalize_messages([{"role": "assistant", "content": response}])
        state.update(is_completed=True, is_truncated=False, error=None, trajectory=[], tool_defs=[])
        state.update(reward=None, metrics=None, timing=RolloutTiming())
        return state


def weights_of(rubric: Any) -> dict[str, float]:
    """The weight of each function of a rubric, or of the rubrics of a group, by its name."""
    inner = getattr(rubric, "rubrics", None)
    if inner:
        return {name: weight for one in inner for name, weight in weights_of(one).items()}
    functions = getattr(rubric, "funcs", [])
    return {
        getattr(f, "__name__", ""): float(w) for f, w in zip(functions, getattr(rubric, "weights", []), strict=False)
    }


def has_classic_environments() -> bool:
    """Whether the installed release of verifiers has environments with a rubric. From 0.4 on it has tasksets alone.

    Raises:
        MissingError: the package is not installed.
    """
    if find_spec("verifiers") is None:
        raise MissingError("task=environment: it needs pip install 'rlcsd[environments]'")
    try:
        from verifiers import SingleTurnEnv
    except ImportError:
        return False
    return SingleTurnEnv is not None


def load_environment(name: str, arguments: Mapping[str, Any]) -> Any:
    """The environment `name` with its arguments.

    Raises:
        InputError: it is not installed, or has more than one turn.
    """
    import verifiers
    from verifiers import SingleTurnEnv

    try:
        environment = verifiers.load_environment(name, **arguments)
    except Exception as error:  # an environment is a program of its own
        raise InputError(f"task.environment={name}: it could not be loaded ({first_line(error)})") from None
    if not isinstance(environment, SingleTurnEnv) or getattr(environment, "tool_defs", None):
        kind = type(environment).__name__
        raise InputError(f"task.environment={name}: only environments of one turn without tools, not a {kind}")
    if getattr(environment.rubric, "has_group_rewards", False):
        raise InputError(f"task.environment={name}: its rubric compares responses with each other, not one by one")
    return environment


def environment_problems(environment: Any, train_size: int, eval_size: int) -> tuple[list[Problem], list[Problem]]:
    """Training and evaluation problems: rows of the environment's two data sets, up to a number.

    Where it has one alone, the last rows of that are held out.

    Raises:
        InputError: a row whose prompt is no chat in which the user has the last word, or no row to train on.
    """
    train, held_out = _rows(environment, "dataset"), _rows(environment, "eval_dataset")
    if not train and held_out:
        train, held_out = held_out, []
    if not held_out:
        train, held_out = parted(train, eval_size)
    if not train:
        raise InputError("task.environment: it has no rows to train on")
    return _problems("train", train[:train_size]), _problems("evaluation", held_out[:eval_size])


def parted(rows: Sequence[Any], eval_size: int) -> tuple[list[Any], list[Any]]:
    """All but the last rows, and those: `eval_size` of them, but at most half."""
    first = len(rows) - min(eval_size, len(rows) // 2)
    return list(rows[:first]), list(rows[first:])


def _rows(environment: Any, name: str) -> list[Mapping[str, Any]]:
    if hasattr(environment, f"build_{name}"):  # releases since 0.1.10 build them when they are asked for
        getattr(environment, f"build_{name}")()
    rows = getattr(environment, name, None)
    return [] if rows is None else rows.to_list()


def _problems(split: str, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    return [_problem(f"task.environment: row {index} of {split}", row) for index, row in enumerate(rows)]


def _problem(where: str, row: Mapping[str, Any]) -> Problem:
    history, question = _conversation(where, row.get("prompt"))
    answer = str(row.get("answer") or "").strip() or _NO_ANSWER
    kind = row.get("task")
    group = kind if isinstance(kind, str) and kind != "default" else ""
    return Problem(question, answer, None, group, row, history)


# ------------------------------------------------------------------ tasksets, from 0.4 on


def load_taskset(name: str, arguments: Mapping[str, Any], most: int) -> list[Any]:
    """The first `most` tasks of the taskset `name`; `arguments` are fields of its config.

    Raises:
        InputError: it is not installed or cannot be loaded, or its tasks need tools or a machine to run in.
    """
    try:
        from verifiers.v1.configs.taskset import TasksetConfig
        from verifiers.v1.utils.generic import concrete_type
        from verifiers.v1.utils.loaders import taskset_class

        kind = taskset_class(name)
        config = concrete_type(kind, TasksetConfig) or TasksetConfig
        taskset = kind(config.model_validate({**arguments, "id": name}))
        tasks = list(itertools.islice(taskset, most))
    except Exception as error:  # a taskset is a program of its own
        raise InputError(f"task.environment={name}: it could not be loaded ({first_line(error)})") from None
    if not tasks:
        raise InputError(f"task.environment={name}: it has no tasks")
    _check_taskset(name, tasks[0])
    return tasks


def _check_taskset(name: str, task: Any) -> None:
    needs = [hook.__name__ for hook in (*task.hooks("reward"), *task.hooks("metric")) if _needs_runtime(hook)]
    if task.NEEDS_CONTAINER or type(task).toolsets(task.config) or needs:
        what = f"its {needs[0]} runs a program" if needs else "it has tools, or needs a container"
        raise InputError(f"task.environment={name}: only tasks that one response answers can be used; {what}")
    if not task.hooks("reward") and not task.plugged_judges():
        raise InputError(f"task.environment={name}: its tasks have no reward")


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def taskset_problems(name: str, tasks: Sequence[Any]) -> list[Problem]:
    """The tasks as problems; `extra["taskset_index"]` says which task a problem is.

    Raises:
        InputError: a prompt is no chat in which the user has the last word.
    """
    made = []
    for index, task in enumerate(tasks):
        prompt = task.data.prompt
        if not isinstance(prompt, str):
            prompt = [m if isinstance(m, dict) else m.model_dump(exclude_none=True) for m in prompt or []]
        where = f"task.environment={name}: task {index}"
        history, question = _conversation(where, prompt, task.data.system_prompt)
        fields = task.data.model_dump(mode="json", exclude_none=True)
        answer = str(fields.get("answer", "")).strip() or _NO_ANSWER
        made.append(Problem(question, answer, None, "", {**fields, "taskset_index": index}, history))
    return made


class TasksetVerifier:
    """The tasks' own rewards: their weighted sum, each a part. Correct is a reward of at least `success`; None: those
    of the largest weight are all 1."""

    reads_boxes = False

    def __init__(self, name: str, tasks: Sequence[Any], success: float | None = None) -> None:
        self.__name__, self.tasks, self.success = name, tasks, success

    def __call__(self, response: str, problem: Problem) -> Verdict:
        task = self.tasks[problem.extra["taskset_index"]]
        trace = _trace(task, response)
        asyncio.run(task.score(trace))
        rewards = {name: reward for name, reward in trace.rewards.items() if reward is not None}
        parts = {name: float(value) for name, value in trace.metrics.items() if value is not None}
        scores = {name: float(reward.score) for name, reward in rewards.items()}
        weights, total = {name: reward.weight for name, reward in rewards.items()}, float(trace.reward)
        return Verdict(is_correct(total, self.success, weights, scores), total, parts | scores)


def _trace(task: Any, response: str) -> Any:
    """The record of a rollout of one turn, as the package's own runner would have made it."""
    from verifiers.v1 import AgentInfo, AssistantMessage, MessageNode, Trace, TraceTask, UserMessage
    from verifiers.v1.configs.agent import AgentConfig

    prompt = [UserMessage(content=task.data.prompt)] if isinstance(task.data.prompt, str) else task.data.prompt or []
    nodes = [MessageNode(parent=index - 1 if index else None, message=message) for index, message in enumerate(prompt)]
    answer = AssistantMessage(content=response)
    nodes.append(MessageNode(parent=len(nodes) - 1 if nodes else None, message=answer, sampled=True))
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, agent=AgentInfo(config=AgentConfig()), nodes=nodes, is_completed=True, ok=True)

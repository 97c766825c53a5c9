"""Tasksets, which is what environments are called from release 0.4 of the `verifiers` package on: tasks with their own
rewards. Those that a single response answers are tasks here."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, first_line
from ..records import Problem, Verdict, conversation
from .environment import is_correct

_NO_ANSWER = "any answer that the task accepts"  # tasks judge by code; an answer is a field that some have


def load(name: str, arguments: Mapping[str, Any], most: int) -> list[Any]:
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
    _check(name, tasks[0])
    return tasks


def _check(name: str, task: Any) -> None:
    needs = [hook.__name__ for hook in (*task.hooks("reward"), *task.hooks("metric")) if _needs_runtime(hook)]
    if task.NEEDS_CONTAINER or type(task).toolsets(task.config) or needs:
        what = f"its {needs[0]} runs a program" if needs else "it has tools, or needs a container"
        raise InputError(f"task.environment={name}: only tasks that one response answers can be used; {what}")
    if not task.hooks("reward") and not task.plugged_judges():
        raise InputError(f"task.environment={name}: its tasks have no reward")


def _needs_runtime(hook: Any) -> bool:
    parameter = inspect.signature(hook).parameters.get("runtime")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def problems(name: str, tasks: Sequence[Any]) -> list[Problem]:
    """The tasks as problems; `extra["place"]` says which task a problem is.

    Raises:
        InputError: a prompt is no chat in which the user has the last word.
    """
    made = []
    for place, task in enumerate(tasks):
        data = task.data
        system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
        prompt = [{"role": "user", "content": data.prompt}] if isinstance(data.prompt, str) else data.prompt or []
        plain = [m if isinstance(m, dict) else m.model_dump(exclude_none=True) for m in prompt]
        try:
            history, question = conversation([*system, *plain])
        except ValueError as error:
            raise InputError(f"task.environment={name}: task {place}: its prompt is no chat ({error})") from None
        fields = data.model_dump(mode="json", exclude_none=True)
        answer = str(fields.get("answer", "")).strip() or _NO_ANSWER
        made.append(Problem(question, answer, None, "", {**fields, "place": place}, history))
    return made


class TasksetVerifier:
    """The tasks' own rewards: their weighted sum, each a part. Correct is a reward of at least `success`; None: those
    of the largest weight are all 1."""

    def __init__(self, name: str, tasks: Sequence[Any], success: float | None = None) -> None:
        self.__name__, self.tasks, self.success = name, tasks, success

    def __call__(self, response: str, problem: Problem) -> Verdict:
        task = self.tasks[problem.extra["place"]]
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
    nodes = [MessageNode(parent=place - 1 if place else None, message=message) for place, message in enumerate(prompt)]
    answer = AssistantMessage(content=response)
    nodes.append(MessageNode(parent=len(nodes) - 1 if nodes else None, message=answer, sampled=True))
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, agent=AgentInfo(config=AgentConfig()), nodes=nodes, is_completed=True, ok=True)

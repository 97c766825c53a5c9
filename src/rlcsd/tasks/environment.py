"""Single-turn environments of the `verifiers` package: their data sets as problems, their rubrics as the verifier."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import InputError, MissingError, first_line
from ..records import Problem, Verdict, conversation

_NEARLY = 1e-6  # what rounding may take from full marks
_NO_ANSWER = "any answer that the rubric accepts"  # a rubric may judge without a reference answer


class RubricVerifier:
    """An environment's rubric: the reward is its weighted sum, and the parts are its functions' own figures.

    Correct is a reward of at least `success`; None: the functions of the largest weight all give 1, so that a right
    answer stays right without the marks for its form. The feedback is what a judge of the rubric said.
    """

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


def is_correct(reward: float, success: float | None, weights: Mapping[str, float], parts: Mapping[str, float]) -> bool:
    """Is the reward at least `success`? None: do the functions of the largest weight all give 1, or, where no weight is
    positive, the reward?"""
    largest = max(weights.values(), default=0.0)
    if success is not None or largest <= 0:
        return reward >= (1.0 if success is None else success) - _NEARLY
    return all(parts.get(name, 0.0) >= 1 - _NEARLY for name, weight in weights.items() if weight == largest)


def has_classic_environments() -> bool:
    """Does the installed release of verifiers have environments with a rubric? From 0.4 on it has tasksets alone.

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


def load(name: str, arguments: Mapping[str, Any]) -> Any:
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


def problems(environment: Any, train_size: int, eval_size: int) -> tuple[list[Problem], list[Problem]]:
    """Training and evaluation problems: at most so many rows of the environment's two data sets.

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
    return [_problem(f"task.environment: row {place} of {split}", row) for place, row in enumerate(rows)]


def _problem(where: str, row: Mapping[str, Any]) -> Problem:
    prompt = row.get("prompt")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        history, question = conversation(messages)
    except ValueError as error:
        raise InputError(f"{where}: its prompt is no chat ({error})") from None
    answer = str(row.get("answer") or "").strip() or _NO_ANSWER
    kind = row.get("task")
    group = kind if isinstance(kind, str) and kind != "default" else ""
    return Problem(question, answer, None, group, row, history)

"""A task that a program gave to a run: its record in the run's config, and its copy in the run's folder.

The copy is `RUN/task/`: `train.jsonl` and `evaluations.jsonl` hold the problems, `task.json` a reference to the
verifier. So a run can be resumed, evaluated and asked from its folder alone, as far as its code can be imported again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ..errors import InputError
from ..records import Problem
from ..storage import read_jsonl, whole_folder
from ..verifiers import as_given, described_reference, from_reference, reference_of
from ..verifiers.reference import NotImportableError, reference_to, referred
from ..verifiers.rewards import name_of
from .registry import TaskParameters, register
from .task import Task

_FOLDER, _FACTS, _TRAIN, _EVALUATIONS = "task", "task.json", "train.jsonl", "evaluations.jsonl"
AGAIN = "rlcsd.evaluate(RUN, task=…), or rlcsd.train(resume=RUN, task=…)"


class GivenTaskParameters(TaskParameters):
    """A task that is given from Python: `rlcsd.train(…, task=Task(…))`. What a run records of it."""

    kind: str = Field("own", description="kind of the task")
    origin: str = Field("given from Python", description="where the task is from")
    data: str = Field("", description="SHA-256 of its problems, which the run keeps in its folder")
    verifier: str = Field("", description="its verifier, for a reader")

    @property
    def is_recorded(self) -> bool:
        """Whether this is the record of a task, and not the wish for one (`task=own`)."""
        return bool(self.data)


def _build(parameters: GivenTaskParameters) -> Task:
    raise InputError(
        f"task={parameters.name}: it is given from Python, rlcsd.train(…, task=rlcsd.Task(…)); data in files is "
        "task=files, and a task in a file task=path/to/file.py:name"
    )


register("own", GivenTaskParameters, _build)

_CODE = ("figures", "answer_of")  # functions of a task beside its verifier
_OPTIONS = tuple(
    name for name in TaskParameters.model_fields if name in {field.name for field in dataclasses.fields(Task)}
)  # what a task and its record have in common


def record(task: Task) -> GivenTaskParameters:
    """What the config of a run says of a task that it was given."""
    try:
        verifier = described_reference(reference_of(task.verifier))
    except NotImportableError as error:
        verifier = f"{_verifier_name(task)} ({error})"
    options = {name: getattr(task, name) for name in _OPTIONS}
    return GivenTaskParameters(
        kind="own", origin="given from Python", data=data_hash(task), verifier=verifier, **options
    )


def write_copy(folder: Path, task: Task) -> None:
    """Write `folder/task/`, whole or not at all."""
    facts: dict[str, Any] = {"verifier": None, "missing": None, **dict.fromkeys(_CODE)}
    try:
        facts["verifier"] = reference_of(task.verifier)
        for name in _CODE:
            if (code := getattr(task, name)) is not None:
                facts[name] = reference_to(code)
    except NotImportableError as error:
        facts["missing"] = f"its code cannot be imported again: {error}"
    named: list[tuple[str | None, Problem]] = [(None, problem) for problem in task.train]
    named += [(name, problem) for name, problems in task.evaluations.items() for problem in problems]
    changed = next((problem for _, problem in named if not _is_plain(problem.extra)), None)
    if changed is not None and facts["missing"] is None:
        facts["missing"] = f"Problem.extra of {changed.question[:60]!r} holds values that JSON cannot"
    with whole_folder(folder / _FOLDER, replace=True) as partial:
        _write_lines(partial / _TRAIN, (_row(problem) for problem in task.train))
        _write_lines(partial / _EVALUATIONS, ({"set": n, **_row(p)} for n, p in named if n is not None))
        (partial / _FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")


def read_copy(folder: Path, parameters: GivenTaskParameters, warn: Callable[[str], None]) -> Task:
    """The task of a run folder, with the options of `parameters`; `warn` is told if its code has changed.

    Raises:
        InputError: the folder has no copy, its problems are not those of the run, or its code cannot be imported.
    """
    copy = folder / _FOLDER
    if not (copy / _FACTS).is_file():
        raise InputError(
            f"{folder}: the run has no copy of its task, {parameters.name}, in {copy}; pass it again: {AGAIN}"
        )
    facts = json.loads((copy / _FACTS).read_text(encoding="utf-8"))
    if facts["missing"] is not None:
        raise InputError(
            f"{folder}: its task, {parameters.name}, was given from Python, and cannot be rebuilt from the folder "
            f"({facts['missing']}); pass it again: {AGAIN}"
        )
    evaluations: dict[str, list[Problem]] = {}
    for row in read_jsonl(copy / _EVALUATIONS):
        evaluations.setdefault(row.pop("set"), []).append(_problem(row))
    code = {name: referred(facts[name], warn) for name in _CODE if facts[name] is not None}
    verifier = from_reference(facts["verifier"], warn)
    options = {name: getattr(parameters, name) for name in _OPTIONS}
    options["success"] = 1.0 if options["success"] is None else options["success"]
    train = [_problem(row) for row in read_jsonl(copy / _TRAIN)]
    task = Task(train=train, evaluations=evaluations, verifier=verifier, **code, **options)
    if data_hash(task) != parameters.data:
        raise InputError(
            f"{copy}: these are not the problems that the run was given; the files were changed or damaged"
        )
    return task


def check_same(folder: Path, task: Task, parameters: GivenTaskParameters) -> None:
    """Raise InputError unless `task` has the problems of the run in `folder`."""
    if data_hash(task) != parameters.data:
        raise InputError(
            f"task={task.name}: its problems are not those of the run in {folder}, which was given the task "
            f"{parameters.name}; pass that one, or start a new run"
        )


def _verifier_name(task: Task) -> str:
    given = as_given(task.verifier)
    return ", ".join(reward.label for reward in given) if isinstance(given, list) else name_of(given)


# ------------------------------------------------------------------ rows


def _row(problem: Problem) -> dict[str, Any]:
    """A problem as a line of a file that `task=files` reads as well: with messages before it the question is a chat."""
    messages = [*problem.history, ("user", problem.question)]
    chat = [{"role": role, "content": text} for role, text in messages] if problem.history else problem.question
    fields = {"solution": problem.solution, "group": problem.group, "extra": _canonical(problem.extra)}
    answer = _canonical(problem.answer)
    return {"question": chat, "answer": answer, **{name: value for name, value in fields.items() if value}}


def _problem(row: Mapping[str, Any]) -> Problem:
    return Problem(**row)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _is_plain(value: Any) -> bool:
    """Whether a value is the same once it has been JSON; a tuple counts as a list."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


# ------------------------------------------------------------------ the hash


def data_hash(task: Task) -> str:
    """SHA-256 of all problems of a task, in their order."""
    digest = hashlib.sha256()
    for problems in (task.train, *(task.evaluations[name] for name in sorted(task.evaluations))):
        for problem in problems:
            record = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
            if not problem.history:
                del record["history"]  # runs from before problems had a history resume
            digest.update(json.dumps(_canonical(record), sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _canonical(value: Any) -> Any:
    """A value of a problem as JSON data that is the same in every process."""
    if isinstance(value, Mapping):
        return {_key(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_canonical(item), sort_keys=True) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    if callable(value) or str(value) == object.__repr__(value):
        return getattr(value, "__qualname__", type(value).__qualname__)  # its repr has its address in memory
    return str(value)


def _key(key: Any) -> str:
    plain = key is None or isinstance(key, str | int | float)
    return next(iter(json.loads(json.dumps({key: 0})))) if plain else str(_canonical(key))

"""`task=files`: a user's own files, with the columns that hold each field."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from ..errors import together
from .cells import Columns, problems_of
from .registry import VERIFIER, TaskParameters, register
from .tabular import read_rows
from .task import Problem, Task


def read_problems(field: str, path: str, columns: Columns, needs_answer: bool = True) -> list[Problem]:
    """The problems in a file or on the hub; see `cells.problems_of`.

    Raises:
        InputError: no such file, a format or column that is not there, or an empty question or answer.
    """
    return problems_of(f"{field}={path}", read_rows(field, path), columns, needs_answer)


class FileParameters(TaskParameters):
    """A user's own data: jsonl, csv, parquet or a data set on the hub, with the columns that hold each field."""

    train: str = Field(description="training problems: a jsonl, json, csv or parquet file, or hub:owner/name")
    evaluations: dict[str, str] = Field({}, description="name and source of each evaluation set")
    verifier: str = Field("exact", description=VERIFIER)
    question: str = Field("question", description="column of the question")
    answer: str = Field("answer", description="column of the answer")
    solution: str | None = Field(None, description="column of the worked solution")
    group: str | None = Field(None, description="column of the kind of problem, for tables")


def from_files(p: FileParameters) -> Task:
    """Read the training and evaluation files.

    Raises:
        InputError: a verifier that is not there, or a file or column that cannot be read.
    """
    columns = Columns(p.question, p.answer, p.solution, p.group)
    sources = {"task.train": p.train, **{f"task.evaluations.{name}": path for name, path in p.evaluations.items()}}
    needed = p.needs_answer(p.verifier)
    _, train, *evaluations = together(
        lambda: p.check_verifiers(p.verifier),
        *(partial(read_problems, field, path, columns, needed) for field, path in sources.items()),
    )
    return p.task(train, dict(zip(p.evaluations, evaluations, strict=True)), p.verifier)


register("files", FileParameters, from_files)

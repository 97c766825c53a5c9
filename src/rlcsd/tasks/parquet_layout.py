"""The published parquet layout, which is also verl's, read and written, and `task=verl`.

`<root>/<dataset>/{train,val}.parquet` has one row a problem: `data_source`, `prompt` (chat messages), `ability`,
`reward_model` {style, ground_truth}, `extra_info` {index, problem, solution, …}. Several evaluation sets share one file
in a folder that joins their names with `+`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..errors import InputError, MissingError, together
from ..prompts import BOXED_INSTRUCTION, question_text
from .cells import Row, chat_in, checked_problem, json_in, plain_values
from .registry import VERIFIER, TaskParameters, register
from .tabular import read_rows
from .task import Problem, Task

MARK = "published.json"  # in the folder of a data set that `rlcsd data published` fetched
_ANSWERS = ("answer", "solution_text_format", "final_answer", "ground_truth", "solution")  # in a ground truth's struct


# ------------------------------------------------------------------ rows


def to_rows(
    problems: Sequence[Problem], data_source: str, ability: str, split: str, instruction: str = BOXED_INSTRUCTION
) -> list[Row]:
    """The problems as rows of the layout; what a problem carries in `extra` goes into `extra_info`."""
    return [
        {
            "data_source": data_source,
            "prompt": [
                *({"role": role, "content": text} for role, text in problem.history),
                {"role": "user", "content": question_text(problem.question, instruction, problem.history)},
            ],
            "ability": ability,
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {
                "index": index,
                "split": split,
                "problem": problem.question,
                "solution": problem.solution or "",
                "group": problem.group,
                **problem.extra,
            },
        }
        for index, problem in enumerate(problems)
    ]


def from_row(where: str, row: Row, needs_answer: bool = True) -> tuple[str, Problem]:
    """(data source, problem) of one row. Unless `needs_answer`, the ground truth may be empty or missing.

    Raises:
        InputError: it is not of the layout; the sentence begins with `where`.
    """
    extra = _struct(where, "extra_info", row.get("extra_info") or {})
    judged = _struct(
        where, "reward_model", _cell(where, row, "reward_model") if needs_answer else row.get("reward_model") or {}
    )
    source = _cell(where, row, "data_source")
    if not isinstance(source, str):
        raise InputError(f"{where}: column 'data_source' must be a str, not {source!r}")
    whole = {**row, "reward_model": judged}
    if "extra_info" in row:
        whole["extra_info"] = extra
    answer = _ground_truth(where, judged.get("ground_truth"))
    question, group = _question(where, row, extra), extra.get("group") or source
    return source, checked_problem(where, question, answer, extra.get("solution"), group, whole, needs_answer)


def _cell(where: str, row: Row, column: str) -> Any:
    if column not in row:
        raise InputError(f"{where} has no column {column!r}; it has {', '.join(map(str, row))}")
    return row[column]


def _struct(where: str, column: str, cell: Any) -> Mapping[str, Any]:
    """A cell that is a struct, or JSON of one."""
    value = plain_values(json_in(cell))
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: column {column!r} must be a struct, not {cell!r}")
    return value


def _question(where: str, row: Row, extra: Mapping[str, Any]) -> Any:
    """The row's chat up to its last user message, for which the bare question stands if the row keeps it."""
    bare = extra.get("problem")
    prompt = chat_in(row.get("prompt") if bare else _cell(where, row, "prompt"))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list) and not (bare and messages is None):
        raise InputError(f"{where}: column 'prompt' must be a list of messages, not {messages!r}")
    messages = messages or []
    users = [index for index, m in enumerate(messages) if isinstance(m, Mapping) and m.get("role") == "user"]
    if not users and not bare:
        raise InputError(f"{where}: column 'prompt' has no user message")
    before = messages[: users[-1]] if users else []
    return [*before, {"role": "user", "content": bare} if bare else messages[users[-1]]]


def _ground_truth(where: str, value: Any) -> Any:
    """The answer in a `ground_truth`, which may be a text or a number, a struct with the answer in one field (Logic-RL
    has `solution_text_format` beside `statements`), a list of one of these, or JSON of such a struct or list."""
    if isinstance(value, str):
        meant = json_in(value)
        if isinstance(meant, Mapping) and any(meant.get(name) is not None for name in _ANSWERS):
            return _ground_truth(where, meant)
        if isinstance(meant, list) and len(meant) == 1 and isinstance(meant[0], str | dict):  # [3] may be the answer
            return _ground_truth(where, meant[0])
        return value
    if isinstance(value, Mapping):
        filled = {name: part for name, part in value.items() if part is not None}
        name = next((name for name in (*_ANSWERS, *filled) if name in filled), None)
        if name is None or (name not in _ANSWERS and len(filled) > 1):
            raise InputError(
                f"{where}: the answer must be in one of the fields {', '.join(_ANSWERS)} of ground_truth, which has "
                f"{', '.join(map(str, value)) or 'none'}"
            )
        return _ground_truth(where, filled[name])
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise InputError(f"{where}: ground_truth must have one answer, not {len(value)}: {str(value)[:60]}")
        return _ground_truth(where, value[0])
    return value


# ------------------------------------------------------------------ files


def read_layout(field: str, root: str, dataset: str, split: str, needs_answer: bool = True) -> dict[str, list[Problem]]:
    """The problems of `<root>/<dataset>/<split>.parquet` by data source.

    Names joined with `+` may also be folders apart, each with a set of its own, called by the folder's name. Where both
    are there, the joined one counts, unless it is our own build and the others are published.

    Raises:
        InputError: no such file, or a row that is not of the layout.
    """
    joined, parts = _joined(root, dataset, split), _parts(root, dataset, split)
    if joined is not None:
        return _by_source(field, joined, needs_answer)
    missing = [one for one in parts.values() if not one.is_file()]
    if missing:
        absent = " and no file ".join(
            map(str, [_path(root, dataset, split)] if len(missing) == len(parts) else missing)
        )
        raise MissingError(
            f"{field}={dataset}: there is no file {absent}; `rlcsd data published` fetches the published sets, `rlcsd "
            "data` also builds them, and task.root says where they are"
        )
    return {
        name: [problem for problems in _by_source(field, one, needs_answer).values() for problem in problems]
        for name, one in parts.items()
    }


def reads_published(root: str, dataset: str, split: str) -> bool:
    """Whether all files that `read_layout` reads are published ones."""
    joined = _joined(root, dataset, split)
    files = _parts(root, dataset, split).values() if joined is None else [joined]
    return all(is_published(file.parent) for file in files)


def is_published(folder: Path) -> bool:
    """Whether a data set was fetched by `rlcsd data published`, and not built by another `rlcsd data` command."""
    return (folder / MARK).is_file()


def _joined(root: str, dataset: str, split: str) -> Path | None:
    """The one file of a data set, unless it is our own build and the published sets are there one by one."""
    path, parts = _path(root, dataset, split), _parts(root, dataset, split).values()
    published = all(part.is_file() and is_published(part.parent) for part in parts)
    return path if path.is_file() and (is_published(path.parent) or not published) else None


def _parts(root: str, dataset: str, split: str) -> dict[str, Path]:
    """The files of sets joined with `+`, were each in a folder of its own."""
    return {name: _path(root, name, split) for name in dataset.split("+")}


def _path(root: str, dataset: str, split: str) -> Path:
    return Path(root) / dataset / f"{split}.parquet"


def _by_source(field: str, path: Path, needs_answer: bool) -> dict[str, list[Problem]]:
    by_source: dict[str, list[Problem]] = defaultdict(list)
    for number, row in enumerate(read_rows(field, str(path))):
        source, problem = from_row(f"{path}: row {number}", row, needs_answer)
        by_source[source].append(problem)
    if not by_source:
        raise InputError(f"{field}: there are no problems in {path}")
    return dict(by_source)


# ------------------------------------------------------------------ task=verl


class VerlParameters(TaskParameters):
    """Data in the published parquet layout under `root`; each data source of `evaluation` is a set of its own."""

    root: str = Field("data/verl", description="folder of the data sets")
    train: str = Field(description="name of the training data set below root")
    evaluation: str | None = Field(None, description="name of the evaluation data set below root, sets joined with +")
    verifier: str = Field("math", description=VERIFIER)


def from_verl(p: VerlParameters) -> Task:
    """Read the training and evaluation data sets.

    Raises:
        InputError: a verifier or a file that is not there, or a row that is not of the layout.
    """
    needed = p.needs_answer(p.verifier)
    _, (train, evaluations) = together(
        lambda: p.check_verifiers(p.verifier), lambda: read_task_sets(p.root, p.train, p.evaluation, needed)
    )
    return p.task(train, evaluations, p.verifier, source=sources_in_use(p.root, p.train, p.evaluation))


register("verl", VerlParameters, from_verl)


def read_task_sets(
    root: str, train: str, evaluation: str | None, needs_answer: bool = True
) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """The training problems, and the evaluation problems by set. Raises InputError as `read_layout`."""
    by_source, evaluations = together(
        lambda: read_layout("task.train", root, train, "train", needs_answer),
        lambda: read_layout("task.evaluation", root, evaluation, "val", needs_answer) if evaluation else {},
    )
    return [problem for problems in by_source.values() for problem in problems], evaluations


def sources_in_use(root: str, train: str, evaluation: str | None) -> str:
    """A sentence on which of the files are published ones, for the plan and the report; empty if none is."""
    published = {"training": reads_published(root, train, "train")}
    if evaluation:
        published["evaluation"] = reads_published(root, evaluation, "val")
    if all(published.values()):
        return f"the published files in {root}"
    some = [what for what, is_one in published.items() if is_one]
    return f"the published files in {root} for {some[0]}, our own build for the rest" if some else ""

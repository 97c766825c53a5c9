"""Tasks of the reasoning-gym package: problems generated to order, with its own scorers.

Item i of a data set with seed s is drawn with the seed s + i, so nearby seeds share items. Training and evaluation
therefore have ranges of seeds that cannot meet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from ..errors import InputError, MissingError, first_line
from ..records import Problem
from ..verifiers import last_boxed, without_thinking

RANGE = 2**23  # seeds of one split
_NO_ANSWER = "any answer that satisfies the question"  # where the generator gives no answer of its own
_LATEX = ((r"\times", "*"), (r"\cdot", "*"), (r"\div", "/"), (r"\left", ""), (r"\right", ""), ("−", "-"), ("×", "*"))
_WRAPPED = re.compile(r"\\(?:text|mathrm|texttt|mathtt)\{([^{}]*)\}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FRACTION = re.compile(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}")


class Scorer:
    """The data sets' own scorers, from 0 to 1: full marks are correct (`task.success`), and partial ones a reward.

    The answer is the content of the last box, or of the last `<answer>` tag. An answer that a scorer cannot read, or
    takes too long for, is wrong.
    """

    __name__ = "reasoning_gym"
    forgiving = True
    silent = True

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        self.datasets = dict(datasets)

    def __call__(self, response: str, problem: Problem) -> float:
        answer = answer_in(response)
        if answer is None:
            return 0.0
        dataset = self.datasets[problem.extra["dataset"]]
        return max(_score(dataset, text, problem.extra["entry"]) for text in {answer, plain(answer)})


def answer_in(response: str) -> str | None:
    """What a response gives as its answer."""
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed
    tagged = _TAGGED.findall(without_thinking(response))
    return tagged[-1].strip() if tagged else None


def plain(answer: str) -> str:
    """An answer without the LaTeX that models put into boxes; scorers read plain text."""
    answer = _FRACTION.sub(r"(\1)/(\2)", _WRAPPED.sub(r"\1", answer))
    for command, sign in _LATEX:
        answer = answer.replace(command, sign)
    return answer.replace("\\\\", "\n").replace("\\", "").strip()


def _score(dataset: Any, answer: str, entry: Mapping[str, Any]) -> float:
    try:
        return float(dataset.score_answer(answer, dict(entry)))
    except Exception:  # whatever a scorer makes of arbitrary text, it is not the answer
        return 0.0


def build_datasets(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The package's data sets by name, each with its parameters of difficulty.

    Raises:
        InputError: the package is not installed, or a name or a parameter is not right.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise MissingError("task=reasoning_gym: it needs pip install 'rlcsd[reasoning-gym]'") from None
    found = {}
    for name, given in parameters.items():
        if name not in DATASETS or name == "composite":
            close = difflib.get_close_matches(name, DATASETS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "for example countdown, knights_knaves or sudoku"
            raise InputError(f"task.dataset={name}: reasoning-gym has no such data set; {hint}")
        known = sorted(set(DATASETS[name][1].__dataclass_fields__) - {"seed", "size"})
        for key in given:
            if key not in known:
                raise InputError(f"task.parameters.{key}: {name} has no such parameter; it has {', '.join(known)}")
        try:
            found[name] = create_dataset(name, **{**given, "seed": 0, "size": 1})
        except Exception as error:  # the package asserts
            raise InputError(f"task.parameters={dict(given)}: {name} refuses it ({first_line(error)})") from None
    return found


def draw(
    parameters: Mapping[str, Mapping[str, Any]], count: int, first: int, taken: Set[str] = frozenset()
) -> list[Problem]:
    """`count` problems, evenly from all data sets, with seeds from `first` on; no question twice, and none of `taken`.

    Raises:
        InputError: a data set has too few different problems.
    """
    from reasoning_gym.factory import create_dataset

    sources = {}
    for place, name in enumerate(parameters):
        share = count // len(parameters) + (place < count % len(parameters))
        size = min(RANGE, 20 * share + 100)
        dataset = create_dataset(name, **{**parameters[name], "seed": first, "size": size})
        sources[name] = _different(name, dataset, share, taken)
    drawn = [[_problem(name, entry) for entry in entries] for name, entries in sources.items()]
    return [problem for row in _turns(drawn) for problem in row]


def _turns(columns: Sequence[Sequence[Problem]]) -> Iterator[list[Problem]]:
    """One of each column, as long as there are any."""
    for place in range(max(map(len, columns))):
        yield [column[place] for column in columns if place < len(column)]


def _different(name: str, dataset: Any, count: int, taken: Set[str]) -> list[Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = {}
    for index in range(len(dataset)):
        if len(entries) == count:
            break
        entry = dataset[index]
        if entry["question"].strip() not in taken:
            entries.setdefault(entry["question"], entry)
    if len(entries) < count:
        raise InputError(
            f"task.dataset={name}: only {len(entries)} different problems were found where {count} were asked for; ask "
            "for fewer, or change task.parameters"
        )
    return list(entries.values())


def _problem(name: str, entry: Mapping[str, Any]) -> Problem:
    answer = str(entry["answer"] if entry["answer"] is not None else "").strip() or _NO_ANSWER
    return Problem(entry["question"].strip(), answer, None, name, {"dataset": name, "entry": entry})

"""`task=reasoning_gym`: problems generated to order by the reasoning-gym package, judged by its own scorers.

Item i of a data set with seed s is drawn with the seed s + i, so nearby seeds share items. Training and evaluation
therefore have ranges of seeds that cannot meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from pydantic import Field

from ..errors import InputError, MissingError, first_line, suggestion
from ..records import Problem
from ..verifiers import last_boxed, without_thinking
from .answer_forms import answer_forms
from .registry import TaskParameters, register
from .task import Task

SEEDS = 2**23  # in the range of one split
_NO_ANSWER = "any answer that satisfies the question"  # where the generator gives no answer of its own
_TAG, _END = "<answer>", "</answer>"
_ALMOST = 0.99  # for partial marks whose sum rounding took above 1
_NONSENSE = "no answer at all"  # no data set has this answer


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


def reasoning_gym(p: ReasoningGymParameters) -> Task:
    """Draw the training and evaluation problems.

    Raises:
        InputError: the package is not installed, or a data set, a parameter or the number of problems is not right.
    """
    names = [p.dataset] if isinstance(p.dataset, str) else list(dict.fromkeys(p.dataset))
    if not names:
        raise InputError("task.dataset=[]: at least one data set is needed, for example countdown")
    given = {names[0]: p.parameters} if isinstance(p.dataset, str) else p.parameters
    for name, values in given.items():
        if name not in names or not isinstance(values, dict):
            raise InputError(f"task.parameters.{name}: with several data sets, parameters read {{{names[0]}: {{…}}}}")
    parameters = {name: given.get(name, {}) for name in names}
    scorer = Scorer(build_datasets(parameters))
    train = draw(parameters, p.train_size, 2 * p.seed * SEEDS)
    questions = {problem.question for problem in train}
    held_out = draw(parameters, p.eval_size, (2 * p.seed + 1) * SEEDS, questions)
    return p.task(train, {"fresh": held_out}, scorer, answer_of=answer_in)


register("reasoning_gym", ReasoningGymParameters, reasoning_gym)


# ------------------------------------------------------------------ scoring


class Scorer:
    """The data sets' own scorers, from 0 to 1: full marks are correct (`task.success`), partial ones a reward.

    The answer is the content of the last box, or of the last `<answer>` tag, in whichever of its plain-text forms
    (`answer_forms`) gets the most. An answer that a scorer cannot read, or takes too long for, is wrong. Where a scorer
    gives full marks to whatever it is given (`game_of_life_halting` in 0.1.25), the answer must be the data set's own;
    where it does not look at the numbers of the question (`puzzle24`), those must be used.
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
        name, entry = problem.extra["dataset"], problem.extra["entry"]
        dataset, best = self.datasets[name], 0.0
        for form in answer_forms(answer):
            score = _score(dataset, form, entry)
            if score >= 1 and not _earned(name, dataset, form, entry):
                score = 0.0
            best = max(best, score)
            if best >= 1:
                break
        return best


def answer_in(response: str) -> str | None:
    """What a response gives as its answer."""
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed
    text, answer, end = without_thinking(response), None, 0
    while (begin := text.find(_TAG, end)) >= 0 and (end := text.find(_END, begin)) >= 0:
        answer = text[begin + len(_TAG) : end].strip()
    return answer


def _score(dataset: Any, answer: str, entry: Mapping[str, Any]) -> float:
    try:
        score = float(dataset.score_answer(answer, dict(entry)))
    except Exception:  # whatever a scorer makes of arbitrary text, it is not the answer
        return 0.0
    return score if score <= 1 else _ALMOST


def _earned(name: str, dataset: Any, answer: str, entry: Mapping[str, Any]) -> bool:
    """Whether full marks mean that the answer is right."""
    if name == "puzzle24":
        used = sorted(int(number) for number in re.findall(r"\d+", answer))
        return used == sorted(entry["metadata"]["numbers"])
    return answer == entry["answer"] or _score(dataset, _NONSENSE, entry) < 1


# ------------------------------------------------------------------ drawing


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
            hint = suggestion(name, DATASETS, "for example countdown, knights_knaves or sudoku")
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
    for index, name in enumerate(parameters):
        share = count // len(parameters) + (index < count % len(parameters))
        size = min(SEEDS, 20 * share + 100)
        dataset = create_dataset(name, **{**parameters[name], "seed": first, "size": size})
        sources[name] = _different(name, dataset, share, taken)
    drawn = [[_problem(name, entry) for entry in entries] for name, entries in sources.items()]
    return [problem for row in _turns(drawn) for problem in row]


def _turns(columns: Sequence[Sequence[Problem]]) -> Iterator[list[Problem]]:
    """One of each column, as long as there are any."""
    for index in range(max(map(len, columns))):
        yield [column[index] for column in columns if index < len(column)]


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

"""Summaries of graded answers: mean@n with its interval, pass@k, and how the responses look.

A summary is of an evaluation set, of one kind of problem in it, or of the average over all sets. Rates are shares in
[0, 1], lengths are tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from typing import Any

import numpy as np
from scipy import stats

from ..verifiers import last_boxed

AVERAGE = "average"  # the name of the summary over several sets, which no set can have
LEAST_PROBLEMS = 6  # fewer pairs cannot differ significantly: the smallest p-value of a sign test is 2^(1−5) = 0.0625


@dataclass(frozen=True)
class Answered:
    """One problem's n responses, graded: `passed` says which are correct. `index` is the problem's in its data set."""

    dataset: str
    index: int
    group: str
    question: str
    answer: str
    responses: tuple[str, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...]
    passed: tuple[bool, ...]

    @property
    def num_correct(self) -> int:
        return sum(self.passed)

    @property
    def identity(self) -> str:
        """Twelve characters that are the same wherever this question with this answer is asked."""
        return hashlib.sha256(f"{self.question}\0{self.answer}".encode("utf-8", "backslashreplace")).hexdigest()[:12]


@dataclass(frozen=True)
class Summary:
    """Figures of one data set (or one kind of problem in it). Rates are in [0, 1], lengths in tokens.

    `low` and `high` bound the mean's 95 % interval over problems; None with fewer than `LEAST_PROBLEMS` of them.
    """

    name: str
    problems: int
    samples: int
    mean: float
    low: float | None
    high: float | None
    pass_at: Mapping[int, float]
    boxed: float
    truncated: float
    length: float
    reward: float = 0.0
    kind: str = ""  # the one kind of problem that a set consists of, if it is one

    @property
    def label(self) -> str:
        return f"{self.name} ({self.kind})" if self.kind else self.name

    @property
    def rate(self) -> str:
        """The mean with its interval, as text."""
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "pass_at": {str(k): v for k, v in self.pass_at.items()}}


def summaries_of(record: Mapping[str, Any]) -> list[Summary]:
    """The summaries of one record of `evaluations.jsonl`."""
    return [Summary(**{**one, "pass_at": {int(k): v for k, v in one["pass_at"].items()}}) for one in record["sets"]]


def reported(summaries: Sequence[Summary]) -> Summary:
    """The one summary of an evaluation: that of the mean over its sets, each counting alike, or of its only set.

    The kinds of problem of a set count as part of it, not once more. Its mean is the `average` of reports; early
    stopping and the choice of the best checkpoint compare it.

    Raises:
        ValueError: there is no summary.
    """
    if not summaries:
        raise ValueError("an evaluation without sets has no average")
    return next((one for one in summaries if one.name == AVERAGE), summaries[0])


def reported_average(summaries: Sequence[Summary]) -> float:
    """The mean of the `reported` summary. Raises ValueError if there is none."""
    return reported(summaries).mean


def no_longer_better(evaluations: Iterable[Sequence[Summary]], patience: int, min_gain: float) -> bool:
    """Whether the reported average got better by more than `min_gain` in none of the last `patience` evaluations."""
    best, in_a_row = float("-inf"), 0
    for summaries in evaluations:
        if not summaries:
            continue
        average = reported_average(summaries)
        best, in_a_row = (average, 0) if average > best + min_gain else (best, in_a_row + 1)
    return bool(patience) and in_a_row >= patience


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that k of n samples contain a correct one: 1 − C(n−c, k) / C(n, k) (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: k exceeds n.
    """
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} samples, not {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def interval_over_problems(
    *sets: Sequence[float] | np.ndarray, lowest: float = 0.0, highest: float = 1.0, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval of a mean over problems, whose values lie between `lowest` and `highest`; None for too few.

    Of several sets it is that of the mean of their means. One pseudo-problem at each end of the range joins the
    problems (shared among the sets), then Student's t is taken. Without them the interval would be far too narrow where
    nearly all problems come out alike, and have no width where all do (Agresti and Caffo 2000, The American
    Statistician 54(4), who add one success and one failure to a sample).
    """
    counts = [len(values) for values in sets]
    if min(counts) < LEAST_PROBLEMS:
        return None
    added = 1 / len(sets)
    centre = variance = 0.0
    for values in sets:
        array = np.asarray(values, dtype=float)
        total = len(array) + 2 * added
        mean = (array.sum() + added * (lowest + highest)) / total
        square = ((array**2).sum() + added * (lowest**2 + highest**2)) / total
        centre += mean / len(sets)
        variance += (square - mean**2) / total / len(sets) ** 2
    half = float(stats.t.ppf((1 + level) / 2, min(counts) - 1)) * sqrt(variance)
    return max(lowest, float(centre) - half), min(highest, float(centre) + half)


def summarise(name: str, answered: Sequence[Answered]) -> Summary:
    """mean@n with its interval, pass@k for powers of two up to n, and how the responses look."""
    n = len(answered[0].rewards)
    rates = [item.num_correct / n for item in answered]
    low, high = interval_over_problems(rates) or (None, None)
    powers = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= n]
    texts = [text for item in answered for text in item.responses]
    return Summary(
        name,
        len(answered),
        n,
        float(np.mean(rates)),
        low,
        high,
        {k: float(np.mean([pass_at_k(n, item.num_correct, k) for item in answered])) for k in powers},
        float(np.mean([last_boxed(text) is not None for text in texts])),
        1.0 - float(np.mean([end for item in answered for end in item.finished])),
        float(np.mean([length for item in answered for length in item.lengths])),
        float(np.mean([reward for item in answered for reward in item.rewards])),
    )


def average(sets: Sequence[Sequence[Answered]]) -> Summary:
    """The mean of the sets' figures, each set counting alike."""
    summaries = [summarise("", answered) for answered in sets]
    n = summaries[0].samples
    low, high = interval_over_problems(*[[item.num_correct / n for item in answered] for answered in sets]) or (
        None,
        None,
    )

    def mean(name: str) -> float:
        return float(np.mean([getattr(summary, name) for summary in summaries]))

    return Summary(
        AVERAGE,
        sum(s.problems for s in summaries),
        n,
        mean("mean"),
        low,
        high,
        {k: float(np.mean([s.pass_at[k] for s in summaries])) for k in summaries[0].pass_at},
        mean("boxed"),
        mean("truncated"),
        mean("length"),
        mean("reward"),
    )


def outcomes(answered: Sequence[Answered]) -> dict[str, dict[str, float]]:
    """The share of correct responses to each problem, for each data set or for each kind of problem of a set that has
    several (`SET: KIND`): what paired comparisons need.

    The key of a problem is its identity. A problem that a set has twice is counted twice: the second time its key is
    `IDENTITY/2`.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for item in answered:
        kinds[item.dataset].add(item.group)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    seen: Counter[tuple[str, str]] = Counter()
    for item in answered:
        name = item.dataset if len(kinds[item.dataset]) == 1 else f"{item.dataset}: {item.group}"
        seen[name, item.identity] += 1
        number = seen[name, item.identity]
        key = item.identity if number == 1 else f"{item.identity}/{number}"
        found[name][key] = item.num_correct / len(item.rewards)
    return dict(found)


_SAMPLE_CHARACTERS = 4000  # of a question or a response that is kept for reports


def sample_answers(answered: Sequence[Answered]) -> dict[str, dict[str, Any]]:
    """The first response to the first problem of each data set, so that two evaluations show the same problem."""
    first: dict[str, Answered] = {}
    for item in answered:
        if item.dataset not in first or item.index < first[item.dataset].index:
            first[item.dataset] = item
    return {
        name: {
            "question": item.question[:_SAMPLE_CHARACTERS],
            "answer": item.answer,
            "response": item.responses[0][:_SAMPLE_CHARACTERS],
            "reward": item.rewards[0],
            "correct": item.passed[0],
        }
        for name, item in first.items()
    }


def metrics(summaries: Sequence[Summary]) -> dict[str, float]:
    """For the log: `eval/<set>/mean`, `/reward`, `/boxed`, `/length`, `/truncated`."""
    figures = {}
    for summary in summaries:
        name = summary.name.replace(": ", "/").replace(" ", "_")
        figures[f"eval/{name}/mean"] = summary.mean
        figures[f"eval/{name}/reward"] = summary.reward
        figures[f"eval/{name}/boxed"] = summary.boxed
        figures[f"eval/{name}/length"] = summary.length
        figures[f"eval/{name}/truncated"] = summary.truncated
    return figures


def markdown_table(summaries: Sequence[Summary], before: Sequence[Summary] = ()) -> str:
    """One line per set; with `before`, both accuracies side by side."""
    if before:
        return _before_and_after({summary.name: summary for summary in before}, summaries)
    largest_k = max(max(s.pass_at) for s in summaries)
    lines = [
        f"| set | problems | mean@{summaries[0].samples} [95 %] | pass@{largest_k} | boxed | truncated | length |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        lines.append(
            f"| {s.label} | {s.problems} | {s.rate} | {s.pass_at[largest_k]:.3f} | {s.boxed:.3f} | "
            f"{s.truncated:.3f} | {s.length:.0f} |"
        )
    return "\n".join(lines)


def _before_and_after(before: Mapping[str, Summary], after: Sequence[Summary]) -> str:
    lines = ["| set | problems | before | after | length before | after |", "|---|---|---|---|---|---|"]
    for s in after:
        old = before.get(s.name)
        rate, length = ("", "") if old is None else (old.rate, f"{old.length:.0f}")
        lines.append(f"| {s.label} | {s.problems} | {rate} | {s.rate} | {length} | {s.length:.0f} |")
    return "\n".join(lines)

"""What graded answers amount to: mean@n and pass@k with bootstrap intervals, per set, kind and average."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from ..verifiers import last_boxed


@dataclass(frozen=True)
class Answered:
    """One problem's responses, graded: `passed` says which are correct. `place` is the problem's in its data set."""

    dataset: str
    place: int
    group: str
    question: str
    answer: str
    responses: tuple[str, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...]
    passed: tuple[bool, ...]

    @property
    def correct(self) -> int:
        return sum(self.passed)

    @property
    def identity(self) -> str:
        """Twelve characters that are the same wherever this question with this answer is asked."""
        return hashlib.sha256(f"{self.question}\0{self.answer}".encode("utf-8", "backslashreplace")).hexdigest()[:12]


@dataclass(frozen=True)
class Summary:
    """Figures of one data set (or one group of it). Rates are in [0, 1], lengths in tokens."""

    name: str
    problems: int
    samples: int
    mean: float
    low: float
    high: float
    pass_at: Mapping[int, float]
    boxed: float
    truncated: float
    length: float
    reward: float = 0.0
    kind: str = ""  # the one kind of problem that a set consists of, if it is one

    @property
    def label(self) -> str:
        return f"{self.name} ({self.kind})" if self.kind else self.name

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "pass_at": {str(k): v for k, v in self.pass_at.items()}}


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that k of n samples contain a correct one: 1 − C(n−c, k) / C(n, k) (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: k exceeds n.
    """
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} samples, not {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def bootstrap_interval(
    *sets: Sequence[float], level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over problems, by resampling them with replacement; of several sets, of their
    means' mean."""

    def mean_of_means(*resampled: Any, axis: int) -> Any:
        return sum(values.mean(axis=axis) for values in resampled) / len(resampled)

    # A single problem, which scipy refuses, is the same as that problem twice.
    data = [np.asarray(list(values) * (2 if len(values) == 1 else 1), dtype=float) for values in sets]
    found = bootstrap(
        data,
        mean_of_means,
        n_resamples=draws,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def summarise(name: str, answered: Sequence[Answered]) -> Summary:
    """mean@n with its interval, pass@k for powers of two up to n, and how the responses look."""
    n = len(answered[0].rewards)
    rates = [item.correct / n for item in answered]
    low, high = bootstrap_interval(rates)
    powers = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= n]
    texts = [text for item in answered for text in item.responses]
    return Summary(
        name,
        len(answered),
        n,
        float(np.mean(rates)),
        low,
        high,
        {k: float(np.mean([pass_at_k(n, item.correct, k) for item in answered])) for k in powers},
        float(np.mean([last_boxed(text) is not None for text in texts])),
        1.0 - float(np.mean([end for item in answered for end in item.finished])),
        float(np.mean([length for item in answered for length in item.lengths])),
        float(np.mean([reward for item in answered for reward in item.rewards])),
    )


def average(sets: Sequence[Sequence[Answered]]) -> Summary:
    """The mean of the sets' figures, each set counting alike; the interval resamples problems within each set."""
    summaries = [summarise("", answered) for answered in sets]
    n = summaries[0].samples
    low, high = bootstrap_interval(*[[item.correct / n for item in answered] for answered in sets])

    def mean(name: str) -> float:
        return float(np.mean([getattr(summary, name) for summary in summaries]))

    return Summary(
        "average",
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
    """The share of correct responses by the problem's identity, for each data set, or for each kind of problem of a set
    that has several (`SET: KIND`): what paired comparisons need."""
    kinds: dict[str, set[str]] = {}
    for item in answered:
        kinds.setdefault(item.dataset, set()).add(item.group)
    found: dict[str, dict[str, float]] = {}
    for item in answered:
        name = item.dataset if len(kinds[item.dataset]) == 1 else f"{item.dataset}: {item.group}"
        found.setdefault(name, {})[item.identity] = round(item.correct / len(item.rewards), 6)
    return found


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
    earlier = {summary.name: summary for summary in before}

    def rate(summary: Summary | None) -> str:
        return "" if summary is None else f"{summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]"

    if before:
        lines = ["| set | problems | before | after | length before | after |", "|---|---|---|---|---|---|"]
        for s in summaries:
            old = earlier.get(s.name)
            lines.append(
                f"| {s.label} | {s.problems} | {rate(old)} | {rate(s)} | {old.length if old else 0:.0f} | "
                f"{s.length:.0f} |"
            )
        return "\n".join(lines)
    best = max(max(s.pass_at) for s in summaries)
    lines = [
        f"| set | problems | mean@{summaries[0].samples} [95 %] | pass@{best} | boxed | truncated | length |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        lines.append(
            f"| {s.label} | {s.problems} | {rate(s)} | {s.pass_at[best]:.3f} | {s.boxed:.3f} | "
            f"{s.truncated:.3f} | {s.length:.0f} |"
        )
    return "\n".join(lines)

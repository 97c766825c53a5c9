"""The token signal of hints: teacher gaps under correct and wrong hints and their contrast, by kind of token.

`hint_signals` samples a model's own rollouts on given problems and scores them by its own weights: the signal as it is
at the first step of training. Called by `rlcsd inspect` and by the acceptance checks of warm starts.

Kinds of token: the paper separates *style* ("Wait", "Therefore", newlines) from *task* tokens (numbers, operators,
mathematical symbols) and finds the plain hinted gap mostly on style (RLCSD, arXiv 2606.11709, section 2). Puzzles have
no numbers; there claims and verdicts are the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..decoding import token_offsets
from ..engine.interface import Scorer
from ..methods.base import Method
from ..methods.contrast import contrast, marginal_log_prob
from ..prompts import student_prompt
from ..records import Group, Problem, Sampling
from ..stages import step_rng
from ..stages.grade import grade
from ..stages.hint import TeacherPrompts, hinted_examples, teacher_token_limit
from ..stages.score import build_token_batch, with_old_log_probs
from ..tasks.task import Task

SIGNALS = ("teacher_gap", "wrong_gap", "contrast")
KINDS = ("conclusion", "verdict", "task", "style", "other")

# ------------------------------------------------------------------ kinds of token

_VERDICT = re.compile(r"^\W*(?:true|false|fine|contradiction|correct|wrong|consistent|impossible)\W*$", re.IGNORECASE)
_TASK = re.compile(
    r"\d|[=<>≤≥≠±×÷√∑∫π^]|\\(?:frac|sqrt|times|cdot|pi|pm|sum|int)|kn(?:ight|ave)|^\W*(?:and|or|not|if and only if)\W*$"
)
_STYLE = re.compile(
    r"^\W*(?:wait|hmm+|okay|ok|alright|well|so|hence|thus|therefore|then|now|let|us|me|see|try|suppose|assume|first|next|"
    r"maybe|perhaps|actually|indeed|finally|because|since|but|however|let us try|let me see|now assume)\W*$|^\s*\n\s*$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Za-z]+")


def _is_style(token: str) -> bool:
    """Whether the token, or every word of a token of several words, is a word of style."""
    if _STYLE.match(token):
        return True
    words = _WORDS.findall(token)
    return len(words) > 1 and all(_STYLE.match(word) for word in words)


def kinds_of(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The kind of each token of a response, given as (start, end) in its text; `conclusion` is inside the last box."""
    opening, closing = _last_box(text)
    return [_kind(text[start:end], opening <= start < closing) for start, end in offsets]


def _last_box(text: str) -> tuple[int, int]:
    """Where the content of the last box begins and ends; an empty range without one."""
    begin = text.rfind("\\boxed")
    if begin >= 0:
        opening, closing = text.find("{", begin), text.rfind("}")
        if 0 <= opening < closing:
            return opening + 1, closing
    return -1, -1


def _kind(token: str, boxed: bool) -> str:
    if boxed and re.search(r"\w", token):
        return "conclusion"
    if _VERDICT.match(token):
        return "verdict"
    if _TASK.search(token):
        return "task"
    return "style" if _is_style(token) else "other"


# ------------------------------------------------------------------ the signals of scored rollouts


@dataclass(frozen=True)
class SignalTable:
    """Signals of N scored tokens, in nats.

    `columns` maps names of `SIGNALS` to `[N]`: `teacher_gap` = log π_T(y|h_c) − log π, `wrong_gap` (the same under the
    wrong hints together) and `contrast`, the difference of the two. `kind [N]`, `target [N]` (bool: is the token's
    rollout correct) and `rollout [N]` (its number) say what each token is.

    `accuracy` is over all rollouts, `usable` the share of those with all the hints they need (read from a run, of those
    whose teacher was asked), and `missing` the number of rollouts without a "correct" and without a "wrong" hint.
    Scored now, not read from a run, also `old_log_prob [N]` of the policy, and under each of K wrong hints
    `contrast_log_prob [N, K]`, where `contrast_valid [N, K]`.
    """

    kind: np.ndarray
    target: np.ndarray
    rollout: np.ndarray
    columns: dict[str, np.ndarray]
    accuracy: float
    usable: float
    rollouts: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    old_log_prob: np.ndarray | None = None
    contrast_log_prob: np.ndarray | None = None
    contrast_valid: np.ndarray | None = None

    def values(self, kind: str, target: str, signal: str) -> np.ndarray:
        """A signal on the tokens of one kind, in `correct` or in `wrong` rollouts."""
        return self.columns[signal][self._where(kind, target)]

    def mean(self, kind: str, target: str, signal: str) -> float | None:
        values = self.values(kind, target, signal)
        return float(values.mean()) if len(values) else None

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Target → kind → signal → mean, where there is such a token; the kind `other` is left out."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for target in ("correct", "wrong"):
            for kind in KINDS[:-1]:
                if self._where(kind, target).any():
                    means = {name: float(self.values(kind, target, name).mean()) for name in self.columns}
                    found.setdefault(target, {})[kind] = means
        return found

    def sign_errors(self, target: str, signal: str = "contrast", kind: str = "conclusion") -> float | None:
        """Share of rollouts whose mean signal on tokens of `kind` has the wrong sign for `target`; None without any."""
        where = self._where(kind, target)
        rollouts = np.unique(self.rollout[where])
        if not len(rollouts):
            return None
        means = np.array([self.columns[signal][where & (self.rollout == r)].mean() for r in rollouts])
        return float((means <= 0).mean() if target == "correct" else (means >= 0).mean())

    def _where(self, kind: str, target: str) -> np.ndarray:
        return (self.kind == kind) & (self.target == (target == "correct"))


@dataclass(frozen=True)
class SignalSettings:
    """How groups are sampled for a measurement: `group_size` rollouts of each problem."""

    group_size: int
    sampling: Sampling
    thinking: bool = True
    thinking_teacher: bool = True
    max_teacher_tokens: int | None = None
    seed: int = 0


Kinds = Callable[[Problem, str, Sequence[tuple[int, int]]], Sequence[str]]


def _kinds_of_text(problem: Problem, text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    return kinds_of(text, offsets)


def hint_signals(
    engine: Scorer, task: Task, method: Method, settings: SignalSettings, kinds: Kinds = _kinds_of_text
) -> SignalTable:
    """Sample a group for every training problem of `task`, give hints as `method` does, and score the responses.

    `kinds` names the kind of each token of a response, given as (start, end) in its text.
    """
    return score_groups(engine, sample_groups(engine, task, method, settings), task, method, settings, kinds)


def score_groups(
    engine: Scorer,
    groups: Sequence[Group],
    task: Task,
    method: Method,
    settings: SignalSettings,
    kinds: Kinds = _kinds_of_text,
) -> SignalTable:
    """`hint_signals` of groups that were sampled before, so that methods or templates see the same responses."""
    limit = teacher_token_limit(settings.max_teacher_tokens, engine.context_length)
    prompts = TeacherPrompts(engine.tokenizer, limit, settings.thinking_teacher, task.instruction, task.hints_by_text)
    hinted = hinted_examples(groups, method, prompts, step_rng(settings.seed, "hint", 1))
    batch = [
        row for group in with_old_log_probs(engine, hinted.examples) for row in group if row.teacher_prompt is not None
    ]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    accuracy = sum(r.is_correct for r in rollouts) / len(rollouts)
    facts: dict[str, Any] = {"rollouts": len(rollouts), "missing": dict(hinted.counts.missing)}
    if not batch:
        empty = np.zeros(0)
        columns = dict.fromkeys(SIGNALS, empty)
        return SignalTable(empty.astype(str), empty.astype(bool), empty.astype(int), columns, accuracy, 0.0, **facts)
    scored = build_token_batch(engine, batch, method)
    assert scored.teacher_log_prob is not None
    assert scored.contrast_log_prob is not None and scored.contrast_valid is not None
    wrong = marginal_log_prob(scored.contrast_log_prob, scored.contrast_valid)
    kind: list[str] = []
    for row in batch:
        text, offsets = token_offsets(engine.tokenizer, row.rollout.sample.ids)
        kind += kinds(groups[row.group].problem, text, offsets)

    def column(values: torch.Tensor) -> np.ndarray:
        return values.double().cpu().numpy()

    return SignalTable(
        kind=np.array(kind),
        target=scored.is_correct.cpu().numpy(),
        rollout=scored.rollout.cpu().numpy(),
        columns={
            "teacher_gap": column(scored.teacher_log_prob - scored.old_log_prob),
            "wrong_gap": column(wrong - scored.old_log_prob),
            "contrast": column(contrast(scored)),
        },
        accuracy=accuracy,
        usable=hinted.counts.usable / max(hinted.counts.rollouts, 1),
        **facts,
        old_log_prob=column(scored.old_log_prob),
        contrast_log_prob=column(scored.contrast_log_prob),
        contrast_valid=scored.contrast_valid.cpu().numpy(),
    )


def sample_groups(engine: Scorer, task: Task, method: Method, settings: SignalSettings) -> list[Group]:
    """A group for every training problem of `task`."""
    prompts = [student_prompt(engine.tokenizer, problem, task.instruction, settings.thinking) for problem in task.train]
    seed = step_rng(settings.seed, "sample", 1).getrandbits(62)
    samples = engine.sample(prompts, settings.group_size, settings.sampling, seed)
    return grade(engine.tokenizer, task, task.train, prompts, samples, estimator=method.config.estimator)

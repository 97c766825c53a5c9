"""The kinds of tokens: conclusion, verdict, task and style.

The paper separates *style* tokens ("Wait", "Therefore", newlines and the like) from *task* tokens
(numbers, operators, mathematical symbols) and finds the plain hinted gap mostly on style (RLCSD,
arXiv 2606.11709, section 2). Puzzles have no numbers; there the claims and verdicts are the task.
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

KINDS = ("conclusion", "verdict", "task", "style", "other")

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
    """True if the token, or every word of a token of several words, is a word of style."""
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


# ------------------------------------------------------------------ signals
# The token signal of hints: the teacher's gain under correct and wrong hints and their contrast, by kind of token.
#
# The figures hold for the policy's own rollouts on given problems, scored by its own weights: the token
# signal as it is at the first step of training.

SIGNALS = ("teacher_gap", "wrong_gap", "contrast")
_HEADS = {"teacher_gap": "gap under h_c", "wrong_gap": "gap under h_w", "contrast": "e_ctr"}


@dataclass(frozen=True)
class SignalTable:
    """Columns over all scored tokens: `kind`, `target` (was the rollout correct), and one per signal, in nats."""

    kind: np.ndarray
    target: np.ndarray
    rollout: np.ndarray
    columns: dict[str, np.ndarray]
    accuracy: float
    usable: float
    rollouts: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)  # rollouts without a "correct" or without a "wrong" hint
    old_log_prob: np.ndarray | None = None  # [N], of the policy
    wrong: np.ndarray | None = None  # [N, K], log-probs under each wrong hint, and which of them there are
    wrong_valid: np.ndarray | None = None

    def values(self, kind: str, target: str, signal: str) -> np.ndarray:
        where = (self.kind == kind) & (self.target == (target == "correct"))
        return self.columns[signal][where]

    def mean(self, kind: str, target: str, signal: str) -> float | None:
        values = self.values(kind, target, signal)
        return float(values.mean()) if len(values) else None

    def sign_errors(self, target: str, signal: str = "contrast", kind: str = "conclusion") -> float | None:
        """Share of rollouts whose mean signal on tokens of `kind` has the wrong sign for `target`."""
        where = (self.kind == kind) & (self.target == (target == "correct"))
        rollouts = np.unique(self.rollout[where])
        if not len(rollouts):
            return None
        means = np.array([self.columns[signal][where & (self.rollout == r)].mean() for r in rollouts])
        return float((means <= 0).mean() if target == "correct" else (means >= 0).mean())


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
    """Sample a group for every training problem of `task`, draw hints as `method` does, and score them.

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
    prompts = TeacherPrompts(engine.tokenizer, limit, settings.thinking_teacher, task.instruction)
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
    assert (
        scored.teacher_log_prob is not None
        and scored.contrast_log_prob is not None
        and scored.contrast_valid is not None
    )
    wrong = marginal_log_prob(scored.contrast_log_prob, scored.contrast_valid)
    kind: list[str] = []
    for row in batch:
        text, offsets = token_offsets(engine.tokenizer, row.rollout.sample.ids)
        kind += kinds(groups[row.group].problem, text, offsets)

    def column(values: torch.Tensor) -> np.ndarray:
        return values.double().cpu().numpy()

    return SignalTable(
        np.array(kind),
        scored.is_correct.cpu().numpy(),
        scored.rollout.cpu().numpy(),
        {
            "teacher_gap": column(scored.teacher_log_prob - scored.old_log_prob),
            "wrong_gap": column(wrong - scored.old_log_prob),
            "contrast": column(contrast(scored)),
        },
        accuracy,
        hinted.counts.usable / max(hinted.counts.rollouts, 1),
        **facts,
        old_log_prob=column(scored.old_log_prob),
        wrong=column(scored.contrast_log_prob),
        wrong_valid=scored.contrast_valid.cpu().numpy(),
    )


def sample_groups(engine: Scorer, task: Task, method: Method, settings: SignalSettings) -> list[Group]:
    """A group for every training problem of `task`."""
    prompts = [student_prompt(engine.tokenizer, problem, task.instruction, settings.thinking) for problem in task.train]
    seed = step_rng(settings.seed, "sample", 1).getrandbits(62)
    samples = engine.sample(prompts, settings.group_size, settings.sampling, seed)
    std = method.config.advantage_std
    return grade(engine.tokenizer, task, task.train, prompts, samples, divide_by_std=std)


def markdown(table: SignalTable, kinds: Sequence[str] = KINDS) -> str:
    """Mean signal, mean size of the last one and number of tokens, by kind and by target."""
    signals = [name for name in SIGNALS if name in table.columns]
    heads = [_HEADS[name] for name in signals]
    lines = [
        f"| kind | target | tokens | {' | '.join(heads)} | mean abs {heads[-1]} |",
        "|---" * (len(heads) + 4) + "|",
    ]
    for kind in kinds:
        for target in ("correct", "wrong"):
            values = table.values(kind, target, signals[-1])
            if len(values):
                gains = [table.mean(kind, target, name) for name in signals]
                cells = " | ".join(f"{gain:+.3f}" for gain in gains if gain is not None)
                lines.append(f"| {kind} | {target} | {len(values)} | {cells} | {np.abs(values).mean():.3f} |")
    return "\n".join(lines)


def means(table: SignalTable) -> dict[str, dict[str, dict[str, float]]]:
    """Target → kind → signal → mean in nats, where there is such a token; `other` is left out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for target in ("correct", "wrong"):
        for kind in KINDS[:-1]:
            values = {name: table.mean(kind, target, name) for name in table.columns}
            known = {name: value for name, value in values.items() if value is not None}
            if known:
                found.setdefault(target, {})[kind] = known
    return found

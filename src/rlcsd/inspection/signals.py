"""The token signal of hints: the teacher's gain under correct and wrong hints and their contrast, by kind of token.

The figures hold for the policy's own rollouts on given problems, scored by its own weights: the token
signal as it is at the first step of training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..decoding import token_offsets
from ..engine.base import Scorer
from ..methods.base import Method
from ..methods.contrast import contrast, marginal_log_prob
from ..prompts import student_prompt
from ..records import Group, Problem, Sampling
from ..stages.grade import grade
from ..stages.hint import TeacherPrompts, hint_rows
from ..stages.score import gather_evidence, with_old_log_probs
from ..tasks.base import Task
from .token_kinds import KINDS, kinds_of

SIGNALS = ("correct_gain", "wrong_gain", "contrast")


@dataclass(frozen=True)
class SignalTable:
    """Columns over all scored tokens: `kind`, `target` (was the rollout correct), and one per signal, in nats."""

    kind: np.ndarray
    target: np.ndarray
    rollout: np.ndarray
    columns: dict[str, np.ndarray]
    accuracy: float
    usable: float

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
    groups = _groups(engine, task, method, settings)
    most = min(settings.max_teacher_tokens or engine.context_length, engine.context_length)
    prompts = TeacherPrompts(engine.tokenizer, most, settings.thinking_teacher, task.instruction)
    hinted = hint_rows(groups, method, prompts, random.Random(f"{settings.seed}/hint/1"))
    batch = [row for group in with_old_log_probs(engine, hinted.rows) for row in group if row.correct is not None]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    accuracy = sum(r.correct for r in rollouts) / len(rollouts)
    if not batch:
        empty = np.zeros(0)
        return SignalTable(
            empty.astype(str), empty.astype(bool), empty.astype(int), dict.fromkeys(SIGNALS, empty), accuracy, 0.0
        )
    evidence = gather_evidence(engine, batch, method)
    assert evidence.teacher is not None and evidence.wrong is not None and evidence.wrong_valid is not None
    wrong = marginal_log_prob(evidence.wrong, evidence.wrong_valid)
    kind: list[str] = []
    for row in batch:
        text, offsets = token_offsets(engine.tokenizer, row.rollout.sample.ids)
        kind += kinds(groups[row.group].problem, text, offsets)

    def column(values: torch.Tensor) -> np.ndarray:
        return values.double().cpu().numpy()

    return SignalTable(
        np.array(kind),
        evidence.solved.cpu().numpy(),
        evidence.rollout.cpu().numpy(),
        {
            "correct_gain": column(evidence.teacher - evidence.old_log_prob),
            "wrong_gain": column(wrong - evidence.old_log_prob),
            "contrast": column(contrast(evidence)),
        },
        accuracy,
        hinted.counts.usable / max(hinted.counts.rollouts, 1),
    )


def _groups(engine: Scorer, task: Task, method: Method, settings: SignalSettings) -> list[Group]:
    prompts = [student_prompt(engine.tokenizer, problem, task.instruction, settings.thinking) for problem in task.train]
    seed = random.Random(f"{settings.seed}/sample/1").getrandbits(62)
    samples = engine.sample(prompts, settings.group_size, settings.sampling, seed)
    std = method.config.advantage_std
    return grade(engine.tokenizer, task, task.train, prompts, samples, divide_by_std=std)


def markdown(table: SignalTable, kinds: Sequence[str] = KINDS) -> str:
    """Mean signal, mean size and share of tokens, by kind and by target."""
    lines = [
        "| kind | target | tokens | gain under h_c | gain under h_w | e_ctr | mean abs e_ctr |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        for target in ("correct", "wrong"):
            values = table.values(kind, target, "contrast")
            if len(values):
                gains = [table.mean(kind, target, name) for name in SIGNALS]
                cells = " | ".join(f"{gain:+.3f}" for gain in gains if gain is not None)
                lines.append(f"| {kind} | {target} | {len(values)} | {cells} | {np.abs(values).mean():.3f} |")
    return "\n".join(lines)


def draw(table: SignalTable, path: Path) -> Path:
    """Bars by kind of token: what a correct hint alone says, and what is left of it in the contrast."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, constrained_layout=True)
    shown = [kind for kind in KINDS if kind != "other"]
    places = np.arange(len(shown))
    for axis, target in zip(axes, ("correct", "wrong"), strict=True):
        for offset, (signal, label) in enumerate(
            (("correct_gain", "correct hint alone"), ("contrast", "contrast e_ctr"))
        ):
            means = [table.mean(kind, target, signal) or 0.0 for kind in shown]
            axis.bar(places + 0.4 * (offset - 0.5), means, width=0.38, label=label)
        axis.set_yscale("symlog", linthresh=0.05)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xticks(places, shown)
        axis.set_title(f"tokens of {target} rollouts")
    axes[0].set_ylabel("mean signal (nats)")
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path

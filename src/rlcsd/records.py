"""The plain records that pass from stage to stage, in the order in which a training step makes them.

    Problem → Sample → Rollout, Group → Hint, Row → Scores → Evidence → Policy

This module imports nothing of this package, so every other module may import it. Token ids are integers,
log-probabilities are natural logarithms, and tensors are float32 unless stated otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor

# ------------------------------------------------------------------ sample


@dataclass(frozen=True)
class Problem:
    """One problem. `solution` is a worked solution if the data has one; `group` labels it in tables."""

    question: str
    answer: str
    solution: str | None = None
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `top_k = 0` and `top_p = 1` switch the two filters off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256


@dataclass(frozen=True, eq=False)
class Sample:
    """One sampled response of T tokens.

    `sampled_log_probs [T]` are those of the distribution that was drawn from, temperature and filters included.
    `log_probs [T]` are the policy's own, at temperature 1 without filters, and `entropies [T]` those of its
    distributions in nats. Both are None where the sampler does not compute them with the trainer's own
    arithmetic (vLLM): the trainer then asks the engine to score the response. `finished` is False if the token
    limit cut the response off. Tensors are on the CPU.
    """

    ids: tuple[int, ...]
    log_probs: Tensor | None
    sampled_log_probs: Tensor
    finished: bool
    entropies: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def entropy(self) -> float | None:
        """The mean of `entropies`, if they are known."""
        return None if self.entropies is None else float(self.entropies.double().mean())


# ------------------------------------------------------------------ grade


@dataclass(frozen=True)
class Rollout:
    """A graded response. `boxed` is the content of its last box, if any."""

    sample: Sample
    text: str
    reward: float
    boxed: str | None

    @property
    def correct(self) -> bool:
        return self.reward > 0


@dataclass(frozen=True)
class Group:
    """All rollouts of one problem, the ids of the prompt that they answer, and their group advantages."""

    problem: Problem
    prompt: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    advantages: tuple[float, ...]

    @property
    def correct(self) -> list[int]:
        """Places of the correct rollouts, G⁺, within the group."""
        return [place for place, rollout in enumerate(self.rollouts) if rollout.correct]

    @property
    def wrong(self) -> list[int]:
        """Places of the incorrect rollouts, G⁻, within the group."""
        return [place for place, rollout in enumerate(self.rollouts) if not rollout.correct]


# ------------------------------------------------------------------ hint


@dataclass(frozen=True)
class Hint:
    """A text (None for the answer alone), its final answer, and its place in the group (−1: from the data set)."""

    text: str | None
    answer: str
    place: int = -1


@dataclass(frozen=True)
class Hints:
    """What the teacher is shown for one rollout."""

    correct: Hint
    wrong: tuple[Hint, ...] = ()


@dataclass(frozen=True)
class Row:
    """One rollout of an optimizer mini-batch: its prompt, its advantage, and the teacher's prompts for it.

    `correct` and `wrong` are the ids of the teacher's prompts under the correct and the wrong hints; `correct` is
    None for a rollout whose teacher is not asked. `group` and `place` say which rollout of the step this is.
    """

    prompt: tuple[int, ...]
    rollout: Rollout
    advantage: float
    correct: tuple[int, ...] | None = None
    wrong: tuple[tuple[int, ...], ...] = ()
    hints: Hints | None = None
    group: int = 0
    place: int = 0

    @property
    def pair(self) -> Pair:
        """The response after the student's own prompt."""
        return Pair(self.prompt, self.rollout.sample.ids)


# ------------------------------------------------------------------ score


@dataclass(frozen=True)
class Pair:
    """A context and the response whose tokens are to be scored after it."""

    context: tuple[int, ...]
    response: tuple[int, ...]


@dataclass(frozen=True)
class Support:
    """A handle to the top-k token ids of some rows and to log-probs at them, which stay with the engine.

    `key` names it within its engine; `lengths` are the tokens of each row. A top-100 support takes 1,200 bytes a
    token, so the trainer never holds the tensors; it releases the handle after the update.
    """

    key: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Per response token, for all pairs laid end to end, N tokens in all: `log_prob [N]` and `entropy [N]` in nats.

    `support` is set if a new one was asked for with `top_k`.
    """

    log_prob: Tensor
    entropy: Tensor
    support: Support | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known of each response token of one optimizer mini-batch before its update. Nothing has a gradient.

    All columns are flat over the N response tokens, rollout after rollout.

    Always present: `rollout [N]` (index of the token's rollout in the mini-batch), `advantage [N]` (of its group),
    `reward [N]`, `old_log_prob [N]`, `correction [N]` (the rollout-correction weight w_t), `hinted [N]` (bool: the
    teacher was asked about this token).

    With a teacher, and 0 where `hinted` is False: `teacher [N]` = log π_T(y|h_c), `teacher_entropy [N]` in nats.
    With wrong hints: `wrong [N, K]` = log π_T(y|h_w,k) and `wrong_valid [N, K]` (bool).

    With a support: `held`, the engine's handle to it. Inside the engine's update, for the tokens of a micro-batch,
    `support [n, k]` (token ids), `teacher_support [n, k]` and `wrong_support [n, k]` (log-probs).

    Set by the method: `contrast [N]` = e_t; `credit [N]`, what the token's advantage became (credit methods) or
    what its divergence is multiplied by (srpo); `selected [N]` (bool), the tokens that take the method's second
    path; `lam [N]`, the share of the modulated advantage (rlsd); `weight [N]`, the token's share in the loss.
    """

    rollout: Tensor
    advantage: Tensor
    reward: Tensor
    old_log_prob: Tensor
    correction: Tensor
    hinted: Tensor
    teacher: Tensor | None = None
    teacher_entropy: Tensor | None = None
    wrong: Tensor | None = None
    wrong_valid: Tensor | None = None
    held: Support | None = None
    support: Tensor | None = None
    teacher_support: Tensor | None = None
    wrong_support: Tensor | None = None
    contrast: Tensor | None = None
    credit: Tensor | None = None
    selected: Tensor | None = None
    lam: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rollout)

    def __getitem__(self, tokens: Tensor | slice) -> Evidence:
        """The columns of some of the tokens. The handle `held` belongs to the whole mini-batch and is left out."""
        present = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "held"}
        chosen: dict[str, Any] = {name: None if value is None else value[tokens] for name, value in present.items()}
        return Evidence(**chosen)

    def with_columns(self, **columns: Tensor | Support | None) -> Evidence:
        """The same record with some columns set."""
        return replace(self, **columns)  # type: ignore[arg-type]

    def for_loss(self, columns: Iterable[str]) -> Evidence:
        """Without the optional columns that are not among `columns`: what an engine sends to its workers."""
        kept = {*columns, "support", "teacher_support", "wrong_support"}
        optional = [f.name for f in fields(self) if f.default is None and f.name != "held"]
        return self.with_columns(**{name: None for name in optional if name not in kept})


@dataclass(frozen=True)
class Policy:
    """The student at the tokens of a micro-batch, with gradient: `log_prob [n]`, and for a method that distils
    `support_log_prob [n, k]` at `Evidence.support`."""

    log_prob: Tensor
    support_log_prob: Tensor | None = None

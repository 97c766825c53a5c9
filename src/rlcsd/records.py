"""The plain records that pass from stage to stage, in the order in which a training step makes them.

    Problem → Sample → Rollout, Group → Hint, TrainingExample → Scores → TokenBatch → StudentLogProbs

This module imports nothing of this package, so every other module may import it. Token ids are integers,
log-probabilities are natural logarithms, and tensors are float32 unless stated otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # a verifier's worker needs records, and no torch
    from torch import Tensor

# ------------------------------------------------------------------ sample


ROLES = ("system", "user", "assistant")
Message = tuple[str, str]  # role and text


def conversation(messages: Any) -> tuple[tuple[Message, ...], str]:
    """A chat in which the user has the last word: the messages before that, and what the user says.

    `messages` are mappings with `role` and `content`, which is a text or a list of `{"type": "text", "text": …}`.

    Raises:
        ValueError: it is not such a chat.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"a chat is a list of messages with role and content, not {str(messages)[:60]!r}")
    turns = tuple(_message(message) for message in messages)
    if turns[-1][0] != "user":
        raise ValueError(f"the last message of a chat must be the user's, not the {turns[-1][0]}'s")
    return turns[:-1], turns[-1][1]


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise ValueError(f"a message of a chat has a role and a content, not {str(message)[:60]!r}")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(f"the role of a message is {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role!r}")
    if isinstance(content, list | tuple) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(content, str):
        raise ValueError(f"the content of a message must be text, not {str(content)[:60]!r}")
    if message.get("tool_calls"):
        raise ValueError("a message with tool_calls cannot be shown to a model without tools; leave such rows out")
    return role, content


def written(number: Any) -> Any:
    """A finite number as a model would write it, such as 3 for the 3.0 that a column with gaps makes of it."""
    if isinstance(number, bool) or not isinstance(number, Real | Decimal):
        return number
    if isinstance(number, Integral):
        return str(int(number))
    if not math.isfinite(number):
        return number
    return str(int(float(number))) if float(number).is_integer() and abs(float(number)) < 2**53 else str(number)


@dataclass(frozen=True)
class Problem:
    """One problem. `solution` is a worked solution if the data has one; `group` labels it in tables.

    >>> from rlcsd import Problem
    >>> Problem("Is 7 even or odd?", "odd", solution="7 ends in 7, so it is \\\\boxed{odd}.").answer
    'odd'
    >>> Problem([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}], "4").question
    '2 + 2?'

    `question` may be given as a chat, a list of messages with role and content. It then becomes the text of the last
    message, the user's, and `history` holds the messages before that. A number given as the answer becomes a text
    (`written`). `extra` is for the verifier: the columns of the problem's row.

    Raises:
        ValueError: `question` is neither a text nor a chat in which the user has the last word.
    """

    question: str
    answer: str
    solution: str | None = None
    group: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.question, str):
            before, question = conversation(self.question)
            object.__setattr__(self, "history", (*self.history, *before))
            object.__setattr__(self, "question", question)
        # What a run's copy of its task cannot hold, or leaves out, would come back as another problem.
        object.__setattr__(self, "answer", "" if self.answer is None else written(self.answer))
        object.__setattr__(self, "solution", self.solution or None)
        object.__setattr__(self, "group", "" if self.group is None else str(written(self.group)))

    @property
    def text(self) -> str:
        """The whole conversation as one text: the question, after the messages before it if there are any."""
        return "\n\n".join([*(f"{role}: {text}" for role, text in self.history), self.question])


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `top_k = 0` and `top_p = 1` switch the two filters off.

    With `keep_mask` each `Sample` has its `sampling_mask`; it needs a temperature above 0 and `top_k > 0`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    keep_mask: bool = False


@dataclass(frozen=True, eq=False)
class SamplingMask:
    """The tokens that each of T tokens was sampled from: `ids [M]` int32, token after token, and `counts [T]` int32.

    A count of 0 means the whole vocabulary. Ragged, because a matrix `[T, top_k]` would be mostly padding: top-p often
    keeps one token. On the CPU.
    """

    ids: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def starts(self) -> Tensor:
        """The first entry of each token in `ids`, and M: `[T + 1]`."""
        starts = self.counts.new_zeros(len(self.counts) + 1, dtype=self.counts.cumsum(0).dtype)
        starts[1:] = self.counts.cumsum(0)
        return starts

    def __getitem__(self, tokens: slice) -> SamplingMask:
        """The mask of consecutive tokens."""
        first, end, _ = tokens.indices(len(self))
        return SamplingMask(self.ids[int(self.starts[first]) : int(self.starts[end])], self.counts[first:end])

    def at(self, tokens: Tensor) -> SamplingMask:
        """The mask of the tokens at an index `[n]`, on the CPU."""
        counts = self.counts[tokens]
        ends = counts.cumsum(0)
        within = counts.new_ones(int(counts.sum())).cumsum(0) - 1  # 0, 1, 2 … over all entries
        entries = within + (self.starts[tokens] - (ends - counts)).repeat_interleave(counts)
        return SamplingMask(self.ids[entries], counts)

    def padded(self) -> Tensor:
        """`[T, m]` int32, m the largest count: the ids of each token, then −1."""
        width = int(self.counts.max()) if len(self) else 0
        matrix = self.ids.new_full((len(self), width), -1)
        slots = self.counts.new_ones(width).cumsum(0) - 1
        matrix[slots < self.counts[:, None]] = self.ids
        return matrix


def among_kept(log_prob: Tensor, log_kept_mass: Tensor | None) -> Tensor:
    """Log-probs over the whole vocabulary as those among the kept tokens, whose total probability has this log.

    None: there is no sampling mask, and they stay as they are.
    """
    return log_prob if log_kept_mass is None else log_prob - log_kept_mass


@dataclass(frozen=True, eq=False)
class Sample:
    """One sampled response of T tokens.

    `sampled_log_probs [T]` are those of the distribution that was drawn from, temperature and filters included.
    `log_probs [T]` are the policy's own, at temperature 1 without filters, and `entropies [T]` those of its
    distributions in nats. Both are None where the sampler does not compute them with the trainer's own
    arithmetic (vLLM): the trainer then asks the engine to score the response. `finished` is False if the token
    limit cut the response off. Tensors are on the CPU.

    `sampling_mask` names the tokens that each token was sampled from, if `Sampling.keep_mask` asked for it, and
    `log_kept_mass [T]` is the log of their total probability under the policy at temperature 1, known where
    `log_probs` are.
    """

    ids: tuple[int, ...]
    log_probs: Tensor | None
    sampled_log_probs: Tensor
    finished: bool
    entropies: Tensor | None = None
    sampling_mask: SamplingMask | None = None
    log_kept_mass: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def old_log_probs(self) -> Tensor:
        """`[T]`: the policy's log-probs over the tokens that could be sampled, those of the ratio π / π_old."""
        assert self.log_probs is not None
        return among_kept(self.log_probs, self.log_kept_mass)

    @property
    def entropy(self) -> float | None:
        """The mean of `entropies`, if they are known."""
        return None if self.entropies is None else float(self.entropies.double().mean())


# ------------------------------------------------------------------ grade


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one response.

    >>> from rlcsd import Verdict
    >>> def verifier(response, answer):
    ...     right = answer in response
    ...     return Verdict(right, reward=right - 0.001 * len(response), parts={"length": len(response)})
    >>> verifier("It is odd.", "odd").correct
    True

    `correct` decides accuracy, pools of hints and routes; `reward` is what the advantage is made of. `parts` are named
    figures for the log, and `feedback` may be shown to a teacher. `answer` is what the response gives as its final
    answer, as the verifier read it: None leaves the reading to the task, and "" says that there is none.

    The task sets two more: `error`, where the verifier failed on the response, which then counts as wrong
    (`on_verifier_error=wrong`), and `attempts`, how often the verifier was asked (`on_verifier_error=retry`).

    A verdict is true if it is correct, and as a number it is its reward.
    """

    correct: bool
    reward: float
    parts: Mapping[str, float] = field(default_factory=dict)
    feedback: str | None = None
    answer: str | None = None
    error: str | None = None
    attempts: int = 1

    def __bool__(self) -> bool:
        return self.correct

    def __float__(self) -> float:
        return self.reward


@dataclass(frozen=True)
class Rollout:
    """A graded response. `boxed` is the content of its last box, if any.

    `read` is the final answer as verifier or task read it, "" if they found none; None: they leave it to the box.
    """

    sample: Sample
    text: str
    verdict: Verdict
    boxed: str | None
    read: str | None = None

    @property
    def answer(self) -> str | None:
        """The final answer, None if none can be read."""
        return self.boxed if self.read is None else self.read or None

    @property
    def reward(self) -> float:
        return self.verdict.reward

    @property
    def is_correct(self) -> bool:
        return self.verdict.correct


@dataclass(frozen=True)
class Group:
    """All rollouts of one problem, the ids of the prompt that they answer, and their group advantages."""

    problem: Problem
    prompt: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    advantages: tuple[float, ...]

    @property
    def correct_indices(self) -> list[int]:
        """Indices of the correct rollouts, G⁺, within the group."""
        return [index for index, rollout in enumerate(self.rollouts) if rollout.is_correct]

    @property
    def wrong_indices(self) -> list[int]:
        """Indices of the incorrect rollouts, G⁻, within the group."""
        return [index for index, rollout in enumerate(self.rollouts) if not rollout.is_correct]

    @property
    def is_mixed(self) -> bool:
        """Whether the group has correct rollouts and incorrect ones."""
        return 0 < len(self.correct_indices) < len(self.rollouts)


# ------------------------------------------------------------------ hint


@dataclass(frozen=True)
class Hint:
    """What a teacher's prompt shows beside the question.

    `text` is a worked solution or a sibling's response (None: the answer alone), `answer` its final answer ("": the
    text alone is shown), and `index` its rollout within the group (−1: from the data set). A hint of kind `feedback`
    holds the verifier's feedback on the rollout at `index`, and no answer. One of kind `answer` is the bare answer,
    without any words around it, after the prompt and before the response (CEPO, arXiv 2605.19436).
    """

    text: str | None
    answer: str
    index: int = -1
    kind: Literal["solution", "feedback", "answer"] = "solution"


@dataclass(frozen=True)
class Hints:
    """The hints of one rollout: a correct one, up to K wrong ones, and further correct ones to average over."""

    correct: Hint
    wrong: tuple[Hint, ...] = ()
    extra_correct: tuple[Hint, ...] = ()


@dataclass(frozen=True)
class TrainingExample:
    """One rollout of an optimizer mini-batch: its prompt, its advantage, and the teacher's prompts for it.

    All prompts are token ids. `teacher_prompt` shows the correct hint and is None for a rollout without a teacher;
    `contrast_prompts` show one wrong hint each, `extra_prompts` one further correct hint each. `group` and `index` say
    which rollout of the training step this is.
    """

    prompt: tuple[int, ...]
    rollout: Rollout
    advantage: float
    teacher_prompt: tuple[int, ...] | None = None
    contrast_prompts: tuple[tuple[int, ...], ...] = ()
    extra_prompts: tuple[tuple[int, ...], ...] = ()
    hints: Hints | None = None
    group: int = 0
    index: int = 0

    @property
    def pair(self) -> Pair:
        """The response after the student's own prompt, with its sampling mask."""
        return Pair(self.prompt, self.rollout.sample.ids, self.rollout.sample.sampling_mask)


# ------------------------------------------------------------------ score


@dataclass(frozen=True)
class Pair:
    """A context and the response whose tokens are to be scored after it.

    With a `sampling_mask`, the log of the kept mass of each response token is computed as well.
    """

    context: tuple[int, ...]
    response: tuple[int, ...]
    sampling_mask: SamplingMask | None = field(default=None, compare=False, repr=False)


HintKind = Literal["correct", "wrong"]


@dataclass(frozen=True)
class TopKHandle:
    """Names the top-k token ids of some responses, and log-probs at them, which stay inside the engine.

    `key` is the engine's own; `lengths` are the tokens of each response. Ids and log-probs of k = 100 take 1,200 bytes
    a token, so the trainer never holds the tensors. It releases the handle after the update.
    """

    key: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Per response token, for all pairs laid end to end, N tokens in all: `log_prob [N]` and `entropy [N]` in nats.

    Both are over the whole vocabulary. `topk` is set if the call asked for new top-k ids with `top_k`. With sampling
    masks, `log_kept_mass [N]` is the log of the total probability of the tokens in them, 0 for pairs without one, and
    `kept_log_prob [N]` are the log-probs among these tokens.
    """

    log_prob: Tensor
    entropy: Tensor
    topk: TopKHandle | None = None
    log_kept_mass: Tensor | None = None

    @property
    def kept_log_prob(self) -> Tensor:
        return among_kept(self.log_prob, self.log_kept_mass)


@dataclass(frozen=True)
class TokenBatch:
    """Columns over the N response tokens of one optimizer mini-batch, rollout after rollout. Nothing has a gradient.

    Always present, `[N]`: `rollout` (index of the token's rollout in the mini-batch), `advantage` (of its group),
    `old_log_prob` (of the policy that sampled), `correction` (the rollout-correction weight w_t), `hinted` (bool: the
    rollout has a teacher), `is_correct` (bool: the verifier's verdict on the rollout). For a method that reads it,
    `entropy [N]` of the policy that sampled, in nats.

    With a teacher, and 0 where `hinted` is False: `teacher_log_prob [N]` = log π_T(y|h_c), the log of the mean
    probability if there are several correct hints, and `teacher_entropy [N]` in nats, under the first of them.
    With wrong hints: `contrast_log_prob [N, K]` = log π_T(y|h_w,k) and `contrast_valid [N, K]` (bool).

    If the rollouts have sampling masks, `old_log_prob`, `teacher_log_prob` and the student's `log_prob` in
    `StudentLogProbs` are log-probs among the tokens that could be sampled, so ratios and gaps compare like with like.
    `teacher_log_kept_mass [N]` then is what `teacher_log_prob` lacks to the log-prob over the whole vocabulary
    (`methods.contrast.full_teacher_log_prob`), over which `contrast_log_prob`, entropies and top-k columns are.

    With top-k ids: `topk_handle`, the engine's name for them. Inside the engine's update, for the n tokens of a
    micro-batch: `topk_ids [n, k]`, and the log-probs at them, `teacher_topk [n, k]` and `contrast_topk [n, k]`.

    Set by the method, `[N]`: `contrast` = e_t; `credit`, the token's advantage after the teacher's signal (credit
    methods), or the factor of its divergence (srpo); `selected` (bool), tokens on the method's second path; `lam`, the
    share of the modulated advantage (rlsd); `weight`, the token's share in the loss. `mean_tokens` is the number
    of tokens of the plain mean that a token is in (regularisers and sdar's second term are such means); None: N.
    """

    rollout: Tensor
    advantage: Tensor
    old_log_prob: Tensor
    correction: Tensor
    hinted: Tensor
    is_correct: Tensor
    entropy: Tensor | None = None
    teacher_log_prob: Tensor | None = None
    teacher_entropy: Tensor | None = None
    teacher_log_kept_mass: Tensor | None = None
    contrast_log_prob: Tensor | None = None
    contrast_valid: Tensor | None = None
    topk_handle: TopKHandle | None = None
    topk_ids: Tensor | None = None
    teacher_topk: Tensor | None = None
    contrast_topk: Tensor | None = None
    contrast: Tensor | None = None
    credit: Tensor | None = None
    selected: Tensor | None = None
    lam: Tensor | None = None
    weight: Tensor | None = None
    mean_tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rollout)

    def __getitem__(self, tokens: Tensor | slice) -> TokenBatch:
        """The columns at some of the tokens. `topk_handle` belongs to the whole mini-batch and is left out."""
        present = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "topk_handle"}
        chosen: dict[str, Any] = {name: None if value is None else value[tokens] for name, value in present.items()}
        return TokenBatch(**chosen)

    def with_columns(self, **columns: Tensor | TopKHandle | None) -> TokenBatch:
        """The same record with some columns set."""
        return replace(self, **columns)  # type: ignore[arg-type]

    def for_loss(self, columns: Iterable[str]) -> TokenBatch:
        """Without the optional columns that are not among `columns`: what an engine sends to its workers."""
        kept = {*columns, "mean_tokens", "topk_ids", "teacher_topk", "contrast_topk"}
        optional = [f.name for f in fields(self) if f.default is None and f.name != "topk_handle"]
        return self.with_columns(**{name: None for name in optional if name not in kept})


@dataclass(frozen=True)
class StudentLogProbs:
    """The student at the n tokens of a micro-batch, with gradient: `log_prob [n]` of the sampled tokens, and, for a
    method that distils, `topk_log_prob [n, k]` at `TokenBatch.topk_ids`."""

    log_prob: Tensor
    topk_log_prob: Tensor | None = None

"""What an engine does for the trainer, how the config chooses one, and the token limits of a run.

The trainer knows nothing else about hardware. An engine holds one policy and its teacher; it samples, scores, updates
and saves them. Large tensors (weights, top-k ids and log-probs) stay inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from ..config.schema import Config
from ..errors import InputError, together
from ..methods.base import Method
from ..metrics import Metrics
from ..records import HintKind, Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle


class Scorer(Protocol):
    """Sampling and scoring: what evaluation and inspection need of an engine."""

    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """The device of all columns `[N]` that it takes and returns."""
        ...

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of the model in one sequence."""
        ...

    @property
    def max_sequence(self) -> int:
        """Maximum number of tokens of a prompt and its response together, when sampling."""
        ...

    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        """`n` responses to each prompt."""
        ...

    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        topk_handle: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
        hints: HintKind = "correct",
    ) -> Scores:
        """Log-probs of given responses under `who`, without gradient.

        Args:
            pairs: contexts, and responses of at least one token.
            who: `policy`, `teacher` or `reference`.
            top_k: if positive, keep the k most likely ids under `who` at each response token, and the teacher's
                log-probs at them; `Scores.topk` is the handle, one row for each pair.
            topk_handle: also compute the log-probs at the ids of this handle, and keep them as `hints` says.
            rows: each pair's row in `topk_handle`; by default one after another.
            hints: the hints in the contexts, for `topk_handle`. `correct`: one pair for each row, whose log-probs are
                the teacher's. `wrong`: a row may have several pairs, and the marginal over them is kept
                (`methods.contrast.marginal_log_prob`).
        """
        ...

    def release(self, topk_handle: TopKHandle) -> None:
        """Forget top-k ids. Called once, after the update that used them."""
        ...


class Engine(Scorer, Protocol):
    """A scorer that also trains and saves."""

    def update(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float) -> Metrics:
        """One optimizer step on one prepared mini-batch, `batch` in the order of `pairs`.

        Then the teacher follows the policy by its schedule. Returns metrics (`actor/…`, `update/…`).
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the policy into `folder` in Hugging Face format: a whole model, or adapters with their base's name."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write all that `load_state` needs to resume exactly here (weights, optimizer, teacher) into `folder`."""
        ...

    def snapshot(self) -> Callable[[Path], None] | None:
        """Copy to the host what `save` and `save_state` would write now.

        Returns a function that writes it into a folder and its subfolder `state`, later and in another thread; None
        where checkpoints are not written in the background (`save_in_background`).
        """
        ...

    def load_state(self, folder: Path) -> None:
        """Raises ValueError if the state is not one of this model."""
        ...

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        ...


# ------------------------------------------------------------------ choice by the config


def _package(config: Config) -> ModuleType:
    """`rlcsd.engine.<name>` has `build(config, method, tokenizer, prompts) -> Engine`, `check(config)`,
    `engine_line(config) -> str`, `memory_line(config, method) -> str`, `max_sequence(config, context_length) -> int`,
    and `mask_obstacle(config) -> str`, why it cannot keep sampling masks and what to do, "" if it can.

    The schema has already refused unknown names.
    """
    return import_module(f"{__package__}.{config.engine.name}")


def build_engine(
    config: Config, method: Method, tokenizer: Any = None, prompts: Sequence[tuple[int, ...]] = ()
) -> Engine:
    """The engine that `engine.name` selects.

    Args:
        tokenizer: that of `config.model`, if it is loaded already.
        prompts: of the task, for the engine's self-check.

    Raises:
        InputError: for example for a model that cannot be loaded or a missing device.
    """
    engine: Engine = _package(config).build(config, method, tokenizer, prompts)
    return engine


def check_engine(config: Config) -> None:
    """Raise MissingError if this machine lacks a library or device that the engine needs, and InputError if the engine
    does not support what the config asks for."""
    together(lambda: _package(config).check(config), lambda: keeps_sampling_mask(config))


def keeps_sampling_mask(config: Config) -> bool:
    """Whether training samples have sampling masks: they are truncated, and `sampling_mask` is true, or null and
    nothing is against it.

    Raises:
        InputError: `sampling_mask` is true, and the masks have no bound or the engine cannot keep them.
    """
    if config.sampling_mask is False or not config.sampling.truncated:
        return False
    if config.sampling.top_k == 0:
        obstacle = "sampling.top_k=0 puts no bound on the tokens of a mask; set it, to 512 for example"
    else:
        obstacle = _package(config).mask_obstacle(config)
    if obstacle and config.sampling_mask:
        raise InputError(f"sampling_mask=true: {obstacle}, or set sampling_mask=false")
    return not obstacle


def checked_sampling(config: Config) -> Sampling:
    """How samples are drawn whose log-probs are compared with the scorer's: at temperature 1, to which its log-probs
    belong, from the whole vocabulary, or truncated and with masks where the run's are: a vLLM that returns masks takes
    no request without a bound on them."""
    if keeps_sampling_mask(config):
        return replace(config.sampling.settings(keep_mask=True), temperature=1.0)
    return Sampling(max_tokens=config.sampling.max_tokens)


def engine_line(config: Config) -> str:
    """One line on the devices that the run would use."""
    return str(_package(config).engine_line(config))


def memory_line(config: Config, method: Method) -> str:
    """One line on the memory that the run would need, without loading weights."""
    return str(_package(config).memory_line(config, method))


def max_sequence(config: Config, context_length: int) -> int:
    """`Scorer.max_sequence` of the config's engine, known before it is built; `context_length` is the model's."""
    return int(_package(config).max_sequence(config, context_length))


# ------------------------------------------------------------------ limits


@dataclass(frozen=True)
class TokenLimits:
    """Maximum numbers of tokens in a run.

    `context` is the model's, of one sequence. `prompt` is for a training problem (longer ones are left out),
    `response` is the longest in training or evaluation, and `sequence` is a prompt
    and its response together on a server, which is started with this fixed limit.
    """

    context: int
    prompt: int
    response: int
    sequence: int

    @staticmethod
    def of(config: Config, context: int) -> TokenLimits:
        """The limits of a config for a model with this context length."""
        response = max(config.sampling.max_tokens, config.evaluation.sampling.max_tokens)
        sequence = min(config.max_prompt_tokens + response, context)
        return TokenLimits(context, config.max_prompt_tokens, response, sequence)

    def check_context(self, longest_prompt: int, sampling: Sampling) -> None:
        """Raise InputError if the longest training prompt and a response exceed the model's context."""
        if longest_prompt + sampling.max_tokens > self.context:
            raise InputError(
                f"sampling.max_tokens={sampling.max_tokens}: with a prompt of {longest_prompt} tokens the model's "
                f"context of {self.context} is exceeded; use at most {self.context - longest_prompt}"
            )

    def check_server(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        """Raise InputError for a prompt that leaves less than `max_tokens` for its response on a server.

        vLLM would cut the response short without a message.
        """
        longest = max(map(len, prompts), default=0)
        needed = longest + sampling.max_tokens - self.response
        if needed > self.prompt:
            raise InputError(
                f"max_prompt_tokens={self.prompt}: a prompt of {longest} tokens leaves no room for a "
                f"response of {sampling.max_tokens}; use at least {needed}"
            )

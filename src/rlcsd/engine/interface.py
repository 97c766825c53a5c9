"""What an engine does for the trainer, and how the config chooses one.

The trainer knows nothing else about hardware. An engine holds one policy and its teacher; it samples, scores,
updates and saves them. Large tensors (weights, supports) stay with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from ..config.schema import Config
from ..errors import InputError
from ..methods.base import Method
from ..metrics import Metrics
from ..records import Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle


class Scorer(Protocol):
    """Sampling and scoring: all that measuring a model's hint signals or its accuracy needs."""

    tokenizer: Any

    @property
    def device(self) -> torch.device:
        """Where the columns that it takes and gives are."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens that the model takes at once."""
        ...

    @property
    def room(self) -> int:
        """The most tokens of a prompt and its response together that can be sampled."""
        ...

    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        """`n` responses for each prompt."""
        ...

    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        support: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
    ) -> Scores:
        """Log-probs of given responses under `who` (policy, teacher or reference), without gradient.

        `top_k > 0` makes a new support: the k most likely tokens under `who` at each response token, one row for each
        pair; the teacher's log-probs at it are kept. With `support`, each pair is scored at the support's row that
        `rows` names (by default one after another), and the log-probs are kept as the teacher's; if the teacher's are
        there already, they are those under wrong hints: the engine keeps the marginal over the pairs of a row
        (`methods.contrast.marginal_log_prob`).
        """
        ...

    def release(self, support: TopKHandle) -> None:
        """Forget a support. To be called once, after the update that used it."""
        ...


class Engine(Scorer, Protocol):
    """A scorer that also trains and saves."""

    def update(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float) -> Metrics:
        """One optimizer step on one prepared mini-batch, `batch` in the order of `pairs`.

        The teacher follows as its schedule demands. Returns metrics (`actor/…`, `update/…`).
        """
        ...

    def save(self, folder: Path) -> None:
        """The policy in Hugging Face format under `folder`."""
        ...

    def save_state(self, folder: Path) -> None:
        """All that `load_state` needs to resume exactly here (weights, optimizer, teacher), as files in `folder`."""
        ...

    def load_state(self, folder: Path) -> None:
        """Raises ValueError if the state is not one of this model."""
        ...

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        ...


def _package(config: Config) -> ModuleType:
    """`rlcsd.engine.<name>` has `build(config, method) -> Engine`, `check(config)`, `engine_line(config) -> str` and
    `memory_line(config, method) -> str`.

    The schema has already refused unknown names (`config.engines.ENGINES`).
    """
    return import_module(f"{__package__}.{config.engine.name}")


def build_engine(config: Config, method: Method) -> Engine:
    """The engine that `engine.name` selects.

    Raises InputError for a model that cannot be loaded, a device that is not there …
    """
    engine: Engine = _package(config).build(config, method)
    return engine


def check_engine(config: Config) -> None:
    """Raise MissingError if this machine lacks a library or a device that the config's engine needs.

    Raises InputError if the engine does not do what the config asks for.
    """
    _package(config).check(config)


def engine_line(config: Config) -> str:
    """One line on where the config's engine would compute."""
    return str(_package(config).engine_line(config))


def memory_line(config: Config, method: Method) -> str:
    """One line on the memory that the config's engine will need, without loading weights."""
    return str(_package(config).memory_line(config, method))


def longest_response(config: Config) -> int:
    """The most tokens of a response, in training or in evaluation."""
    return max(config.sampling.max_tokens, config.evaluation.sampling.max_tokens)


def server_room(config: Config, context: int) -> int:
    """The tokens of a prompt and its response together that a server is started for; `context` is the model's."""
    return min(config.max_prompt_tokens + longest_response(config), context)


def check_room(config: Config, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    """Raise InputError for a prompt that leaves a server less than `max_tokens` for its response.

    A server of vLLM has a fixed room for both together, and would cut the response short without a word.
    """
    longest = max(map(len, prompts), default=0)
    needed = longest + sampling.max_tokens - longest_response(config)
    if needed > config.max_prompt_tokens:
        raise InputError(
            f"max_prompt_tokens={config.max_prompt_tokens}: a prompt of {longest} tokens leaves no room for a "
            f"response of {sampling.max_tokens}; use at least {needed}"
        )

"""What the driver sends to one worker, and what it gets back: flat arrays, so that sending costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...records import Pair, TokenBatch


@dataclass(frozen=True)
class Rows:
    """Pairs as token ids laid end to end, with the lengths of each context and response."""

    ids: NDArray[np.int32]
    contexts: tuple[int, ...]
    responses: tuple[int, ...]

    @staticmethod
    def of(pairs: Sequence[Pair]) -> Rows:
        ids = [np.fromiter(tokens, np.int32, len(tokens)) for pair in pairs for tokens in (pair.context, pair.response)]
        joined = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        return Rows(joined, tuple(len(p.context) for p in pairs), tuple(len(p.response) for p in pairs))

    def pairs(self) -> list[Pair]:
        ids, start, pairs = self.ids.tolist(), 0, []
        for context, response in zip(self.contexts, self.responses, strict=True):
            middle, end = start + context, start + context + response
            pairs.append(Pair(tuple(ids[start:middle]), tuple(ids[middle:end])))
            start = end
        return pairs


@dataclass(frozen=True)
class ScoreTask:
    """Score `rows` under `who`; with `top_k` make the support `key`, else with `key` score at its rows `places`."""

    rows: Rows
    who: str
    top_k: int = 0
    key: int | None = None
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class Columns:
    """`log_prob [n]` and `entropy [n]` of a worker's rows, and how many tokens went through the model for them."""

    log_prob: Tensor
    entropy: Tensor
    computed: int = 0


@dataclass(frozen=True)
class UpdateTask:
    """One worker's rows of a prepared mini-batch of `tokens` response tokens, with the columns that its loss reads.

    `batch.topk_handle` names the worker's part of the support; `method` is the config that the method is rebuilt from.
    """

    rows: Rows
    batch: TokenBatch
    method: Mapping[str, Any]
    tokens: int
    learning_rate: float = 0.0


@dataclass(frozen=True)
class Updated:
    """Sums over a worker's tokens, how many of its rows had a gradient, the norm of all workers' gradient before
    clipping, the sum of squares of all workers' weights, and whether there was a step."""

    sums: dict[str, float]
    rows: int
    grad_norm: float
    squares: float
    updated: bool = True

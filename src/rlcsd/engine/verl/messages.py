"""Messages between the driver and one worker: flat arrays, which Ray sends cheaply.

`n` is the number of response tokens of the worker's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...layout import Layout, joined_masks
from ...records import HintKind, Pair, SamplingMask, TokenBatch


@dataclass(frozen=True)
class Rows:
    """Pairs as token ids laid end to end, with the lengths of each context and response.

    `kept` are the ids and counts of the pairs' sampling masks, `[M]` and `[n]`, None if no pair has one.
    """

    ids: NDArray[np.int32]
    contexts: tuple[int, ...]
    responses: tuple[int, ...]
    kept: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None

    @staticmethod
    def of(pairs: Sequence[Pair]) -> Rows:
        ids = [np.fromiter(tokens, np.int32, len(tokens)) for pair in pairs for tokens in (pair.context, pair.response)]
        joined = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        mask = joined_masks(pairs)
        kept = None if mask is None else (mask.ids.numpy(), mask.counts.numpy())
        return Rows(joined, tuple(len(p.context) for p in pairs), tuple(len(p.response) for p in pairs), kept)

    def pairs(self) -> list[Pair]:
        ids, start, pairs = self.ids.tolist(), 0, []
        # Ray's arrays cannot be written to, and torch would warn of that.
        mask = None if self.kept is None else SamplingMask(*(torch.from_numpy(part.copy()) for part in self.kept))
        layout = Layout(self.responses)
        for row, (context, response) in enumerate(zip(self.contexts, self.responses, strict=True)):
            middle, end = start + context, start + context + response
            of_row = None if mask is None else mask[layout.span(row)]
            pairs.append(Pair(tuple(ids[start:middle]), tuple(ids[middle:end]), of_row))
            start = end
        return pairs


@dataclass(frozen=True)
class ScoreTask:
    """Score `rows` under `who` (policy, teacher or reference).

    With `top_k`, store the k most likely tokens under `key`; without it, a `key` asks for the log-probs of the tokens
    stored under it, each row at the stored row that `indices` names; they are kept as those under these `hints`.
    """

    rows: Rows
    who: str
    top_k: int = 0
    key: int | None = None
    indices: tuple[int, ...] = ()
    hints: HintKind = "correct"


@dataclass(frozen=True)
class Columns:
    """`log_prob [n]`, `entropy [n]` and, with sampling masks, `log_kept_mass [n]`.

    `computed`: how many tokens went through the model for them.
    """

    log_prob: Tensor
    entropy: Tensor
    computed: int = 0
    log_kept_mass: Tensor | None = None


@dataclass(frozen=True)
class UpdateTask:
    """A worker's rows of a prepared mini-batch of `tokens` response tokens, with the columns that the loss reads.

    `batch.topk_handle` names the worker's top-k log-probs; `method` is the config that the method is rebuilt from.
    """

    rows: Rows
    batch: TokenBatch
    method: Mapping[str, Any]
    tokens: int
    learning_rate: float = 0.0


@dataclass(frozen=True)
class Updated:
    """Result of an update.

    `sums` over the worker's tokens and the number of its `rows` with a gradient are the worker's own; `grad_norm`
    (before clipping), `square_sum` (of the trained weights) and `changed` (weights that the step changed, and that were
    looked at) are those of all workers. `updated` is False if the gradient was not finite, so that no step was made.
    """

    sums: dict[str, float]
    rows: int
    grad_norm: float
    square_sum: float
    changed: tuple[float, ...]
    updated: bool = True

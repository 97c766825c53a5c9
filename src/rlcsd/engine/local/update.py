"""One optimizer mini-batch, cut into micro-batches by tokens; the gradient does not depend on the cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...layout import Layout
from ...methods.base import Method, update_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import Pair, StudentLogProbs, TokenBatch
from .caches import Ids, SharedPrompts, micro_batches, padded, predicts_response
from .model import Network
from .scoring import TopKStore


@dataclass(frozen=True)
class MiniBatch:
    """One prepared optimizer mini-batch, `token_batch` in the order of `pairs`, and what its loss consists of.

    `reference [N]` are the reference's log-probs, needed with a reference KL; `supports` holds its top-k ids.
    """

    pairs: Sequence[Pair]
    token_batch: TokenBatch
    method: Method
    regularisers: Regularisers = field(default_factory=Regularisers)
    reference: Tensor | None = None
    supports: TopKStore = field(default_factory=TopKStore)

    def rows_to_update(self) -> list[int]:
        """Rows with a token whose loss can have a gradient. The others have already counted in the weights."""
        needed = self.method.needs_update(self.token_batch).split([len(pair.response) for pair in self.pairs])
        return [row for row, tokens in enumerate(needed) if self.regularisers.any or bool(tokens.any())]


def response_hidden(network: Network, pairs: Sequence[Pair], pad: int, shared: SharedPrompts | None = None) -> Tensor:
    """Hidden states that predict each response token, `[n, H]`, with gradient; rows are right-padded."""
    if shared is not None:
        return shared.hidden(pairs)
    ids, mask = padded([(*pair.context, *pair.response) for pair in pairs], pad, network.device, left=False)
    hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    return hidden[predicts_response(pairs, ids.shape[1], network.device)]


def prompts_to_share(network: Network, pairs: Sequence[Pair], budget: int) -> list[list[Ids]] | None:
    """The pairs' prompts in blocks of at most `budget` tokens, each block to be computed once for all its responses.

    None where sharing does not pay or is not possible; how a mini-batch is cut does not enter that decision.
    """
    prompts = list(dict.fromkeys(pair.context for pair in pairs))
    if 2 * len(prompts) > len(pairs) or not SharedPrompts.possible(network, pairs):
        return None
    blocks: list[list[Ids]] = [[]]
    for prompt in prompts:
        if blocks[-1] and (len(blocks[-1]) + 1) * max(map(len, (*blocks[-1], prompt))) > budget:
            blocks.append([])
        blocks[-1].append(prompt)
    return blocks


def accumulate(network: Network, batch: MiniBatch, *, pad_id: int, budget: int) -> Metrics:
    """Add the mini-batch's gradient to the policy; returns metrics (`actor/…`).

    No forward pass with gradient has more than `budget` tokens, padding included, unless one row alone has more.
    """
    rows = batch.rows_to_update()
    blocks = prompts_to_share(network, [batch.pairs[row] for row in rows], budget)
    layout = Layout(tuple(len(pair.response) for pair in batch.pairs), network.device)
    sums: dict[str, float] = defaultdict(float)

    def add(mine: Sequence[int], shared: SharedPrompts | None) -> None:
        # A shared prompt is no part of the micro-batches.
        lengths = [(0 if shared else len(pair.context)) + len(pair.response) for pair in batch.pairs]
        for chunk in micro_batches(lengths, mine, budget):
            pairs = [batch.pairs[row] for row in chunk]
            for name, value in _backward(network, batch, pairs, layout.tokens(chunk), pad_id, shared).items():
                sums[name] += value

    if blocks is None:
        add(rows, None)
    for block in blocks or ():
        with network.precision():
            shared = SharedPrompts(network, block, pad_id)
        add([row for row in rows if batch.pairs[row].context in shared.row_of], shared)
        shared.backward()
    return update_metrics(sums, len(rows), len(batch.pairs))


def _backward(
    network: Network, batch: MiniBatch, pairs: Sequence[Pair], tokens: Tensor, pad_id: int, shared: SharedPrompts | None
) -> dict[str, float]:
    """Forward and backward of one micro-batch, whose response tokens are `tokens` of the mini-batch; returns sums
    over them."""
    part = batch.supports.columns(batch.token_batch, tokens)
    ids = torch.tensor([token for pair in pairs for token in pair.response], device=network.device)
    with network.precision():
        hidden = response_hidden(network, pairs, pad_id, shared)
        output = network.head(hidden, ids, part.topk_ids, entropy=batch.regularisers.entropy > 0)
    # In float64 from here: differences of close log-probs keep their digits.
    at_support = None if output.topk_log_prob is None else output.topk_log_prob.double()
    loss = batch.method.token_loss(StudentLogProbs(output.log_prob.double(), at_support), part).sum()
    reference = None if batch.reference is None else batch.reference[tokens]
    extra = batch.regularisers.token_loss(output.log_prob, output.entropy, reference, len(batch.token_batch))
    if extra is not None:
        loss = loss + extra.sum()
    loss.backward()
    return batch.method.update_sums(float(loss.detach()), output.log_prob.detach(), part)

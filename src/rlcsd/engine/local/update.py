"""The gradient of one optimizer mini-batch, cut into micro-batches by tokens; it does not depend on the cut.

`rows_to_update` and `backward` are also what the verl engine's workers call, so that both engines compute one loss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...layout import Layout, joined_masks
from ...methods.base import Method, update_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import Pair, StudentLogProbs, TokenBatch
from ..head import HeadOutput
from .caches import Ids, SharedPrompts, micro_batches, padded
from .model import Network
from .scoring import TopKStore


@dataclass(frozen=True)
class MiniBatch:
    """One prepared optimizer mini-batch, `token_batch` in the order of `pairs`, and the parts of its loss.

    `reference [N]` are the reference's log-probs, needed with a reference KL; `topk` holds the ids of the batch's
    `topk_handle`.
    """

    pairs: Sequence[Pair]
    token_batch: TokenBatch
    method: Method
    regularisers: Regularisers = field(default_factory=Regularisers)
    reference: Tensor | None = None
    topk: TopKStore = field(default_factory=TopKStore)


def rows_to_update(method: Method, batch: TokenBatch, lengths: Sequence[int], regularisers: Regularisers) -> list[int]:
    """Rows with a token whose loss can have a gradient; `lengths` are the tokens of each row's response.

    The other rows need no forward pass: they have already counted in the weights of the means.
    """
    needed = method.needs_update(batch).cpu().split(list(lengths))
    return [row for row, tokens in enumerate(needed) if regularisers.any or bool(tokens.any())]


def backward(
    output: HeadOutput,
    part: TokenBatch,
    method: Method,
    regularisers: Regularisers,
    reference: Tensor | None,
    mini_batch_tokens: int,
    scale: float = 1.0,
) -> dict[str, float]:
    """Backpropagate the loss of one micro-batch, times `scale`; returns the unscaled loss and figures as sums.

    Args:
        output: the policy at the n tokens of the micro-batch, with gradient. The method's loss sees the log-probs
            among the tokens of a sampling mask; regularisers are over the whole vocabulary.
        part: the same tokens' columns, top-k columns included.
        reference: the reference's log-probs `[n]`, needed with a reference KL.
        mini_batch_tokens: N of the whole mini-batch on all ranks, over which regularisers are averaged unless
            `part.mean_tokens` has another number for each token.
    """
    # In float64 from here: differences of close log-probs keep their digits.
    topk = None if output.topk_log_prob is None else output.topk_log_prob.double()
    log_prob = output.kept_log_prob
    loss = method.token_loss(StudentLogProbs(log_prob.double(), topk), part).sum()
    tokens = mini_batch_tokens if part.mean_tokens is None else part.mean_tokens.to(output.log_prob.dtype)
    extra = regularisers.token_loss(output.log_prob, output.entropy, reference, tokens)
    if extra is not None:
        loss = loss + extra.sum()
    (loss * scale).backward()
    return method.update_sums(float(loss.detach()), log_prob.detach(), part)


def accumulate(network: Network, batch: MiniBatch, *, pad_id: int, budget: int) -> Metrics:
    """Add the mini-batch's gradient to the policy; returns metrics (`actor/…`).

    No forward pass with gradient has more than `budget` tokens, padding included, unless one row alone has more.
    """
    layout = Layout(tuple(len(pair.response) for pair in batch.pairs), network.device)
    rows = rows_to_update(batch.method, batch.token_batch, layout.lengths, batch.regularisers)
    blocks = prompts_to_share(network, [batch.pairs[row] for row in rows], budget)
    sums: dict[str, float] = defaultdict(float)

    def add(mine: Sequence[int], shared: SharedPrompts | None) -> None:
        # A shared prompt is no part of the micro-batches.
        lengths = [(0 if shared else len(pair.context)) + len(pair.response) for pair in batch.pairs]
        for chunk in micro_batches(lengths, mine, budget):
            pairs = [batch.pairs[row] for row in chunk]
            for name, value in _micro_batch(network, batch, pairs, layout.tokens(chunk), pad_id, shared).items():
                sums[name] += value

    if blocks is None:
        add(rows, None)
    for block in blocks or ():
        with network.precision():
            shared = SharedPrompts(network, block, pad_id)
        add([row for row in rows if batch.pairs[row].context in shared.row_of], shared)
        shared.backward()
    return update_metrics(sums, len(rows), len(batch.pairs))


def _micro_batch(
    network: Network, batch: MiniBatch, pairs: Sequence[Pair], tokens: Tensor, pad_id: int, shared: SharedPrompts | None
) -> dict[str, float]:
    """Forward and backward of some pairs, whose response tokens are `tokens [n]` of the mini-batch."""
    part = batch.topk.columns(batch.token_batch, tokens)
    ids = torch.tensor([token for pair in pairs for token in pair.response], device=network.device)
    with network.precision():
        hidden = response_hidden(network, pairs, pad_id, shared)
        output = network.head(hidden, ids, part.topk_ids, batch.regularisers.entropy > 0, joined_masks(pairs))
    reference = None if batch.reference is None else batch.reference[tokens]
    return backward(output, part, batch.method, batch.regularisers, reference, len(batch.token_batch))


def response_hidden(network: Network, pairs: Sequence[Pair], pad: int, shared: SharedPrompts | None = None) -> Tensor:
    """Hidden states `[n, H]` that predict each response token, with gradient; after `shared` prompts if given."""
    if shared is not None:
        return shared.hidden(pairs)
    ids, mask = padded([(*pair.context, *pair.response) for pair in pairs], pad, network.device, left=False)
    hidden = network.hidden(input_ids=ids, attention_mask=mask, use_cache=False)
    return hidden[_predicts_response(pairs, ids.shape[1], network.device)]


def _predicts_response(pairs: Sequence[Pair], width: int, device: torch.device) -> Tensor:
    """Bool `[R, width]`: positions of context + response, padded at the end, whose output predicts a response token."""
    contexts = torch.tensor([len(pair.context) for pair in pairs], device=device)[:, None]
    responses = torch.tensor([len(pair.response) for pair in pairs], device=device)[:, None]
    positions = torch.arange(width, device=device)
    return (positions >= contexts - 1) & (positions < contexts + responses - 1)


def prompts_to_share(network: Network, pairs: Sequence[Pair], budget: int) -> list[list[Ids]] | None:
    """The pairs' prompts in blocks of at most `budget` tokens, each block to be computed once for all its responses.

    None where sharing does not pay (fewer than two responses a prompt) or is not possible. The decision does not depend
    on how the mini-batch is cut.
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

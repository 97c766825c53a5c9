"""The update on one rank: its rows' share of the gradient, and one optimizer step of all ranks together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ...config.load import build_method
from ...records import Pair, StudentLogProbs, TokenBatch
from .messages import Updated, UpdateTask
from .model import FILLER
from .rank import Rank, chunks, whole
from .scoring import figures
from .shadows import local


def update(rank: Rank, task: UpdateTask) -> Updated:
    """One optimizer step of all ranks together, each with its rows."""
    engine = rank.engine
    with rank.ready("train"):
        engine.optimizer_zero_grad()
        sums, rows = _accumulate(rank, task)
        for group in engine.optimizer.param_groups:
            group["lr"] = task.learning_rate
        norm = float(engine.optimizer_step())
        finite = math.isfinite(norm)
        if finite:
            rank.optimizer_steps += 1
            for shadow in rank.shadows.values():
                shadow.follow(rank.optimizer_steps)
        rank.network.reshard()
        return Updated(sums, rows, norm, squares(rank), finite)


def gradient(rank: Rank, task: UpdateTask) -> dict[str, Tensor]:
    """The gradient alone, whole, by the names of the trained parameters; every rank takes part."""
    with rank.ready("train"):
        rank.engine.optimizer_zero_grad()
        _accumulate(rank, task)
        return {name: whole(p.grad) for name, p in rank.network.named_trainable().items() if p.grad is not None}


def squares(rank: Rank) -> float:
    """The sum of squares of the trained weights; every rank takes part."""
    shards = (local(parameter) for parameter in rank.network.trainable())
    mine = sum(float(torch.linalg.vector_norm(s, dtype=torch.float32).double() ** 2) for s in shards)
    total = torch.tensor(mine, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total)


def _accumulate(rank: Rank, task: UpdateTask) -> tuple[dict[str, float], int]:
    """Backward over this rank's micro-batches; sums of the figures, and how many rows had a gradient."""
    pairs, batch, device = task.rows.pairs(), task.batch, rank.network.device
    batch = batch.with_columns(**{n: c.to(device) for n, c in vars(batch).items() if isinstance(c, Tensor)})
    if task.method != rank.method.config.model_dump():
        rank.method = build_method(rank.run.model_copy(update={"method": dict(task.method)}))
    lengths = [len(pair.response) for pair in pairs]
    reference = _reference(rank, pairs)
    needed = rank.method.needs_update(batch).split(lengths)
    rows = [row for row, tokens in enumerate(needed) if rank.regularisers.any or bool(tokens.any())]
    places = torch.arange(len(batch), device=device).split(lengths)
    sums: dict[str, float] = defaultdict(float)
    for chunk in chunks(pairs, rows, rank.settings.micro_batch_tokens):
        if not chunk:
            _backward_of_nothing(rank)
            continue
        tokens = torch.cat([places[row] for row in chunk])
        found = _backward(rank, [pairs[row] for row in chunk], tokens, batch, reference, task.tokens)
        for name, value in found.items():
            sums[name] += value
    return dict(sums), len(rows)


def _reference(rank: Rank, pairs: Sequence[Pair]) -> Tensor | None:
    """The reference's log-probs `[n]` of this rank's rows; every rank takes part."""
    if rank.regularisers.kl == 0:
        return None
    with torch.no_grad(), rank.shadows["reference"].in_place():
        rank.network.model.eval()
        out = figures(rank, pairs)
        rank.network.model.train()
    return torch.zeros(0, device=rank.network.device) if out is None else out.log_prob


def _backward(
    rank: Rank, pairs: Sequence[Pair], tokens: Tensor, batch: TokenBatch, reference: Tensor | None, mini_batch: int
) -> dict[str, float]:
    """Forward and backward of one micro-batch; the mini-batch has so many tokens on all ranks."""
    part = _with_support(rank, batch, tokens)
    output = rank.network.packed(pairs, support=part.topk_ids, entropy=rank.regularisers.entropy > 0)
    at_support = None if output.topk_log_prob is None else output.topk_log_prob.double()
    loss = rank.method.token_loss(StudentLogProbs(output.log_prob.double(), at_support), part).sum()
    theirs = None if reference is None else reference[tokens]
    extra = rank.regularisers.token_loss(output.log_prob, output.entropy, theirs, mini_batch)
    if extra is not None:
        loss = loss + extra.sum()
    _scaled(rank, loss).backward()
    return rank.method.update_sums(float(loss.detach()), output.log_prob.detach(), part)


def _backward_of_nothing(rank: Rank) -> None:
    """The same collectives as a micro-batch, and no gradient."""
    output = rank.network.packed([FILLER], entropy=False)
    _scaled(rank, output.log_prob.sum() * 0.0).backward()


def _scaled(rank: Rank, loss: Tensor) -> Tensor:
    return loss * rank.engine.get_data_parallel_size()  # FSDP2 averages over ranks, and a loss is a sum


def _with_support(rank: Rank, batch: TokenBatch, tokens: Tensor) -> TokenBatch:
    """The columns of a micro-batch; a rank that keeps no row of the support has blank ones."""
    held = None if batch.topk_handle is None else rank.held.get(batch.topk_handle.key)
    if held is not None or batch.topk_handle is None:
        return rank.supports.columns(batch.with_columns(topk_handle=held), tokens)
    blank = torch.zeros(len(tokens), 1, device=tokens.device)
    return batch[tokens].with_columns(
        topk_ids=blank.long(), teacher_topk=blank, contrast_topk=blank if rank.method.needs_contrast else None
    )

"""What one rank holds: the model's shards, the weights that follow it, and its part of each support."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...config.load import build_method
from ...config.schema import Config
from ...methods.base import HintedConfig, TeacherSchedule
from ...methods.losses import Regularisers
from ...records import Pair, StudentLogProbs, TokenBatch, TopKHandle
from ..head import HeadOutput
from ..local import scoring
from ..local.caches import micro_batches
from ..local.scoring import TopKStore
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .settings import engine_settings
from .sharded_model import FILLER, Shadow, ShardedNetwork, local_shard


class Rank:
    """One rank's share of a model. `engine` is verl's, with the model in shards.

    The `policy` also has its teacher and its reference; another model as the teacher has neither.
    """

    def __init__(self, engine: Any, run: Config, policy: bool) -> None:
        self.engine, self.run, self.settings = engine, run, engine_settings(run)
        self.network = ShardedNetwork(engine.module, self.settings.head_chunk, self.settings.sequence_parallel)
        self.supports, self.held = TopKStore(), dict[int, TopKHandle]()  # by the driver's key
        self.method, self.optimizer_steps = build_method(run), 0
        self.regularisers = Regularisers(run.kl_coefficient, run.entropy_coefficient)
        self.shadows: dict[str, Shadow] = {}
        if policy:
            self._add_shadows()

    def _add_shadows(self) -> None:
        wanted, on_cpu = self.method.config, self.settings.offload == "all"
        fixed = TeacherSchedule("fixed")
        with self.ready("eval"):
            if isinstance(wanted, HintedConfig) and wanted.teacher != "model":
                schedule = TeacherSchedule(wanted.teacher, wanted.ema_rate, wanted.snapshot_every)
                self.shadows["teacher"] = Shadow(self.network, schedule, on_cpu)
            if self.regularisers.kl > 0:
                teacher = self.shadows.get("teacher")
                same = teacher if teacher is not None and teacher.schedule == fixed else None
                self.shadows["reference"] = same or Shadow(self.network, fixed, on_cpu)

    @contextmanager
    def ready(self, mode: str) -> Iterator[None]:
        """Weights (in mode `train` moments too) on the device; offloaded again afterwards if the settings say so."""
        with self.engine.train_mode() if mode == "train" else self.engine.eval_mode():
            yield

    def moving_teacher(self) -> Shadow | None:
        """The teacher whose weights change, and so belong to the state."""
        teacher = self.shadows.get("teacher")
        return teacher if teacher is not None and teacher.schedule.moves else None


def chunks(pairs: Sequence[Pair], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """This rank's rows in micro-batches, and then empty ones until every rank has had as many.

    So all ranks run the same number of sharded forward passes, as their collectives demand.
    """
    lengths = [len(pair.context) + len(pair.response) for pair in pairs]
    mine = list(micro_batches(lengths, rows, budget))
    most = torch.tensor(len(mine))
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    yield from mine
    yield from [[] for _ in range(int(most) - len(mine))]


def whole_on_cpu(tensor: Any) -> Tensor:
    """A gradient of all ranks on the CPU; every rank takes part."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).cpu()


# ------------------------------------------------------------------ scoring
# Scoring on one rank: with shared prefixes over gathered weights, or every row in full over sharded ones.

_BLANK = 0  # the id that pads rows; it is masked everywhere


def score(rank: Rank, task: ScoreTask) -> Columns:
    """See `engine.base.Scorer.score`, for this rank's rows."""
    pairs = task.rows.pairs()
    held = None if task.key is None or task.top_k else rank.held.get(task.key)
    support = rank.supports.ids_at(held, task.places) if held is not None and pairs else None
    out = _scored(rank, pairs, task.who, task.top_k, support)
    if out is None:
        return Columns(torch.zeros(0), torch.zeros(0))
    if task.top_k and task.key is not None:
        assert out.topk_ids is not None
        theirs = out.topk_log_prob if task.who == "teacher" else None
        lengths = [len(pair.response) for pair in pairs]
        rank.held[task.key] = rank.supports.add(out.topk_ids, lengths, theirs)
    elif held is not None:
        assert out.topk_log_prob is not None
        rank.supports.keep(held, task.places, out.topk_log_prob)
    assert out.entropy is not None
    return Columns(out.log_prob.float().cpu(), out.entropy.float().cpu(), rank.network.computed)


@torch.no_grad()
def _scored(rank: Rank, pairs: Sequence[Pair], who: str, top_k: int, support: Tensor | None) -> HeadOutput | None:
    rank.network.computed = 0
    with rank.ready("eval"), rank.shadows[who].in_place() if who in rank.shadows else nullcontext():
        return figures(rank, pairs, top_k, support)


def figures(rank: Rank, pairs: Sequence[Pair], top_k: int = 0, support: Tensor | None = None) -> HeadOutput | None:
    """Under the weights that are in place; None for a rank without rows, which takes part all the same."""
    found = (_shared if rank.settings.share_prefixes else _packed)(rank, pairs, top_k, support)
    rank.network.reshard()
    return found


def _shared(rank: Rank, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
    """By the local engine's scorer, which computes every distinct prefix once."""

    def columns() -> dict[str, Tensor]:
        budget = rank.settings.score_tokens
        out = scoring.score(rank.network, pairs, pad_id=_BLANK, budget=budget, top_k=top_k, support=support)
        return {name: column for name, column in vars(out).items() if column is not None}

    with rank.network.gathered():
        if not pairs:
            return None
        found = rank.network.inside(columns)
        return HeadOutput(*(found.get(name) for name in HeadOutput.__annotations__))


def _packed(rank: Rank, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
    """Every row in full, several rows to a forward pass."""
    lengths = [len(pair.response) for pair in pairs]
    parts: list[tuple[list[int], HeadOutput]] = []
    given = None if support is None else support.split(lengths)
    for chunk in chunks(pairs, range(len(pairs)), rank.settings.score_tokens):
        if not chunk:
            rank.network.packed([FILLER])
            continue
        rows = [pairs[row] for row in chunk]
        at = None if given is None else torch.cat([given[row] for row in chunk])
        parts.append((chunk, rank.network.packed(rows, top_k=top_k, support=at)))
    return _in_order(parts, lengths) if parts else None


def _in_order(parts: Sequence[tuple[list[int], HeadOutput]], lengths: Sequence[int]) -> HeadOutput:
    """The columns of several micro-batches, row after row."""
    order = [row for chunk, _ in parts for row in chunk]

    def column(name: str) -> Tensor | None:
        pieces = [getattr(out, name) for _, out in parts]
        if pieces[0] is None:
            return None
        rows = torch.cat(pieces).split([lengths[row] for row in order])
        return torch.cat([piece for _, piece in sorted(zip(order, rows, strict=True), key=lambda one: one[0])])

    return HeadOutput(*(column(name) for name in HeadOutput.__annotations__))  # type: ignore[arg-type]


@torch.no_grad()
def check(rank: Rank, rows: Rows) -> tuple[Tensor, Tensor]:
    """Log-probs of the same responses by a plain pass, row by row, and as the update computes them."""
    pairs = rows.pairs()
    with rank.ready("eval"):
        with rank.network.gathered():
            plain = rank.network.inside(_plain, rank, pairs)
        update = rank.network.packed(pairs, entropy=False).log_prob
        rank.network.reshard()
    return plain.float().cpu(), update.float().cpu()


def _plain(rank: Rank, pairs: Sequence[Pair]) -> Tensor:
    columns = []
    for pair in pairs:
        ids = torch.tensor([[*pair.context, *pair.response]], device=rank.network.device)
        logits = rank.network.core.forward(input_ids=ids, use_cache=False).logits[0, len(pair.context) - 1 : -1]
        columns.append(logits.float().log_softmax(-1).gather(-1, ids[0, len(pair.context) :, None])[:, 0])
    return torch.cat(columns)


# ------------------------------------------------------------------ updating
# The update on one rank: its rows' share of the gradient, and one optimizer step of all ranks together.


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
        return {name: whole_on_cpu(p.grad) for name, p in rank.network.named_trainable().items() if p.grad is not None}


def squares(rank: Rank) -> float:
    """The sum of squares of the trained weights; every rank takes part."""
    shards = (local_shard(parameter) for parameter in rank.network.trainable())
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

"""What one rank holds and computes: scores, gradients and optimizer steps of its rows.

All ranks run the same number of sharded forward passes, because each pass is a collective: a rank that has no rows
left runs one on a filler row. `n` is the number of response tokens of this rank's rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...config.load import build_method, validated
from ...config.schema import Config
from ...layout import Layout
from ...methods.base import HintedConfig, TeacherSchedule
from ...methods.losses import Regularisers
from ...records import Pair, TokenBatch, TopKHandle
from ..head import HeadOutput
from ..local import scoring
from ..local.caches import micro_batches
from ..local.optimizer import changed_counts, watched_values
from ..local.scoring import TopKStore
from ..local.self_check import plain_log_probs, rounding_errors
from ..local.update import backward, rows_to_update
from .compat import full_tensor
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .settings import engine_settings
from .sharded_model import FILLER, ShardedNetwork, WeightCopy, local_shard

_PAD_ID = 0  # any id: padding is masked everywhere


class Rank:
    """One rank's share of a model: its shards, teacher and reference, and top-k log-probs.

    `engine` is verl's, which holds the sharded model. Only the policy's ranks have a teacher and a reference; another
    model as the teacher has neither.
    """

    def __init__(self, engine: Any, run: Config, policy: bool) -> None:
        self.engine, self.run, self.settings = engine, run, engine_settings(run)
        self.network = ShardedNetwork(engine.module, self.settings.head_chunk, self.settings.sequence_parallel)
        self.topk = TopKStore()
        self.topk_handles: dict[int, TopKHandle] = {}  # by the driver's key
        self.method, self.optimizer_steps = build_method(run), 0
        self.regularisers = Regularisers(run.kl_coefficient, run.entropy_coefficient)
        self.copies: dict[str, WeightCopy] = {}  # by role: teacher, reference
        if policy:
            self._add_copies()

    def _add_copies(self) -> None:
        wanted, on_cpu = self.method.config, self.settings.offload == "all"
        fixed = TeacherSchedule("fixed")
        with self.ready("eval"):
            if isinstance(wanted, HintedConfig) and wanted.schedule.copies:
                self.copies["teacher"] = WeightCopy(self.network, wanted.schedule, on_cpu)
            if self.regularisers.kl > 0:
                teacher = self.copies.get("teacher")
                same = teacher if teacher is not None and teacher.schedule == fixed else None
                self.copies["reference"] = same or WeightCopy(self.network, fixed, on_cpu)

    @contextmanager
    def ready(self, mode: str) -> Iterator[None]:
        """Bring weights (and for `train` moments) to the device; afterwards offload what `engine.offload` says."""
        with self.engine.train_mode() if mode == "train" else self.engine.eval_mode():
            yield

    def moving_teacher(self) -> WeightCopy | None:
        """The teacher, if its weights change and so belong to the state."""
        teacher = self.copies.get("teacher")
        return teacher if teacher is not None and teacher.schedule.moves else None

    # ------------------------------------------------------------------ scoring

    def score(self, task: ScoreTask) -> Columns:
        """Score this rank's rows; see `engine.interface.Scorer.score`."""
        pairs = task.rows.pairs()
        handle = None if task.key is None or task.top_k else self.topk_handles.get(task.key)
        topk_ids = self.topk.ids_at(handle, task.indices) if handle is not None and pairs else None
        self.network.computed = 0
        weights = self.copies[task.who].swapped_in() if task.who in self.copies else nullcontext()
        with torch.no_grad(), self.ready("eval"), weights:
            out = self._forward(pairs, task.top_k, topk_ids)
        if out is None:
            return Columns(torch.zeros(0), torch.zeros(0))
        if task.top_k and task.key is not None:
            assert out.topk_ids is not None
            teacher = out.topk_log_prob if task.who == "teacher" else None
            self.topk_handles[task.key] = self.topk.add(out.topk_ids, [len(pair.response) for pair in pairs], teacher)
        elif handle is not None:
            assert out.topk_log_prob is not None
            self.topk.keep(handle, task.indices, out.topk_log_prob, task.hints)
        assert out.entropy is not None
        mass = None if out.log_kept_mass is None else out.log_kept_mass.float().cpu()
        return Columns(out.log_prob.float().cpu(), out.entropy.float().cpu(), self.network.computed, mass)

    def _forward(self, pairs: Sequence[Pair], top_k: int = 0, topk_ids: Tensor | None = None) -> HeadOutput | None:
        """Columns `[n]` under the weights that are swapped in; None on a rank without rows, which takes part too."""
        forward = self._forward_shared if self.settings.share_prefixes else self._forward_packed
        out = forward(pairs, top_k, topk_ids)
        self.network.reshard()
        return out

    def _forward_shared(self, pairs: Sequence[Pair], top_k: int, topk_ids: Tensor | None) -> HeadOutput | None:
        """The local engine's scorer, which computes every distinct prefix once, over gathered weights."""

        def columns() -> dict[str, Tensor]:
            budget = self.settings.score_tokens
            out = scoring.score(self.network, pairs, pad_id=_PAD_ID, budget=budget, top_k=top_k, topk_ids=topk_ids)
            return {name: column for name, column in vars(out).items() if column is not None}

        with self.network.gathered():
            if not pairs:
                return None
            found = self.network.run_inside(columns)
            return HeadOutput(*(found.get(name) for name in HeadOutput.__annotations__))

    def _forward_packed(self, pairs: Sequence[Pair], top_k: int, topk_ids: Tensor | None) -> HeadOutput | None:
        """Every row in full, several rows to a forward pass over sharded weights."""
        layout = Layout(tuple(len(pair.response) for pair in pairs), self.network.device)
        order: list[Tensor] = []
        parts: list[HeadOutput] = []
        for chunk in _chunks(pairs, range(len(pairs)), self.settings.score_tokens):
            if not chunk:
                self.network.packed([FILLER])
                continue
            order.append(layout.tokens(chunk))
            ids = None if topk_ids is None else topk_ids[order[-1]]
            parts.append(self.network.packed([pairs[row] for row in chunk], top_k=top_k, topk_ids=ids))
        if not parts:
            return None
        inverse = torch.cat(order).argsort()

        def in_row_order(name: str) -> Any:
            columns = [getattr(part, name) for part in parts]
            return None if columns[0] is None else torch.cat(columns)[inverse]

        return HeadOutput(*(in_row_order(name) for name in HeadOutput.__annotations__))

    @torch.no_grad()
    def check(self, rows: Rows, seed: int) -> dict[str, Tensor]:
        """Log-probs `[n]` of the responses by a `plain` pass, row by row, and as the `update` computes them; and by how
        much rounding moves those of a plain pass (`noisy`, and `served` with logits rounded as a server's)."""
        pairs, network = rows.pairs(), self.network
        half = torch.bfloat16 if self.run.model.dtype == "bfloat16" else torch.float32

        def plain_and_noisy() -> dict[str, Tensor]:
            plain = plain_log_probs(network, pairs)
            errors = {
                name: rounding_errors(network, pairs, plain, seed, dtype)
                for name, dtype in (("noisy", torch.float32), ("served", half))
            }
            return {"plain": plain, **errors}

        with self.ready("eval"):
            with network.gathered():
                columns = network.run_inside(plain_and_noisy)
            columns["update"] = network.packed(pairs, entropy=False).kept_log_prob
            network.reshard()
        return {name: column.float().cpu() for name, column in columns.items()}

    @torch.no_grad()
    def fill_adapters(self, seed: int | None) -> None:
        """Give new adapters random values, of about a tenth of what their layers compute, or None: zeros as before."""
        lora = self.run.model.lora
        assert lora is not None
        generator = torch.Generator().manual_seed((seed or 0) + dist.get_rank())
        for name, parameter in self.network.named_trainable().items():
            if "lora_B" in name:
                shard = local_shard(parameter)
                values = torch.randn(shard.shape, generator=generator) * (0.1 * lora.rank**0.5 / lora.alpha)
                shard.copy_(values if seed is not None else torch.zeros(()))
        self.network.reshard()

    # ------------------------------------------------------------------ update

    def update(self, task: UpdateTask) -> Updated:
        """One optimizer step of all ranks together, each with the gradient of its rows."""
        engine = self.engine
        with self.ready("train"):
            engine.optimizer_zero_grad()
            sums, rows = self._accumulate(task)
            for group in engine.optimizer.param_groups:
                group["lr"] = task.learning_rate
            before = watched_values(self._shards())
            norm = float(engine.optimizer_step())
            finite = math.isfinite(norm)
            changed: tuple[float, ...] = _summed(*changed_counts(before, self._shards())) if finite else (0.0, 0.0)
            if finite:
                self.optimizer_steps += 1
                for copy in self.copies.values():
                    copy.follow(self.optimizer_steps)
            self.network.reshard()
            return Updated(sums, rows, norm, self.square_sum(), changed, finite)

    def gradient(self, task: UpdateTask) -> dict[str, Tensor]:
        """The whole gradient by the names of the trained parameters, without a step."""
        with self.ready("train"):
            self.engine.optimizer_zero_grad()
            self._accumulate(task)
            named = self.network.named_trainable()
            return {name: full_tensor(p.grad).cpu() for name, p in named.items() if p.grad is not None}

    def square_sum(self) -> float:
        """The sum of squares of all ranks' trained weights."""
        shards = self._shards()
        return _summed(sum(float(torch.linalg.vector_norm(s, dtype=torch.float32).double() ** 2) for s in shards))[0]

    def _shards(self) -> list[Tensor]:
        return [local_shard(parameter) for parameter in self.network.trainable()]

    def _accumulate(self, task: UpdateTask) -> tuple[dict[str, float], int]:
        """Run backward over this rank's micro-batches; returns sums for the metrics, and the number of updated rows."""
        pairs, device = task.rows.pairs(), self.network.device
        batch = task.batch.with_columns(
            **{n: c.to(device) for n, c in vars(task.batch).items() if isinstance(c, Tensor)}
        )
        if task.method != self.method.config.model_dump():
            self.method = build_method(validated({**self.run.model_dump(), "method": dict(task.method)}))
        reference = self._reference_log_probs(pairs)
        layout = Layout(tuple(len(pair.response) for pair in pairs), device)
        rows = rows_to_update(self.method, batch, layout.lengths, self.regularisers)
        sums: dict[str, float] = defaultdict(float)
        for chunk in _chunks(pairs, rows, self.settings.micro_batch_tokens):
            if not chunk:
                (self.network.packed([FILLER], entropy=False).log_prob.sum() * 0.0).backward()
                continue
            found = self._micro_batch(
                [pairs[row] for row in chunk], layout.tokens(chunk), batch, reference, task.tokens
            )
            for name, value in found.items():
                sums[name] += value
        return dict(sums), len(rows)

    def _reference_log_probs(self, pairs: Sequence[Pair]) -> Tensor | None:
        """The reference's log-probs `[n]` of this rank's rows, or None without a reference KL."""
        if self.regularisers.kl == 0:
            return None
        with torch.no_grad(), self.copies["reference"].swapped_in():
            self.network.model.eval()
            out = self._forward(pairs)
            self.network.model.train()
        return torch.zeros(0, device=self.network.device) if out is None else out.log_prob

    def _micro_batch(
        self, pairs: Sequence[Pair], tokens: Tensor, batch: TokenBatch, reference: Tensor | None, mini_batch: int
    ) -> dict[str, float]:
        """Forward and backward of some pairs, whose response tokens are `tokens [n]` of this rank's columns.

        `mini_batch` is the number of tokens of all ranks together.
        """
        part = self._topk_columns(batch, tokens)
        output = self.network.packed(pairs, topk_ids=part.topk_ids, entropy=self.regularisers.entropy > 0)
        at_tokens = None if reference is None else reference[tokens]
        scale = self.engine.get_data_parallel_size()  # FSDP2 averages gradients over ranks, but the loss is a sum
        return backward(output, part, self.method, self.regularisers, at_tokens, mini_batch, scale)

    def _topk_columns(self, batch: TokenBatch, tokens: Tensor) -> TokenBatch:
        """`batch[tokens]` with its top-k columns `[n, k]`; blank ones on a rank that stores none of its rows."""
        handle = None if batch.topk_handle is None else self.topk_handles.get(batch.topk_handle.key)
        if handle is not None or batch.topk_handle is None:
            return self.topk.columns(batch.with_columns(topk_handle=handle), tokens)
        blank = torch.zeros(len(tokens), 1, device=tokens.device)
        return batch[tokens].with_columns(
            topk_ids=blank.long(), teacher_topk=blank, contrast_topk=blank if self.method.needs_contrast else None
        )


def _summed(*values: float) -> tuple[float, ...]:
    """Each value summed over all ranks."""
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return tuple(total.tolist())


def _chunks(pairs: Sequence[Pair], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """The given rows in micro-batches of at most `budget` tokens, then empty ones until all ranks have had as many."""
    lengths = [len(pair.context) + len(pair.response) for pair in pairs]
    mine = list(micro_batches(lengths, rows, budget))
    count = torch.tensor(len(mine))
    dist.all_reduce(count, op=dist.ReduceOp.MAX)
    yield from mine
    yield from [[] for _ in range(int(count) - len(mine))]

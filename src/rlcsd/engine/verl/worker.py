"""What runs on each GPU: the policy (or another model as the teacher) in shards, and the rollout server's other half.

Every rank is called with a part of the work, some with none, and all of them run the same number of sharded forward
passes: those that have none left run one on a filler.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from torch import Tensor

from ...config.load import build_method
from ...config.schema import Config
from ...methods.base import HintedConfig
from ...methods.regularisers import Regularisers
from ...methods.teacher import TeacherSchedule
from ...methods.update_metrics import update_sums
from ...records import Evidence, Pair, Policy, Support
from ..head import HeadOutput
from ..local import scoring
from ..local.batching import micro_batches
from ..local.supports import SupportStore
from . import state
from .export import export
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .model import FILLER, ShardedNetwork
from .private import ActorRolloutRefWorker, get_device_name, start_process_group
from .settings import engine_settings
from .shadows import Shadow, local

_BLANK = 0  # the id that pads rows; it is masked everywhere


class RlcsdWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """One rank. `config` is verl's and `run` this project's. Role `actor` only scores, `actor_rollout` does all."""

    def __init__(self, config: Any, role: str, run: Config) -> None:
        super().__init__(config=config, role=role)
        self.run, self.settings = run, engine_settings(run)

    def start(self, policy: bool) -> int:
        """Load the model and shard it; returns this rank's place among those that have rows of their own.

        The `policy` also has its teacher and its reference.
        """
        if get_device_name() == "cpu":
            torch.set_num_threads(1)
        start_process_group(self.settings.timeout)
        torch.manual_seed(self.run.seed)
        self.init_model()
        engine = self.actor.engine
        self.network = ShardedNetwork(engine.module, self.settings.head_chunk, self.settings.sequence_parallel)
        self.supports, self.held = SupportStore(), dict[int, Support]()
        self.method, self.optimizer_steps = build_method(self.run), 0
        self.regularisers = Regularisers(self.run.kl_coefficient, self.run.entropy_coefficient)
        self.shadows: dict[str, Shadow] = {}
        if policy:
            self._add_shadows()
        return int(engine.get_data_parallel_rank())

    def _add_shadows(self) -> None:
        wanted, on_cpu = self.method.config, self.settings.offload == "all"
        fixed = TeacherSchedule("fixed")
        with self._ready("eval"):
            if isinstance(wanted, HintedConfig) and wanted.teacher != "model":
                schedule = TeacherSchedule(wanted.teacher, wanted.ema_rate, wanted.snapshot_every)
                self.shadows["teacher"] = Shadow(self.network, schedule, on_cpu)
            if self.regularisers.kl > 0:
                teacher = self.shadows.get("teacher")
                same = teacher if teacher is not None and teacher.schedule == fixed else None
                self.shadows["reference"] = same or Shadow(self.network, fixed, on_cpu)

    @contextmanager
    def _ready(self, mode: str) -> Iterator[None]:
        """Weights (and moments) on the device; offloaded again afterwards if the settings say so."""
        engine = self.actor.engine
        with engine.train_mode() if mode == "train" else engine.eval_mode():
            yield

    # ------------------------------------------------------------------ scoring

    def score(self, task: ScoreTask) -> Columns:
        """See `engine.base.Scorer.score`, for this rank's rows."""
        pairs = task.rows.pairs()
        held = None if task.key is None or task.top_k else self.held.get(task.key)
        support = self.supports.ids_at(held, task.places) if held is not None and pairs else None
        out = self._scored(pairs, task.who, task.top_k, support)
        if out is None:
            return Columns(torch.zeros(0), torch.zeros(0))
        if task.top_k and task.key is not None:
            assert out.support is not None
            theirs = out.support_log_prob if task.who == "teacher" else None
            lengths = [len(pair.response) for pair in pairs]
            self.held[task.key] = self.supports.add(out.support, lengths, theirs)
        elif held is not None:
            assert out.support_log_prob is not None
            self.supports.keep(held, task.places, out.support_log_prob)
        assert out.entropy is not None
        return Columns(out.log_prob.float().cpu(), out.entropy.float().cpu(), self.network.computed)

    @torch.no_grad()
    def _scored(self, pairs: Sequence[Pair], who: str, top_k: int, support: Tensor | None) -> HeadOutput | None:
        self.network.computed = 0
        with self._ready("eval"), self.shadows[who].in_place() if who in self.shadows else nullcontext():
            found = (self._shared if self.settings.share_prefixes else self._packed)(pairs, top_k, support)
            self.network.reshard()
            return found

    def _shared(self, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
        """By the local engine's scorer, which computes every distinct prefix once."""
        with self.network.gathered():
            if not pairs:
                return None
            columns = self.network.inside(self._plain_columns, pairs, top_k, support)
            return HeadOutput(*(columns.get(name) for name in HeadOutput.__annotations__))

    def _plain_columns(self, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> dict[str, Tensor]:
        out = scoring.score(
            self.network, pairs, pad_id=_BLANK, budget=self.settings.score_tokens, top_k=top_k, support=support
        )
        return {name: column for name, column in vars(out).items() if column is not None}

    def _packed(self, pairs: Sequence[Pair], top_k: int, support: Tensor | None) -> HeadOutput | None:
        """Every row in full, several rows to a forward pass."""
        lengths = [len(pair.response) for pair in pairs]
        parts: list[tuple[list[int], HeadOutput]] = []
        given = None if support is None else support.split(lengths)
        for chunk in self._chunks(pairs, range(len(pairs)), self.settings.score_tokens):
            if not chunk:
                self.network.packed([FILLER])
                continue
            rows = [pairs[row] for row in chunk]
            at = None if given is None else torch.cat([given[row] for row in chunk])
            parts.append((chunk, self.network.packed(rows, top_k=top_k, support=at)))
        return _in_order(parts, lengths) if parts else None

    def _chunks(self, pairs: Sequence[Pair], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
        """This rank's rows in micro-batches, and then empty ones until every rank has had as many."""
        lengths = [len(pair.context) + len(pair.response) for pair in pairs]
        chunks = list(micro_batches(lengths, rows, budget))
        most = torch.tensor(len(chunks))
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        yield from chunks
        yield from [[] for _ in range(int(most) - len(chunks))]

    @torch.no_grad()
    def check(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Log-probs of the same responses by a plain pass, row by row, and as the update computes them."""
        pairs = rows.pairs()
        with self._ready("eval"):
            with self.network.gathered():
                plain = self.network.inside(self._plain, pairs)
            update = self.network.packed(pairs, entropy=False).log_prob
            self.network.reshard()
        return plain.float().cpu(), update.float().cpu()

    def _plain(self, pairs: Sequence[Pair]) -> Tensor:
        columns = []
        for pair in pairs:
            ids = torch.tensor([[*pair.context, *pair.response]], device=self.network.device)
            logits = self.network.core.forward(input_ids=ids, use_cache=False).logits[0, len(pair.context) - 1 : -1]
            columns.append(logits.float().log_softmax(-1).gather(-1, ids[0, len(pair.context) :, None])[:, 0])
        return torch.cat(columns)

    def kept(self) -> int:
        """How many supports this rank has a part of."""
        return len(self.supports)

    def release(self, key: int) -> None:
        if key in self.held:
            self.supports.release(self.held.pop(key))

    def lend(self, key: int) -> list[Any]:
        """A reference to this rank's part of a support, for the workers of another model: ids, log-probs, lengths."""
        held = self.held.get(key)
        if held is None:
            return [None]
        ids = self.supports.ids_at(held, range(len(held.lengths)))
        columns = (ids, *self.supports.log_probs(held))
        return [ray.put((held.lengths, *(c if c is None else c.cpu() for c in columns)))]

    def borrow(self, lent: tuple[int, list[Any]]) -> None:
        """This rank's part of a support, as it is with the workers of another model."""
        key, reference = lent[0], lent[1][0]
        if reference is None:
            return
        lengths, ids, *columns = ray.get(reference)
        if key not in self.held:
            self.held[key] = self.supports.add(ids.to(self.network.device), lengths, None)
        teacher, wrong = (c if c is None else c.to(self.network.device) for c in columns)
        self.supports.set_log_probs(self.held[key], teacher, wrong)

    # ------------------------------------------------------------------ update

    def update(self, task: UpdateTask) -> Updated:
        """One optimizer step of all ranks together, each with its rows."""
        engine = self.actor.engine
        with self._ready("train"):
            engine.optimizer_zero_grad()
            sums, rows = self._accumulate(task)
            for group in engine.optimizer.param_groups:
                group["lr"] = task.learning_rate
            norm = float(engine.optimizer_step())
            finite = norm == norm and abs(norm) != float("inf")
            if finite:
                self.optimizer_steps += 1
                for shadow in self.shadows.values():
                    shadow.follow(self.optimizer_steps)
            self.network.reshard()
            return Updated(sums, rows, norm, self.squares(), finite)

    def gradient(self, task: UpdateTask) -> dict[str, Tensor]:
        """The gradient alone, whole, by the names of the trained parameters; on rank 0, nothing on the others."""
        with self._ready("train"):
            self.actor.engine.optimizer_zero_grad()
            self._accumulate(task)
            named = self.network.named_trainable()
            whole = {name: _whole(p.grad) for name, p in named.items() if p.grad is not None}
        return whole if self.rank == 0 else {}

    def squares(self) -> float:
        """The sum of squares of this rank's trained weights."""
        shards = (local(parameter) for parameter in self.network.trainable())
        return float(sum(float(torch.linalg.vector_norm(s, dtype=torch.float32).double() ** 2) for s in shards))

    def _accumulate(self, task: UpdateTask) -> tuple[dict[str, float], int]:
        pairs, evidence, device = task.rows.pairs(), task.evidence, self.network.device
        evidence = evidence.with_columns(
            **{n: c.to(device) for n, c in vars(evidence).items() if isinstance(c, Tensor)}
        )
        if task.method != self.method.config.model_dump():
            self.method = build_method(self.run.model_copy(update={"method": dict(task.method)}))
        lengths = [len(pair.response) for pair in pairs]
        reference = self._reference(pairs)
        needed = self.method.needs_update(evidence).split(lengths)
        rows = [row for row, tokens in enumerate(needed) if self.regularisers.any or bool(tokens.any())]
        places = torch.arange(len(evidence), device=device).split(lengths)
        sums: dict[str, float] = defaultdict(float)
        for chunk in self._chunks(pairs, rows, self.settings.micro_batch_tokens):
            if not chunk:
                self._backward_of_nothing(evidence)
                continue
            tokens = torch.cat([places[row] for row in chunk])
            found = self._backward([pairs[row] for row in chunk], tokens, evidence, reference, task.tokens)
            for name, value in found.items():
                sums[name] += value
        return dict(sums), len(rows)

    def _reference(self, pairs: Sequence[Pair]) -> Tensor | None:
        """The reference's log-probs `[n]` of this rank's rows; every rank takes part."""
        if self.regularisers.kl == 0:
            return None
        with torch.no_grad(), self.shadows["reference"].in_place():
            self.network.model.eval()
            out = (self._shared if self.settings.share_prefixes else self._packed)(pairs, 0, None)
            self.network.model.train()
            self.network.reshard()
        return torch.zeros(0, device=self.network.device) if out is None else out.log_prob

    def _backward(
        self, pairs: Sequence[Pair], tokens: Tensor, evidence: Evidence, reference: Tensor | None, whole: int
    ) -> dict[str, float]:
        """Forward and backward of one micro-batch; `whole` is the number of tokens of the mini-batch on all ranks."""
        part = self._with_support(evidence, tokens)
        output = self.network.packed(pairs, support=part.support, entropy=self.regularisers.entropy > 0)
        at_support = None if output.support_log_prob is None else output.support_log_prob.double()
        loss = self.method.token_loss(Policy(output.log_prob.double(), at_support), part).sum()
        theirs = None if reference is None else reference[tokens]
        extra = self.regularisers.token_loss(output.log_prob, output.entropy, theirs, whole)
        if extra is not None:
            loss = loss + extra.sum()
        self._scaled(loss).backward()
        return update_sums(float(loss.detach()), output.log_prob.detach(), part, self.method)

    def _backward_of_nothing(self, evidence: Evidence) -> None:
        """The same collectives as a micro-batch, and no gradient."""
        output = self.network.packed([FILLER], entropy=False)
        self._scaled(output.log_prob.sum() * 0.0).backward()

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss * self.actor.engine.get_data_parallel_size()  # FSDP2 averages over ranks, and a loss is a sum

    def _with_support(self, evidence: Evidence, tokens: Tensor) -> Evidence:
        """The columns of a micro-batch; a rank that keeps no row of the support has blank ones."""
        held = None if evidence.held is None else self.held.get(evidence.held.key)
        if held is not None or evidence.held is None:
            return self.supports.columns(evidence.with_columns(held=held), tokens)
        blank = torch.zeros(len(tokens), 1, device=tokens.device)
        return evidence[tokens].with_columns(
            support=blank.long(), teacher_support=blank, wrong_support=blank if self.method.contrast else None
        )

    # ------------------------------------------------------------------ keeping

    def export(self, folder: str) -> None:
        """The policy in Hugging Face format; the tokenizer is the driver's."""
        with self._ready("eval"):
            export(self.network, self.actor.model_config, Path(folder), self.rank)
        dist.barrier()

    def save_state(self, folder: str) -> None:
        with self._ready("train"):
            state.save(Path(folder), self._tensors(), {"optimizer_steps": self.optimizer_steps}, self.rank)
        dist.barrier()

    def load_state(self, folder: str) -> None:
        """Raises ValueError if the state is not one of this model, OSError if a file is missing."""
        saved = state.Saved(Path(folder))
        optimizer, named = self.actor.engine.optimizer, self.network.named_trainable()
        moving = self._moving_teacher()
        expected = {f"weight/{n}" for n in named} | {f"teacher/{n}" for n in (moving.shards if moving else ())}
        if expected != {name for name in saved.shapes if not name.startswith("moment/")}:
            raise ValueError("other parameters are trained, or another teacher follows them")
        with self._ready("train"), torch.no_grad():
            for name, parameter in named.items():
                local(parameter).copy_(saved.part(f"weight/{name}", parameter))
                optimizer.state.pop(parameter, None)
                for key, like in _moments(parameter).items():
                    if f"moment/{key}/{name}" in saved.shapes:
                        optimizer.state[parameter][key] = _filled(like, saved.part(f"moment/{key}/{name}", like))
            if moving is not None:
                moving.load({n: saved.part(f"teacher/{n}", named[n]) for n in moving.shards})
            self.network.reshard()
        self.optimizer_steps = int(saved.facts["optimizer_steps"])
        dist.barrier()

    def _moving_teacher(self) -> Shadow | None:
        teacher = self.shadows.get("teacher")
        return teacher if teacher is not None and teacher.schedule.moves else None

    def _tensors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name, a tensor sharded as what is to be saved, and this rank's part."""
        named = self.network.named_trainable()
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for name, parameter in named.items():
            found[f"weight/{name}"] = (parameter, local(parameter))
            for key, value in self.actor.engine.optimizer.state.get(parameter, {}).items():
                found[f"moment/{key}/{name}"] = (value, local(value))
        teacher = self._moving_teacher()
        if teacher is not None:
            found |= {f"teacher/{name}": (named[name], shard) for name, shard in teacher.shards.items()}
        return found


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


def _whole(tensor: Any) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).cpu()


def _moments(parameter: Tensor) -> dict[str, Tensor]:
    """What AdamW keeps for a parameter."""
    return {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}


def _filled(like: Tensor, part: Tensor) -> Tensor:
    """A tensor sharded as `like` with this part."""
    if not like.ndim:
        return part
    made = torch.zeros_like(like)
    local(made).copy_(part)
    return made.detach()

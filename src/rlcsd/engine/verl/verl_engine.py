"""The cluster engine, as the trainer sees it: it decides where rows are computed, and talks to workers and servers.

The driver holds token ids and `[N]` columns on the CPU. Weights, moments, teacher, reference and supports stay with
the workers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError
from ...layout import Layout
from ...methods.base import NO_STEP, HintedConfig, Method, step_metrics, update_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle
from ..interface import check_room, server_room
from ..local.model import check_files, context_length, load_tokenizer, teacher_model_config
from ..local.self_check import TOLERANCE
from . import placing
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .servers import Cluster, Workers, requests, sample_of
from .settings import engine_settings, stop_ids
from .waiting import gathered

if TYPE_CHECKING:
    pass


class VerlEngine:
    """See `engine.base.Engine`. One on a Ray cluster at a time; `close` ends all its processes."""

    def __init__(self, config: Config, method: Method, cluster: Cluster) -> None:
        self.config, self.settings, self.method = config, engine_settings(config), method
        self.tokenizer = load_tokenizer(config.model)
        self.stop = stop_ids(config, self.tokenizer)
        self.context_length = context_length(config.model)
        self.room = server_room(config, self.context_length)
        self.cluster = cluster
        self.policy, self.teacher, self.servers = cluster.policy, cluster.teacher, cluster.servers
        self.homes: dict[int, list[tuple[int, int]]] = {}  # by support, each row's rank and its place there
        self.lent: set[int] = set()  # supports that a teacher in workers of its own knows
        self.made, self.version = 0, 0
        self.computed = 0  # tokens, padding included, that the last call of `score` put through the model
        self.first_squares = self.policy.call("squares", "measuring weights")[0]

    @staticmethod
    def start(config: Config, method: Method) -> VerlEngine:
        """The engine on processes of its own, checked if the config says so. Raises InputError; leaves nothing then."""
        torch.manual_seed(config.seed)
        wanted = method.config
        other = wanted.teacher_model if isinstance(wanted, HintedConfig) else None
        models = [config.model]
        if other:
            models.append(teacher_model_config(other, config, load_tokenizer(config.model)))
        for model in models:
            check_files(model)
        cluster = Cluster(config, other)
        try:
            engine = VerlEngine(config, method, cluster)
            if engine.settings.self_check:
                self_check(engine)
        except BaseException:
            cluster.close()
            raise
        return engine

    @property
    def device(self) -> torch.device:
        """The driver's columns are on the CPU."""
        return torch.device("cpu")

    # ------------------------------------------------------------------ sampling

    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        """Samples without the policy's own log-probs: the servers' arithmetic is not the trainer's."""
        check_room(self.config, prompts, sampling)
        self.servers.wake(self.version)
        asked = requests(self.servers.client, prompts, n, sampling, self.stop, seed)
        outputs = gathered(asked, "sampling", self.settings.timeout)
        samples = [sample_of(output, self.stop) for output in outputs]
        return [samples[start : start + n] for start in range(0, len(samples), n)]

    # ------------------------------------------------------------------ scoring

    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        support: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
    ) -> Scores:
        workers = self.teacher if who == "teacher" and self.teacher is not None else self.policy
        elsewhere = workers is self.teacher
        self.servers.sleep()
        ranks = workers.ranks
        rows = list(range(len(pairs))) if rows is None else rows
        if support is None:
            placed = placing.by_context(pairs, ranks)
        else:
            homes = self.homes[support.key]
            placed = placing.at_home([homes[row][0] for row in rows], ranks)
        key = support.key if support is not None else None
        if top_k:
            self.made += 1
            key = self.made
            self.homes[key] = _homes(placed, len(pairs))
            if elsewhere:
                self.lent.add(key)
        if support is not None and elsewhere and support.key not in self.lent:
            self._lend(support.key, self.policy, workers)
            self.lent.add(support.key)
        tasks = [
            ScoreTask(
                Rows.of([pairs[place] for place in mine]),
                who,
                top_k,
                key,
                tuple(self.homes[support.key][rows[place]][1] for place in mine) if support is not None else (),
            )
            for mine in placed
        ]
        found: list[Columns] = workers.call_each("score", f"scoring by the {who}", tasks)
        self.computed = sum(columns.computed for columns in found)
        lengths = tuple(len(pair.response) for pair in pairs)
        log_prob, entropy = (
            _in_order(placed, [getattr(c, name) for c in found], lengths) for name in ("log_prob", "entropy")
        )
        return Scores(log_prob, entropy, TopKHandle(key or 0, lengths) if top_k else None)

    def _lend(self, key: int, owner: Workers, borrower: Workers) -> None:
        """A support from one group of workers to the other, rank by rank and not through the driver."""
        references = owner.call("lend", "lending a support", key)[:: self.settings.sequence_parallel]
        borrower.call_each("borrow", "lending a support", [(key, reference) for reference in references])

    def release(self, support: TopKHandle) -> None:
        if self.homes.pop(support.key, None) is None:
            return
        for workers in (self.policy, *([self.teacher] if self.teacher else [])):
            workers.call("release", "releasing a support", support.key)
        self.lent.discard(support.key)

    # ------------------------------------------------------------------ updating

    def update(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float) -> Metrics:
        tasks = self._update_tasks(pairs, batch, method, learning_rate)
        if not tasks:
            return {**update_metrics({}, 0, len(pairs)), **NO_STEP}
        found: list[Updated] = self.policy.call_each("update", "updating", tasks)
        self.version += 1
        sums: dict[str, float] = {}
        for part in found:
            for name, value in part.sums.items():
                sums[name] = sums.get(name, 0.0) + value
        growth = math.sqrt(found[0].squares / self.first_squares)
        figures = step_metrics(growth, found[0].grad_norm, learning_rate, found[0].updated)
        return {**update_metrics(sums, sum(part.rows for part in found), len(pairs)), **figures}

    def gradient(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method) -> dict[str, Tensor]:
        """The whole gradient of a prepared mini-batch by the names of the trained parameters, without a step."""
        tasks = self._update_tasks(pairs, batch, method, 0.0)
        found: list[dict[str, Tensor]] = self.policy.call_each("gradient", "computing the gradient", tasks)
        return found[0]

    def _update_tasks(
        self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float
    ) -> list[UpdateTask]:
        """Each rank's rows with the columns that the loss reads; none if no row can have a gradient."""
        self.servers.sleep()
        layout = Layout(tuple(len(pair.response) for pair in pairs))
        regularised = Regularisers(self.config.kl_coefficient, self.config.entropy_coefficient).any
        needed = [
            regularised or bool(tokens.any()) for tokens in method.needs_update(batch).split(list(layout.lengths))
        ]
        if not any(needed):
            return []
        homes: list[int | None] = [None] * len(pairs)
        if batch.topk_handle is not None:
            if self.teacher is not None:
                self._lend(batch.topk_handle.key, self.teacher, self.policy)
            asked = [row for row in range(len(pairs)) if bool(batch.hinted[layout.starts[row]])]
            for row, (rank, _) in zip(asked, self.homes[batch.topk_handle.key], strict=True):
                homes[row] = rank
        work = [len(pair.context) + len(pair.response) if n else 1 for pair, n in zip(pairs, needed, strict=True)]
        columns = batch.for_loss(method.loss_columns)
        return [
            UpdateTask(
                Rows.of([pairs[row] for row in mine]),
                columns[layout.tokens(mine)].with_columns(topk_handle=batch.topk_handle),
                method.config.model_dump(),
                len(batch),
                learning_rate,
            )
            for mine in placing.by_length(work, homes, self.policy.ranks)
        ]

    # ------------------------------------------------------------------ keeping

    def save(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("export", "exporting the model", str(folder.resolve()))
        self.tokenizer.save_pretrained(folder)

    def save_state(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("save_state", "saving the state", str(folder.resolve()))

    def load_state(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("load_state", "loading the state", str(folder.resolve()))
        self.version += 1

    def close(self) -> None:
        """End the engine's processes, whatever state they are in, and Ray if it was started for them."""
        self.cluster.close()


def _homes(placed: placing.Places, rows: int) -> list[tuple[int, int]]:
    """By row, the rank that computes it and its place among that rank's rows."""
    homes = {row: (rank, place) for rank, mine in enumerate(placed) for place, row in enumerate(mine)}
    return [homes[row] for row in range(rows)]


def _in_order(placed: placing.Places, columns: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """The ranks' columns as one, in the order of the rows."""
    order = torch.tensor([row for mine in placed for row in mine], dtype=torch.long)
    parts = torch.cat(list(columns)).split([lengths[row] for row in order.tolist()])
    return torch.cat([parts[place] for place in order.argsort().tolist()]) if parts else torch.zeros(0)


# ------------------------------------------------------------------ self_check
# Before a run: do server, scorer and update compute the same log-probs as a plain pass of this very model?

_TOKENS = 24


def self_check(engine: VerlEngine) -> None:
    """Compare all paths on a few short responses that the servers draw, each with a plain pass on the workers.

    Raises:
        InputError: they differ by more than the local engine's tolerance on average over a response.
    """
    rng = random.Random(0)
    ids = [rng.randrange(len(engine.tokenizer)) for _ in range(14)]
    prompts = [tuple(ids[:6]), tuple(ids[:11]), tuple(ids[3:])]
    drawn = [some[0] for some in engine.sample(prompts, 1, Sampling(max_tokens=_TOKENS), seed=0)]
    pairs = [Pair(prompt, sample.ids) for prompt, sample in zip(prompts, drawn, strict=True)]
    scored = engine.score(pairs, "policy").log_prob
    plain, update = engine.policy.call("check", "checking the model", Rows.of(pairs))[0]
    paths = {"rollout server": torch.cat([sample.sampled_log_probs for sample in drawn]), "scorer": scored}
    for name, log_probs in {**paths, "update": update}.items():
        _compare(engine, name, log_probs, plain, [len(pair.response) for pair in pairs])


def _compare(engine: VerlEngine, name: str, log_probs: Tensor, plain: Tensor, lengths: list[int]) -> None:
    worst = max(float(part.abs().mean()) for part in (log_probs - plain).split(lengths))
    allowed = TOLERANCE[torch.bfloat16 if engine.config.model.dtype == "bfloat16" else torch.float32]
    if not worst <= allowed:
        raise InputError(
            f"model.path={engine.config.model.path}: the {name}'s log-probs differ from a plain pass of the model by "
            f"{worst:.3g} nats on average (at most {allowed:g}), so training would be wrong; engine.self_check=false "
            "trains all the same"
        )

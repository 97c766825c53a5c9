"""The cluster engine as the trainer sees it: it assigns rows to ranks and calls workers and rollout servers.

The driver holds token ids and `[N]` columns on the CPU. Weights, optimizer states, teacher, reference and top-k
log-probs stay with the workers. Nothing here imports Ray or verl; `servers.Cluster` does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...config.schema import Config
from ...errors import InputError
from ...layout import Layout, all_masked
from ...methods.base import NO_STEP, Method, step_metrics, update_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import HintKind, Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle
from ..interface import TokenLimits, checked_sampling
from ..local.caches import Ids, families
from ..local.memory import Shape, load_shape
from ..local.model import context_length, load_tokenizer, sliding_windows, text_config
from ..local.self_check import check_prompts, compare, response_lengths
from ..local.update import rows_to_update
from ..local.vllm import sampling_mask_of
from ..out_of_memory import in_phase
from ..throughput import WorkCounter
from .messages import Columns, Rows, ScoreTask, Updated, UpdateTask
from .sampling_masks import returned_mask
from .settings import engine_settings, stop_ids

if TYPE_CHECKING:
    from .servers import Cluster, Workers

Assignment = list[list[int]]  # by rank: the indices of the rows that it computes, ascending


class VerlEngine:
    """See `engine.interface.Engine`. Only one engine on a Ray cluster at a time; `close` ends its processes."""

    def __init__(self, config: Config, method: Method, cluster: Cluster, tokenizer: Any = None) -> None:
        self.config, self.settings, self.method = (config, engine_settings(config), method)
        self.tokenizer = tokenizer or load_tokenizer(config.model)
        self.stop = stop_ids(config, self.tokenizer)
        self.context_length = context_length(config.model)
        self.limits = TokenLimits.of(config, self.context_length)
        self.max_sequence = self.limits.sequence
        self.cluster = cluster
        self.policy, self.teacher, self.servers = (cluster.policy, cluster.teacher, cluster.servers)
        self.owners: dict[int, list[tuple[int, int]]] = {}  # by top-k key: each row's rank, and its index there
        self.with_teacher: set[int] = set()  # top-k keys that the workers of another teacher model have
        self.last_key, self.version = 0, 0
        self.work = WorkCounter(_known_shape(config), config)
        self.computed = 0  # tokens, padding included, that the last call of `score` put through the model
        self.first_square_sum = self.policy.call("square_sum", "measuring weights")[0]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    # ------------------------------------------------------------------ sampling

    @in_phase("sampling")
    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        """Samples without the policy's own log-probs, which the trainer scores: a server's arithmetic differs."""
        self.limits.check_server(prompts, sampling)
        self.servers.wake(self.version)
        distinct = n if sampling.temperature > 0 else 1  # greedy responses to a prompt are all the same
        outputs = self.servers.wait_for(requests(self.servers.client, prompts, distinct, sampling, self.stop, seed))
        greedy = sampling.temperature == 0
        samples = [sample_of(output, self.stop, sampling.keep_mask, greedy) for output in outputs]
        groups = [samples[i : i + distinct] * (n // distinct) for i in range(0, len(samples), distinct)]
        self.work.sampled(prompts, groups)
        return groups

    # ------------------------------------------------------------------ scoring

    @in_phase("scoring")
    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        topk_handle: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
        hints: HintKind = "correct",
    ) -> Scores:
        workers = self.teacher if who == "teacher" and self.teacher is not None else self.policy
        self.servers.sleep()
        pairs = all_masked(pairs)
        rows = list(range(len(pairs))) if rows is None else rows
        if topk_handle is None:
            assignment, key = assign_by_context(pairs, workers.ranks), None
        else:
            key = topk_handle.key
            assignment = assign_to_owners([self.owners[key][row][0] for row in rows], workers.ranks)
            self._share_with_teacher(key, workers)
        if top_k:
            self.last_key += 1
            key = self.last_key
            self.owners[key] = _owners(assignment, len(pairs))
            if workers is self.teacher:
                self.with_teacher.add(key)
        tasks = [
            ScoreTask(
                Rows.of([pairs[index] for index in mine]),
                who,
                top_k,
                key,
                () if topk_handle is None else tuple(self.owners[topk_handle.key][rows[index]][1] for index in mine),
                hints,
            )
            for mine in assignment
        ]
        found: list[Columns] = workers.call_each("score", f"scoring by the {who}", tasks)
        self.computed = sum(columns.computed for columns in found)
        self.work.scored(pairs)
        lengths = tuple(len(pair.response) for pair in pairs)
        masses = [columns.log_kept_mass for columns in found if columns.log_kept_mass is not None]
        return Scores(
            _in_row_order(assignment, [columns.log_prob for columns in found], lengths),
            _in_row_order(assignment, [columns.entropy for columns in found], lengths),
            TopKHandle(self.last_key, lengths) if top_k else None,
            _in_row_order(assignment, masses, lengths) if masses else None,
        )

    def _share_with_teacher(self, key: int, scorer: Workers) -> None:
        """Give the teacher's workers the top-k ids that the policy's workers found, unless they have them."""
        if scorer is self.teacher and key not in self.with_teacher:
            self._move_topk(key, self.policy, scorer)
            self.with_teacher.add(key)

    def _move_topk(self, key: int, source: Workers, target: Workers) -> None:
        """Copy top-k ids and log-probs from rank to rank through Ray's object store, not through the driver."""
        references = source.call("send_topk", "moving top-k log-probs", key)[:: self.settings.sequence_parallel]
        target.call_each("receive_topk", "moving top-k log-probs", [(key, reference) for reference in references])

    def release(self, topk_handle: TopKHandle) -> None:
        if self.owners.pop(topk_handle.key, None) is None:
            return
        for workers in (self.policy, *([self.teacher] if self.teacher else [])):
            workers.call("release", "releasing top-k log-probs", topk_handle.key)
        self.with_teacher.discard(topk_handle.key)

    # ------------------------------------------------------------------ updating

    @in_phase("update")
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
        updated = sum(part.rows for part in found)
        self.work.updated(pairs, updated / len(pairs))
        growth = math.sqrt(found[0].square_sum / self.first_square_sum)
        changed, watched = found[0].changed
        step = step_metrics(growth, found[0].grad_norm, learning_rate, found[0].updated, (changed, watched))
        return {**update_metrics(sums, updated, len(pairs)), **step}

    def gradient(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method) -> dict[str, Tensor]:
        """The whole gradient of a prepared mini-batch, by the names of the trained parameters, without a step."""
        tasks = self._update_tasks(pairs, batch, method, 0.0)
        found: list[dict[str, Tensor]] = self.policy.call_each("gradient", "computing the gradient", tasks)
        return found[0]

    def _update_tasks(
        self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float
    ) -> list[UpdateTask]:
        """Each rank's rows with the columns that the loss reads; empty if no row can have a gradient."""
        self.servers.sleep()
        layout = Layout(tuple(len(pair.response) for pair in pairs))
        regularisers = Regularisers(self.config.kl_coefficient, self.config.entropy_coefficient)
        needed = rows_to_update(method, batch, layout.lengths, regularisers)
        if not needed:
            return []
        work = [1] * len(pairs)
        for row in needed:
            work[row] = len(pairs[row].context) + len(pairs[row].response)
        columns = batch.for_loss(method.loss_columns)
        return [
            UpdateTask(
                Rows.of([pairs[row] for row in mine]),
                columns[layout.tokens(mine)].with_columns(topk_handle=batch.topk_handle),
                method.config.model_dump(),
                len(batch),
                learning_rate,
            )
            for mine in assign_by_length(work, self._topk_owners(batch, layout), self.policy.ranks)
        ]

    def _topk_owners(self, batch: TokenBatch, layout: Layout) -> list[int | None]:
        """By row, the rank of the policy's workers that keeps its top-k log-probs, or None."""
        owners: list[int | None] = [None] * len(layout.lengths)
        if batch.topk_handle is not None:
            if self.teacher is not None:
                self._move_topk(batch.topk_handle.key, self.teacher, self.policy)
            hinted = [row for row in range(len(owners)) if bool(batch.hinted[layout.starts[row]])]
            for row, (rank, _) in zip(hinted, self.owners[batch.topk_handle.key], strict=True):
                owners[row] = rank
        return owners

    # ------------------------------------------------------------------ saving

    @in_phase("saving")
    def save(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("export", "exporting the model", str(folder.resolve()))
        self.tokenizer.save_pretrained(folder)

    @in_phase("saving")
    def save_state(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("save_state", "saving the state", str(folder.resolve()))

    def snapshot(self) -> None:
        """None: workers write their own shards."""

    @in_phase("resume")
    def load_state(self, folder: Path) -> None:
        self.servers.sleep()
        self.policy.call("load_state", "loading the state", str(folder.resolve()))
        self.version += 1

    def close(self) -> None:
        """End the engine's processes, whatever state they are in, and Ray if it was started for them."""
        self.cluster.close()


def _known_shape(config: Config) -> Shape | None:
    try:
        return load_shape(config.model)
    except InputError:
        return None


# ------------------------------------------------------------------ requests to rollout servers


def requests(
    client: Any, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, stop: Sequence[int], seed: int
) -> list[Awaitable[Any]]:
    """`n` requests for each prompt, in the order of the prompts; each has an id and a seed of its own.

    Without `stop` ids, responses have `max_tokens` tokens.
    """
    parameters = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(stop),
        "ignore_eos": not stop,
        "logprobs": True,
    }
    return [
        client.generate(
            f"{seed}-{index}-{number}",
            prompt_ids=list(prompt),
            sampling_params={**parameters, "seed": (seed + index * n + number) % 2**31},
        )
        for index, prompt in enumerate(prompts)
        for number in range(n)
    ]


def sample_of(output: Any, stop: Sequence[int], keep_mask: bool = False, greedy: bool = False) -> Sample:
    """A server's answer as a sample.

    Raises InputError if it has no tokens, or tokens without log-probs or, with `keep_mask`, without a mask.
    """
    ids = tuple(output.token_ids)
    if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
        raise InputError("sampling: a rollout server gave no tokens, or tokens without log-probs")
    mask = sampling_mask_of(returned_mask(output), ids) if keep_mask else None
    # Greedily a token is certain; servers give its log-prob at temperature 1.
    log_probs = torch.zeros(len(ids)) if greedy else torch.tensor(output.log_probs)
    return Sample(ids, None, log_probs, ids[-1] in stop, sampling_mask=mask)


# ------------------------------------------------------------------ rows to ranks


def assign_by_context(pairs: Sequence[Pair], ranks: int) -> Assignment:
    """Rows to score: equal contexts on one rank, prompts that begin alike too where loads stay even.

    A rank computes each of its distinct contexts once, so a context counts once in its load.
    """
    rows_of: dict[Ids, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        rows_of[pair.context].append(row)
    shared: dict[Ids, int] = {}
    units: list[list[Ids]] = []
    for family in families(list(rows_of)) if pairs else ():
        units.append(list(family.contexts))
        shared |= dict.fromkeys(family.contexts, family.root)

    def load(contexts: Sequence[Ids]) -> int:
        own = sum(len(c) - shared[c] + sum(len(pairs[row].response) for row in rows_of[c]) for c in contexts)
        return own + shared[contexts[0]]

    fair = sum(map(load, units)) / ranks
    units = [part for unit in units for part in ([unit] if load(unit) <= fair else [[context] for context in unit])]
    assigned = assign_by_length([load(unit) for unit in units], [None] * len(units), ranks)
    return [sorted(row for unit in mine for context in units[unit] for row in rows_of[context]) for mine in assigned]


def assign_by_length(lengths: Sequence[int], owners: Sequence[int | None], ranks: int) -> Assignment:
    """Rows to update: a row goes to its owner (the rank with its top-k log-probs), the others even the loads out.

    Longest first, each to the rank with the least so far.
    """
    loads, assigned = [0] * ranks, [[] for _ in range(ranks)]  # type: tuple[list[int], Assignment]
    for row in sorted(range(len(lengths)), key=lambda row: (owners[row] is None, -lengths[row], row)):
        owner = owners[row]
        rank = loads.index(min(loads)) if owner is None else owner
        assigned[rank].append(row)
        loads[rank] += lengths[row]
    return [sorted(mine) for mine in assigned]


def assign_to_owners(owners: Sequence[int], ranks: int) -> Assignment:
    """Rows that each have an owner."""
    return [[row for row, owner in enumerate(owners) if owner == rank] for rank in range(ranks)]


def _owners(assignment: Assignment, rows: int) -> list[tuple[int, int]]:
    """By row, the rank that computes it and its index among that rank's rows."""
    owners = {row: (rank, index) for rank, mine in enumerate(assignment) for index, row in enumerate(mine)}
    return [owners[row] for row in range(rows)]


def _in_row_order(assignment: Assignment, columns: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """The ranks' columns `[n]` as one column `[N]` in the order of the rows."""
    layout = Layout(tuple(lengths))
    order = torch.cat([layout.tokens(mine) for mine in assignment])
    return torch.cat(list(columns))[order.argsort()]


# ------------------------------------------------------------------ self-check


_SERVER_SLACK = 1.5  # a server computes with other kernels than the trainer


def self_check(engine: VerlEngine, given: Sequence[Ids] = (), seed: int = 0) -> None:
    """Compare the log-probs of server, scorer and update with a plain forward pass, as `local.self_check` does.

    `given` are prompts to check with, for example of the task. New adapters change nothing, so they get random values
    for the check, which also shows whether servers apply them.

    Raises:
        InputError: on average over a response, one differs by more than the model's rounding noise explains.
    """
    prompts = [prompt[-engine.limits.prompt :] for prompt in given or check_prompts(engine.tokenizer)]
    found = text_config(engine.config.model)
    windows = sliding_windows(found) if found is not None else []
    adapted = engine.config.model.lora is not None
    if adapted:
        engine.policy.call("fill_adapters", "checking adapters", seed)
    room = min(engine.limits.response, engine.limits.sequence - max(map(len, prompts)))
    drawn = checked_sampling(engine.config)
    for tokens in response_lengths(windows, room):
        sampling = replace(drawn, max_tokens=tokens)
        engine.servers.wake(engine.version)
        asked = requests(engine.servers.client, prompts, 1, sampling, (), seed)
        samples = [sample_of(output, (), sampling.keep_mask) for output in engine.servers.wait_for(asked)]
        pairs = [Pair(prompt, s.ids, s.sampling_mask) for prompt, s in zip(prompts, samples, strict=True)]
        served = torch.cat([sample.sampled_log_probs for sample in samples])
        scored = engine.score(pairs, "policy").kept_log_prob
        columns = engine.policy.call("check", "checking the model", Rows.of(pairs), seed)[0]
        lengths = [len(pair.response) for pair in pairs]
        for name, log_probs, errors, slack in (
            ("rollout server", served, "served", _SERVER_SLACK),
            ("scorer", scored, "noisy", 1.0),
            ("update", columns["update"], "noisy", 1.0),
        ):
            differences, noise = (
                torch.stack([part.mean() for part in column.split(lengths)])
                for column in ((log_probs - columns["plain"]).abs(), columns[errors])
            )
            compare(f"model.path={engine.config.model.path}: the {name}", "the model", differences, noise, slack)
    if adapted:
        engine.policy.call("fill_adapters", "checking adapters", None)

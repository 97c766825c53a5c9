"""The local engine: one policy, its teacher, an optimizer."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from ...config.schema import Config
from ...errors import InputError
from ...methods.base import NO_STEP, HintedConfig, Method, TeacherSchedule, step_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle
from ..interface import server_room
from . import optimizer, sampler, scoring
from .memory import load_shape, rows_at_once, shape_of
from .model import Network, Teacher, load_network, load_tokenizer, resolve_device, stop_ids, teacher_model_config
from .optimizer import build_optimizer
from .scoring import TopKStore
from .self_check import self_check
from .update import MiniBatch, accumulate
from .vllm import VllmSampler, vllm_wanted


class LocalEngine:
    """See `engine.base.Engine`. The teacher and the reference are modules of their own, never swapped in."""

    def __init__(self, config: Config, method: Method, network: Network | None = None, tokenizer: Any = None) -> None:
        device = resolve_device(config.engine.device)
        set_threads(with_threads(config).engine.threads)
        torch.manual_seed(config.seed)
        self.config = config
        self.tokenizer = tokenizer or load_tokenizer(config.model)
        self.policy = network or load_network(config.model, device, config.engine.head_chunk)
        self.policy.model.train()
        self.shape = shape_of(self.policy.core.config, self.policy.core)
        self.teacher: Teacher | None = None
        if method.hinted:
            wanted = method.config
            assert isinstance(wanted, HintedConfig)
            other = self._other_teacher(wanted.teacher_model) if wanted.teacher_model else None
            schedule = TeacherSchedule(wanted.teacher, wanted.ema_rate, wanted.snapshot_every)
            self.teacher = Teacher(self.policy, schedule, other)
        self.supports = TopKStore()
        self.regularisers = Regularisers(config.kl_coefficient, config.entropy_coefficient)
        self.reference: Network | None = None
        if config.kl_coefficient > 0:
            fixed = self.teacher is not None and self.teacher.schedule.kind == "fixed"
            self.reference = self.teacher.network if fixed and self.teacher else self.policy.twin()
        self.optimizer = build_optimizer(self.policy.trainable(), config)
        self.optimizer_steps = 0
        self.first_rms = self._rms()
        if config.engine.self_check:
            self_check(self.policy, self.tokenizer.pad_token_id, self.context_length)
        self.vllm: VllmSampler | None = None
        if vllm_wanted(config, device):
            self.vllm = VllmSampler(config, server_room(config, self.context_length))

    def _other_teacher(self, path: str) -> Network:
        """Another model as the teacher. Raises InputError unless it has the policy's vocabulary."""
        named = teacher_model_config(path, self.config, self.tokenizer)
        network = load_network(named, self.policy.device, self.config.engine.head_chunk)
        network.model.eval().requires_grad_(False)
        return network

    @property
    def device(self) -> torch.device:
        return self.policy.device

    @property
    def context_length(self) -> int:
        """Most tokens that the model takes at once."""
        return int(getattr(self.policy.core.config.get_text_config(), "max_position_embeddings", 1 << 30))

    @property
    def room(self) -> int:
        """A server's, where vLLM samples."""
        return self.context_length if self.vllm is None else server_room(self.config, self.context_length)

    def stop_ids(self) -> list[int]:
        return stop_ids(self.policy.core.generation_config, self.tokenizer)

    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        if self.vllm is not None:
            return self.vllm.sample(prompts, n, sampling, seed, self.stop_ids())
        longest = max(map(len, prompts)) + sampling.max_tokens
        with self.policy.precision():
            return sampler.sample(
                self.policy.model,
                prompts,
                n,
                sampling,
                seed=seed,
                stop_ids=self.stop_ids(),
                pad_id=self.tokenizer.pad_token_id,
                max_rows=rows_at_once(self.shape, self.config, n, longest),
            )

    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        support: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
    ) -> Scores:
        teacher = self.teacher.network if self.teacher is not None else None
        network = {"policy": self.policy, "teacher": teacher, "reference": self.reference}[who]
        if network is None:
            raise RuntimeError(f"this run has no {who}")
        rows = list(range(len(pairs))) if rows is None else rows
        training = network.model.training
        network.model.eval()
        columns = scoring.score(
            network,
            pairs,
            pad_id=self.tokenizer.pad_token_id,
            budget=self.config.engine.score_tokens,
            top_k=top_k,
            support=None if support is None else self.supports.ids_at(support, rows),
        )
        network.model.train(training)
        made = None
        if top_k:
            assert columns.topk_ids is not None
            made = self.supports.add(
                columns.topk_ids,
                [len(pair.response) for pair in pairs],
                columns.topk_log_prob if who == "teacher" else None,
            )
        if support is not None:
            assert columns.topk_log_prob is not None
            self.supports.keep(support, rows, columns.topk_log_prob)
        assert columns.entropy is not None
        return Scores(columns.log_prob, columns.entropy, made)

    def release(self, support: TopKHandle) -> None:
        self.supports.release(support)

    def gradient(self, pairs: Sequence[Pair], token_batch: TokenBatch, method: Method) -> Metrics:
        """Accumulate the gradient of one prepared mini-batch, without a step."""
        reference = self.score(pairs, "reference").log_prob if self.reference is not None else None
        batch = MiniBatch(pairs, token_batch, method, self.regularisers, reference, self.supports)
        budget = self.config.engine.micro_batch_tokens
        return accumulate(self.policy, batch, pad_id=self.tokenizer.pad_token_id, budget=budget)

    def update(self, pairs: Sequence[Pair], token_batch: TokenBatch, method: Method, learning_rate: float) -> Metrics:
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.gradient(pairs, token_batch, method)
        if not any(parameter.grad is not None for parameter in self.policy.trainable()):
            # Nothing to learn from: weights, moments and teacher stay.
            return {**metrics, **NO_STEP}
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), self.config.grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.optimizer_steps += 1
            if self.teacher is not None:
                self.teacher.follow(self.policy, self.optimizer_steps)
            if self.vllm is not None:
                self.vllm.sync(self.policy)
        self.optimizer.zero_grad(set_to_none=True)
        return {**metrics, **step_metrics(self._rms() / self.first_rms, float(norm), learning_rate, finite)}

    def _rms(self) -> float:
        """Root mean square of the trained weights."""
        weights = self.policy.trainable()
        wide = [torch.promote_types(weight.dtype, torch.float32) for weight in weights]
        norms = [torch.linalg.vector_norm(w.detach(), dtype=d) for w, d in zip(weights, wide, strict=True)]
        total = torch.stack([norm.double().cpu() for norm in norms]).norm()
        return float(total) / math.sqrt(sum(weight.numel() for weight in weights))

    def save(self, folder: Path) -> None:
        model = self.policy.model
        if self.config.model.quantization is not None:
            model.save_pretrained(folder)  # the adapter alone: its base in 4 bits cannot take it in
            self.tokenizer.save_pretrained(folder)
            return
        if self.policy.core is not model:
            model.save_pretrained(folder / "adapter")
            # Merged, so that the folder loads like any model; in float32, because a small update is lost in bf16.
            model = copy.deepcopy(model).float().merge_and_unload()
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def save_state(self, folder: Path) -> None:
        # Frozen weights and the reference are those of step 0, which the config's model gives again.
        teacher = self.teacher.state() if self.teacher is not None else {}
        trained = {name: parameter.detach() for name, parameter in self.policy.named_trainable().items()}
        optimizer.save_training_state(folder, trained, teacher, self.optimizer, self.optimizer_steps)

    def load_state(self, folder: Path) -> None:
        ours = self.policy.named_trainable()
        teacher, self.optimizer_steps = optimizer.load_training_state(folder, ours, self.optimizer)
        if self.teacher is not None:
            if teacher.keys() != self.teacher.state().keys():
                raise ValueError("the teacher has other parameters")
            self.teacher.load_state(teacher)
        if self.vllm is not None:
            self.vllm.sync(self.policy)

    def close(self) -> None:
        """Nothing runs outside this process."""


# ------------------------------------------------------------------ threads
# How many CPU threads torch uses, and what else keeps the CPUs busy.
#
# Threads that share a CPU with other programs wait for each other: beside two busy processes a step of the tiny model
# takes more than twice as long with two threads as with one, while alone it gains a fifth (`benchmarks/threads.py`). So a
# small model has one thread. Another number of threads gives other rounding, and so another run with the same seed:
# therefore the number never depends on the load, and a run keeps it in its config.

_CGROUP = Path("/sys/fs/cgroup")
SMALL = 10e6  # parameters


def with_threads(config: Config) -> Config:
    """The config with a number of threads in it if `engine.threads` is 0. Other engines have threads of their own."""
    if config.engine.name != "local" or config.engine.threads:
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"threads": choose_threads(config)})})


def choose_threads(config: Config) -> int:
    """One for a small model, otherwise `most_threads`; where OMP_NUM_THREADS is set, that is the number."""
    return 1 if "OMP_NUM_THREADS" not in os.environ and _is_small(config) else most_threads()


def _is_small(config: Config) -> bool:
    try:
        return load_shape(config.model).parameters < SMALL
    except InputError:
        return False  # what is wrong with the model is said when it is loaded


class Neighbours:
    """What the other programs of this machine use."""

    def __init__(self) -> None:
        self._last = self._now()

    def cpus(self) -> float:
        """CPUs that other programs kept busy, on average since the last question."""
        last, self._last = self._last, self._now()
        wall = self._last[0] - last[0]
        busy, own = self._last[1] - last[1], self._last[2] - last[2]
        return max(0.0, (busy - own) / wall) if wall > 0 else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds: the clock's, those that all CPUs were busy, and those of this process and its children."""
        times, own = psutil.cpu_times(), os.times()
        children = 0.0
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended meanwhile, and is in `own`
                used = child.cpu_times()
                children += used.user + used.system
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice already
        ours = own.user + own.system + own.children_user + own.children_system + children
        return time.monotonic(), busy, ours


_before: int | None = None  # torch's own number, before a run of this process set another
_set: int | None = None


def set_threads(count: int) -> None:
    """Let torch use `count` threads, and remember that this was no choice of the user's."""
    global _set
    most_threads()
    torch.set_num_threads(count)
    _set = count


def most_threads() -> int:
    """As many as torch would take by itself or the user has told it to, within the container's share of CPU time."""
    global _before
    if _before is None or torch.get_num_threads() not in (_set, _before):
        _before = torch.get_num_threads()
    quota = cgroup_cpus(_CGROUP)
    return max(1, min(_before, int(quota + 0.5) if quota else _before))


def cgroup_cpus(root: Path) -> float | None:
    """The CPUs' worth of time that a container may use, of control groups version 2 or 1; None without a limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # "max" or -1: no limit
    return int(quota) / int(period)

"""The local engine: one policy, its teacher and an optimizer in one process on one device; also its CPU threads.

Threads that share a CPU with other programs wait for each other: beside two busy processes a step of the tiny model
takes more than twice as long with two threads as with one, while alone it gains a fifth (`benchmarks/threads.py`). So a
small model gets one thread. Another number of threads rounds differently and so makes another run of the same seed:
the number never depends on the load, and a run keeps it in its config.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config.schema import Config, LocalEngineConfig
from ...errors import InputError, first_line
from ...methods.base import NO_STEP, HintedConfig, Method, step_metrics
from ...methods.losses import Regularisers
from ...metrics import Mean, Metrics
from ...records import HintKind, Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle
from ..interface import TokenLimits, keeps_sampling_mask
from ..out_of_memory import in_phase, out_of_memory
from ..throughput import WorkCounter
from . import optimizer, sampler, scoring
from .export import SHARD_BYTES
from .host import available_memory, host_copy, size_of
from .lora import write_base
from .memory import device_memory, load_shape, memory_plan, sample_slots, shape_of, static_bytes
from .model import (
    Network,
    Teacher,
    eval_mode,
    load_network,
    load_tokenizer,
    resolve_device,
    stop_ids,
    teacher_model_config,
)
from .optimizer import TrainingState
from .self_check import check_prompts, self_check
from .update import MiniBatch, accumulate
from .vllm import VllmSampler, adapters_alone, vllm_wanted


class LocalEngine:
    """See `engine.interface.Engine`. Teacher and reference are networks of their own, never swapped into the policy."""

    def __init__(
        self,
        config: Config,
        method: Method,
        network: Network | None = None,
        tokenizer: Any = None,
        prompts: Sequence[tuple[int, ...]] = (),
    ) -> None:
        """`network` and `tokenizer` replace those that would be loaded; `prompts` are for the self-check."""
        with out_of_memory("loading", config):
            self._load(config, method, network, tokenizer, prompts)

    def _load(
        self,
        config: Config,
        method: Method,
        network: Network | None,
        tokenizer: Any,
        prompts: Sequence[tuple[int, ...]],
    ) -> None:
        device = resolve_device(config.engine.device)
        _set_threads(with_threads(config).engine.threads)
        self.deterministic = config.engine.deterministic and device.type == "cuda"
        if device.type == "cuda":
            _set_kernels(config.engine.deterministic)
        torch.manual_seed(config.seed)
        self.config = config
        self.tokenizer = tokenizer or load_tokenizer(config.model)
        self.policy = network or load_network(config.model, device, config.engine.head_chunk)
        self.policy.model.train()
        self.shape = shape_of(self.policy.core.config, self.policy.core)
        self.work = WorkCounter(self.shape, config)
        self.teacher = self._build_teacher(method)
        other = (
            self.teacher.network.core if self.teacher is not None and self.teacher.schedule.kind == "model" else None
        )
        plan = memory_plan(self.shape, config, method, None if other is None else shape_of(other.config, other))
        self.sample_slots = sample_slots(self.shape, config, static_bytes(plan), device_memory(config))
        self.topk = scoring.TopKStore()
        self.regularisers = Regularisers(config.kl_coefficient, config.entropy_coefficient)
        self.reference = self._build_reference()
        self.optimizer = optimizer.build_optimizer(self.policy.trainable(), config)
        self.optimizer_steps = 0
        self.first_rms = self._rms()
        if config.engine.self_check:
            masked = config.sampling.settings(keep_mask=True) if keeps_sampling_mask(config) else None
            given = prompts or check_prompts(self.tokenizer)
            self_check(self.policy, given, self.tokenizer.pad_token_id, masked=masked)
        self.vllm: VllmSampler | None = None
        if vllm_wanted(config, device):
            alone = network is None and adapters_alone(config, device)
            self.vllm = VllmSampler(config, TokenLimits.of(config, self.context_length), self.policy, alone)

    def _build_teacher(self, method: Method) -> Teacher | None:
        settings = method.config
        if not isinstance(settings, HintedConfig) or settings.teacher == "policy":
            return None
        other = None
        if settings.teacher_model:
            named = teacher_model_config(settings.teacher_model, self.config, self.tokenizer)
            other = load_network(named, self.policy.device, self.config.engine.head_chunk)
            other.model.eval().requires_grad_(False)
        return Teacher(self.policy, settings.schedule, other)

    def _build_reference(self) -> Network | None:
        """The policy of step 0, needed with a reference KL; a fixed teacher is the same weights."""
        if self.config.kl_coefficient == 0:
            return None
        if self.teacher is not None and self.teacher.schedule.kind == "fixed":
            return self.teacher.network
        return self.policy.twin()

    @property
    def device(self) -> torch.device:
        return self.policy.device

    @property
    def context_length(self) -> int:
        return self.policy.context_length

    @property
    def max_sequence(self) -> int:
        return self.context_length if self.vllm is None else self.vllm.limits.sequence

    def stop_ids(self) -> list[int]:
        """Token ids that end a response."""
        return stop_ids(self.policy.core.generation_config, self.tokenizer)

    # ------------------------------------------------------------------ sampling, scoring

    @in_phase("sampling")
    def sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        groups = self._sample(prompts, n, sampling, seed)
        self.work.sampled(prompts, groups)
        return groups

    def _sample(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, seed: int) -> list[list[Sample]]:
        if self.vllm is not None:
            return self.vllm.sample(prompts, n, sampling, seed, self.stop_ids())
        engine = self.config.engine
        with self.policy.precision():
            return sampler.sample(
                self.policy,
                prompts,
                n,
                sampling,
                seed=seed,
                stop_ids=self.stop_ids(),
                pad_id=self.tokenizer.pad_token_id,
                max_rows=engine.sample_rows,
                max_slots=self.sample_slots,
                budget=engine.score_tokens,
                cuda_graph=engine.cuda_graph and self.device.type == "cuda",
            )

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
        teacher = self.policy if self.teacher is None else self.teacher.network  # method.teacher=policy has no weights
        network = {"policy": self.policy, "teacher": teacher, "reference": self.reference}[who]
        if network is None:
            raise RuntimeError(f"this run has no {who}")
        if self.vllm is not None:
            self.vllm.sleep()
        rows = list(range(len(pairs))) if rows is None else rows
        with eval_mode(network.model):
            output = scoring.score(
                network,
                pairs,
                pad_id=self.tokenizer.pad_token_id,
                budget=self.config.engine.score_tokens,
                top_k=top_k,
                topk_ids=None if topk_handle is None else self.topk.ids_at(topk_handle, rows),
            )
        self.work.scored(pairs)
        made = None
        if top_k:
            assert output.topk_ids is not None
            lengths = [len(pair.response) for pair in pairs]
            made = self.topk.add(output.topk_ids, lengths, output.topk_log_prob if who == "teacher" else None)
        if topk_handle is not None:
            assert output.topk_log_prob is not None
            self.topk.keep(topk_handle, rows, output.topk_log_prob, hints)
        assert output.entropy is not None
        return Scores(output.log_prob, output.entropy, made, output.log_kept_mass)

    def release(self, topk_handle: TopKHandle) -> None:
        self.topk.release(topk_handle)

    # ------------------------------------------------------------------ updating

    @in_phase("update")
    def gradient(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method) -> Metrics:
        """Accumulate the gradient of one prepared mini-batch, without an optimizer step."""
        if self.vllm is not None:
            self.vllm.sleep()
        reference = self.score(pairs, "reference").log_prob if self.reference is not None else None
        mini_batch = MiniBatch(pairs, batch, method, self.regularisers, reference, self.topk)
        metrics = self._accumulated(mini_batch)
        share = metrics["actor/updated_share"]
        assert isinstance(share, Mean)
        self.work.updated(pairs, share.value)
        return metrics

    def _accumulated(self, mini_batch: MiniBatch) -> Metrics:
        """`update.accumulate` with deterministic kernels, unless an operation of this model has none."""
        budget, pad_id = self.config.engine.micro_batch_tokens, self.tokenizer.pad_token_id
        if self.deterministic:
            try:
                with _only_deterministic_kernels():
                    return accumulate(self.policy, mini_batch, pad_id=pad_id, budget=budget)
            except RuntimeError as error:
                if "deterministic" not in str(error):
                    raise
                warnings.warn(f"engine.deterministic: runs of one seed may differ ({first_line(error)})", stacklevel=2)
                self.deterministic = False
                self.optimizer.zero_grad(set_to_none=True)
        return accumulate(self.policy, mini_batch, pad_id=pad_id, budget=budget)

    def update(self, pairs: Sequence[Pair], batch: TokenBatch, method: Method, learning_rate: float) -> Metrics:
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.gradient(pairs, batch, method)
        if not any(parameter.grad is not None for parameter in self.policy.trainable()):
            # Nothing to learn from: weights, optimizer states and teacher stay.
            return {**metrics, **NO_STEP}
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), self.config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        finite, changed = bool(torch.isfinite(norm)), (0, 0)
        if finite:
            before = optimizer.watched_values(self.policy.trainable())
            with out_of_memory("optimizer step", self.config):
                self.optimizer.step()
            changed = optimizer.changed_counts(before, self.policy.trainable())
            self.optimizer_steps += 1
            if self.teacher is not None:
                self.teacher.follow(self.policy, self.optimizer_steps)
            if self.vllm is not None:
                self.vllm.weights_changed()
        self.optimizer.zero_grad(set_to_none=True)
        return {**metrics, **step_metrics(self._rms() / self.first_rms, float(norm), learning_rate, finite, changed)}

    def _rms(self) -> float:
        """Root mean square of the trained weights."""
        weights = self.policy.trainable()
        wide = [torch.promote_types(weight.dtype, torch.float32) for weight in weights]
        norms = [torch.linalg.vector_norm(w.detach(), dtype=d) for w, d in zip(weights, wide, strict=True)]
        total = torch.stack([norm.double() for norm in norms]).norm()  # one look at the device
        return float(total) / math.sqrt(sum(weight.numel() for weight in weights))

    # ------------------------------------------------------------------ files

    @in_phase("saving")
    def save(self, folder: Path) -> None:
        self._write_model(folder, None)

    def _write_model(self, folder: Path, state: dict[str, Tensor] | None) -> None:
        """`state` are copies of the weights (with adapters: of all that is trained), by default the weights."""
        if self.policy.core is self.policy.model:
            self.policy.model.save_pretrained(folder, state_dict=state, max_shard_size=SHARD_BYTES)
        else:  # the adapters alone
            self.policy.model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
            write_base(folder, self.config.model)
        self.tokenizer.save_pretrained(folder)

    @in_phase("saving")
    def save_state(self, folder: Path) -> None:
        optimizer.save_training_state(folder, *self._state())

    def _state(self) -> TrainingState:
        # Frozen weights and the reference are those of step 0, which the config's model gives again.
        teacher = self.teacher.state() if self.teacher is not None else {}
        return self.policy.named_trainable(), teacher, self.optimizer.state_dict(), self.optimizer_steps

    @in_phase("saving")
    def snapshot(self) -> Callable[[Path], None] | None:
        whole = self.policy.core is self.policy.model
        model = self.policy.model.state_dict() if whole else dict(self.policy.named_trainable())
        parts = (model, self._state())
        wanted = self.config.save_in_background
        if wanted is None:
            wanted = self.device.type == "cuda" and size_of(parts) < (available_memory() or 0) * 0.8
        if not wanted:
            return None
        copied, state = host_copy(parts)

        def write(folder: Path) -> None:
            with out_of_memory("saving", self.config):
                self._write_model(folder, copied)
                (folder / "state").mkdir()
                optimizer.save_training_state(folder / "state", *state)

        return write

    @in_phase("resume")
    def load_state(self, folder: Path) -> None:
        trained = self.policy.named_trainable()
        teacher, self.optimizer_steps = optimizer.load_training_state(folder, trained, self.optimizer)
        if self.teacher is not None:
            self.teacher.load_state(teacher)
        if self.vllm is not None:
            self.vllm.weights_changed()

    def close(self) -> None:
        if self.vllm is not None:
            self.vllm.close()


# ------------------------------------------------------------------ GPU kernels


def _set_kernels(deterministic: bool) -> None:
    """Which kernels this process takes on a GPU.

    cuDNN's attention compiles a plan for each new shape, and shapes hardly repeat here: 0.1 s each on an H200, so
    that scoring took 2.5 times as long with it (docs/gpu.md). Without `deterministic`, sums by atomic additions make
    two runs of one seed differ.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
    warnings.filterwarnings("ignore", message=".*defaults to a non-deterministic algorithm")


@contextmanager
def _only_deterministic_kernels() -> Iterator[None]:
    """An operation without one raises RuntimeError. Attention has one for its gradient, and takes it here alone."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


# ------------------------------------------------------------------ CPU threads

SMALL = 10e6  # parameters of a model that gets one thread
_CGROUP = Path("/sys/fs/cgroup")
_own_threads: int | None = None  # torch's number of threads before a run of this process set another
_set_threads_to: int | None = None


def with_threads(config: Config) -> Config:
    """The config with `engine.threads` filled in if it is 0 (automatic). Other engines have threads of their own."""
    if not isinstance(config.engine, LocalEngineConfig) or config.engine.threads:
        return config
    return config.model_copy(update={"engine": config.engine.model_copy(update={"threads": choose_threads(config)})})


def choose_threads(config: Config) -> int:
    """One thread for a small model, otherwise `available_threads`; OMP_NUM_THREADS, where it is set, wins."""
    return 1 if "OMP_NUM_THREADS" not in os.environ and _is_small(config) else available_threads()


def available_threads() -> int:
    """As many threads as torch or the user has chosen, within the container's share of CPU time."""
    global _own_threads
    if _own_threads is None or torch.get_num_threads() not in (_set_threads_to, _own_threads):
        _own_threads = torch.get_num_threads()
    quota = cgroup_cpus(_CGROUP)
    return max(1, min(_own_threads, int(quota + 0.5) if quota else _own_threads))


def cgroup_cpus(root: Path) -> float | None:
    """CPUs that the container may use, from control groups version 2 or 1; None without a limit."""
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


def _is_small(config: Config) -> bool:
    try:
        return load_shape(config.model).parameters < SMALL
    except InputError:
        return False  # loading the model reports what is wrong with it


def _set_threads(count: int) -> None:
    """Let torch use `count` threads, and remember that this was not the user's choice."""
    global _set_threads_to
    available_threads()
    torch.set_num_threads(count)
    _set_threads_to = count

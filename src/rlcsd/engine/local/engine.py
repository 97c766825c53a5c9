"""The local engine: one policy, its teacher, an optimizer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...config.schema import Config
from ...methods.base import NO_STEP, HintedConfig, Method, TeacherSchedule, step_metrics
from ...methods.losses import Regularisers
from ...metrics import Metrics
from ...records import Pair, Sample, Sampling, Scores, TokenBatch, TopKHandle
from ..base import server_room
from . import sampler, scoring, state
from .memory import rows_at_once, shape_of
from .network import Network, load_network, load_tokenizer, other_teacher, resolve_device, stop_ids
from .optimizer import build_optimizer
from .self_check import self_check
from .supports import SupportStore
from .teacher import Teacher
from .threads import set_threads, with_threads
from .update import MiniBatch, accumulate
from .vllm_sampler import VllmSampler, vllm_wanted


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
        self.supports = SupportStore()
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
        named = other_teacher(path, self.config, self.tokenizer)
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
        state.save(folder, trained, teacher, self.optimizer, self.optimizer_steps)

    def load_state(self, folder: Path) -> None:
        ours = self.policy.named_trainable()
        teacher, self.optimizer_steps = state.load(folder, ours, self.optimizer)
        if self.teacher is not None:
            if teacher.keys() != self.teacher.state().keys():
                raise ValueError("the teacher has other parameters")
            self.teacher.load_state(teacher)
        if self.vllm is not None:
            self.vllm.sync(self.policy)

    def close(self) -> None:
        """Nothing runs outside this process."""

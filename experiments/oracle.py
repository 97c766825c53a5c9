"""Upper bound of token-level credit: RLCSD's update with labels of decisions in place of the teacher's contrast.

The labels are those of `rlcsd.experiments.decision_labels`. Degraded kinds lack one thing that the contrast lacks, too,
and so measure what it costs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from rlcsd.decoding import token_offsets
from rlcsd.experiments.decision_labels import token_labels
from rlcsd.experiments.roll_call import parse_question
from rlcsd.methods import TokenBatch
from rlcsd.records import Group, TrainingExample
from rlcsd.stages.hint import HintCounts, HintedExamples, draw_hints
from rlcsd.trainer import Trainer

CERTAIN = 100.0  # nats, far beyond any τ, so that the residual is saturated

# whole: every label; dropped: rollouts without a usable pair of hints leave the update, as in the published method;
# unspared: right decisions of wrong rollouts have no label; noisy: tokens that are no decision are labelled at random.
KINDS = ("whole", "dropped", "unspared", "noisy")


class OracleTrainer(Trainer):
    """Train `rlcsd` without a teacher. `noise` is the share of unlabelled tokens that the kind `noisy` selects."""

    def __init__(self, *arguments: Any, kind: str = "whole", noise: float = 0.2) -> None:
        super().__init__(*arguments)
        self.kind, self.noise = kind, noise
        self._questions: dict[int, str] = {}

    def hint(self, groups: Sequence[Group], number: int) -> HintedExamples:
        rng = random.Random(f"{self.config.seed}/oracle/{number}")
        rows = []
        for position, group in enumerate(groups):
            self._questions[position] = group.problem.question
            usable = [draw.hints is not None for draw in draw_hints(group, self.method.config, True, rng)]
            kept = [
                TrainingExample(group.prompt, rollout, advantage, group=position, index=index)
                for index, (rollout, advantage) in enumerate(zip(group.rollouts, group.advantages, strict=True))
                if self.kind != "dropped" or usable[index]
            ]
            rows.append(kept)
        return HintedExamples(rows, HintCounts())

    def token_batch(self, batch: Sequence[TrainingExample]) -> TokenBatch:
        columns = [torch.tensor(self._labels(row), dtype=torch.float32) for row in batch]
        e = torch.cat(columns) * CERTAIN
        lengths = torch.tensor([len(column) for column in columns])

        def spread(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths)

        old = torch.cat([row.rollout.sample.log_probs for row in batch])
        everywhere = torch.ones(len(e), dtype=torch.bool)
        return TokenBatch(
            is_correct=spread([row.rollout.is_correct for row in batch]).bool(),
            rollout=torch.arange(len(batch)).repeat_interleave(lengths),
            advantage=spread([row.advantage for row in batch]),
            old_log_prob=old,
            correction=torch.ones_like(old),
            hinted=everywhere,
            teacher_log_prob=e,
            teacher_entropy=torch.zeros_like(e),
            contrast_log_prob=torch.zeros(len(e), 1),
            contrast_valid=everywhere[:, None],
        )

    def _labels(self, row: TrainingExample) -> list[float]:
        text, offsets = token_offsets(self.engine.tokenizer, row.rollout.sample.ids)
        labels: list[float] = [*token_labels(parse_question(self._questions[row.group]), text, offsets)]
        if self.kind == "unspared" and not row.rollout.is_correct:
            labels = [min(label, 0.0) for label in labels]
        if self.kind == "noisy":
            rng = random.Random(f"{self.config.seed}/noise/{row.rollout.text}")
            labels = [label or (rng.choice((-1.0, 1.0)) if rng.random() < self.noise else 0.0) for label in labels]
        return labels

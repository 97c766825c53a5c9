"""Rollout correction: what is done about rollouts that were sampled from another distribution than the policy's.

π_old / π_rollout is the ratio of the policy that is updated first to the distribution that a token was sampled from.
With sampling masks both are over the tokens that could be sampled, so what is left is a temperature other than 1 and
the difference between the arithmetic of sampler and trainer; without them, filters are part of it.

Weights multiply a token's loss and leave its place in the means, also where they are 0 (as in TRL, and verl's bounded
`rollout_is_threshold`); rejected rollouts leave the mini-batch (as in verl's `rollout_rs`).
docs/methods/sampling.md compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..metrics import Mean, Metrics
from ..records import Sample, TrainingExample

Kind = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def log_ratios(sample: Sample) -> Tensor:
    """log π_old − log π_rollout of each token, `[T]` float64; π_rollout is the distribution that was sampled from."""
    return sample.old_log_probs.double() - sample.sampled_log_probs.double()


@dataclass(frozen=True)
class RolloutCorrection:
    """The importance weights of tokens, and the bounds of rollouts that stay in the update.

    `kind`: the ratio is each token's own, or the product over its rollout; outside [`floor`, `cap`] it is truncated to
    the nearer bound (truncated importance sampling), or its tokens are masked, which is weight 0 (masked importance
    sampling; token_mask with both bounds is IcePop). `rejection` = (low, high) bounds exp(mean of the log-ratios) of
    each rollout, the geometric mean of its ratios.
    """

    kind: Kind = "none"
    cap: float = 2.0
    floor: float = 0.0
    rejection: Sequence[float] | None = None

    def weights(self, sample: Sample) -> Tensor:
        """w_t of each token, `[T]` float32."""
        if self.kind == "none":
            return torch.ones(len(sample))
        return self._bounded(self._ratios(sample))

    def rejects(self, sample: Sample) -> bool:
        """Whether the rollout is left out of the update. It has already counted in its group's advantages."""
        if self.rejection is None:
            return False
        low, high = self.rejection
        return not low <= float(log_ratios(sample).mean().exp()) <= high

    def kept(self, examples: Sequence[Sequence[TrainingExample]]) -> list[list[TrainingExample]]:
        """The examples of each group without rejected rollouts."""
        return [[one for one in group if not self.rejects(one.rollout.sample)] for group in examples]

    def metrics(self, examples: Sequence[Sequence[TrainingExample]]) -> Metrics:
        """Figures of all examples of a step, before rejection. Every sample has the policy's own log-probs."""
        samples = [one.rollout.sample for group in examples for one in group]
        if not samples:
            return {}
        differences = torch.cat([log_ratios(sample) for sample in samples])
        tokens = len(differences)
        found: dict[str, Mean] = {"correction/log_ratio_abs": Mean(float(differences.abs().mean()), tokens)}
        if self.kind != "none":
            ratios = torch.cat([self._ratios(sample) for sample in samples])
            name = "truncated" if self.kind.endswith("truncate") else "masked"
            found[f"correction/{name}"] = Mean(float(self._outside(ratios).double().mean()), tokens)
            found["correction/weight"] = Mean(float(self._bounded(ratios).double().mean()), tokens)
        if self.rejection is not None:
            rejected = sum(map(self.rejects, samples))
            found["correction/rejected"] = Mean(rejected / len(samples), len(samples))
        masses = [sample.log_kept_mass for sample in samples if sample.log_kept_mass is not None]
        masks = [sample.sampling_mask for sample in samples if sample.sampling_mask is not None]
        if masses:
            mass = torch.cat(masses).double().exp()
            found["sampling/kept_mass"] = Mean(float(mass.mean()), len(mass))
            counts = torch.cat([mask.counts for mask in masks]).double()
            found["sampling/kept_tokens"] = Mean(float(counts.mean()), len(counts))
        return dict(found)

    def _ratios(self, sample: Sample) -> Tensor:
        """π_old / π_rollout `[T]` float64, each token's own or the product over the rollout."""
        differences = log_ratios(sample)
        if self.kind.startswith("sequence"):
            differences = differences.sum().expand(len(sample))
        return differences.exp()

    def _bounded(self, ratios: Tensor) -> Tensor:
        """Ratios `[T]` as weights, float32."""
        if self.kind.endswith("truncate"):
            return ratios.clamp(self.floor, self.cap).float()
        return torch.where(self._outside(ratios), 0.0, ratios).float()

    def _outside(self, ratios: Tensor) -> Tensor:
        return (ratios < self.floor) | (ratios > self.cap)

"""Rollout correction: each kind against numbers by hand and a slow literal version."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlcsd.metrics import combined
from rlcsd.records import Rollout, Sample, SamplingMask, TrainingExample, Verdict
from rlcsd.stages.correction import RolloutCorrection, log_ratios

# log π_old − log π_rollout: 0, ln 4, −ln 2; the product of the ratios is 2, their geometric mean 2^(1/3).
SAMPLE = Sample(
    (1, 2, 3), torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -1.0 - math.log(4), -2.0 + math.log(2)]), True
)


def example(sample: Sample) -> TrainingExample:
    return TrainingExample((7,), Rollout(sample, "", Verdict(True, 1.0), None), 1.0)


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        (RolloutCorrection(), [1, 1, 1]),
        (RolloutCorrection("token_truncate", 2.0), [1, 2, 0.5]),
        (RolloutCorrection("token_truncate", 2.0, 0.8), [1, 2, 0.8]),
        (RolloutCorrection("token_mask", 2.0), [1, 0, 0.5]),
        (RolloutCorrection("token_mask", 5.0, 0.6), [1, 4, 0]),  # IcePop
        (RolloutCorrection("sequence_truncate", 3.0), [2, 2, 2]),
        (RolloutCorrection("sequence_truncate", 1.5), [1.5, 1.5, 1.5]),
        (RolloutCorrection("sequence_mask", 3.0), [2, 2, 2]),
        (RolloutCorrection("sequence_mask", 1.9), [0, 0, 0]),
        (RolloutCorrection("sequence_mask", 3.0, 2.1), [0, 0, 0]),
    ],
)
def test_weights_by_hand(correction, expected):
    assert correction.weights(SAMPLE).tolist() == pytest.approx(expected)


def literal(kind: str, low: float, high: float, old: list[float], sampled: list[float]) -> list[float]:
    """One number after the other, as docs/methods.md says it."""
    weights = []
    for t in range(len(old)):
        ratio = math.exp(old[t] - sampled[t])
        if kind.startswith("sequence"):
            ratio = math.prod(math.exp(a - b) for a, b in zip(old, sampled, strict=True))
        if kind.endswith("truncate"):
            weights.append(min(max(ratio, low), high))
        else:
            weights.append(ratio if low <= ratio <= high else 0.0)
    return weights


@pytest.mark.parametrize("kind", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_weights_agree_with_a_slow_version(kind):
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        length = int(torch.randint(1, 9, (1,), generator=generator))
        old = -torch.rand(length, generator=generator)
        sampled = old + torch.randn(length, generator=generator) * 0.4
        sample = Sample(tuple(range(length)), old, sampled, True)
        expected = literal(kind, 0.7, 1.4, old.tolist(), sampled.tolist())
        assert RolloutCorrection(kind, 1.4, 0.7).weights(sample).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_rollout_whose_geometric_mean_is_outside_leaves_the_update():
    mean = 2 ** (1 / 3)
    assert not RolloutCorrection(rejection=(0.5, mean + 1e-4)).rejects(SAMPLE)
    assert RolloutCorrection(rejection=(0.5, mean - 1e-4)).rejects(SAMPLE)
    assert RolloutCorrection(rejection=(mean + 1e-4, 2.0)).rejects(SAMPLE)
    other = replace(SAMPLE, sampled_log_probs=SAMPLE.log_probs)
    correction = RolloutCorrection(rejection=(0.9, 1.1))
    examples = [[example(SAMPLE), example(other)], [example(SAMPLE)]]
    assert [[one.rollout.sample for one in group] for group in correction.kept(examples)] == [[other], []]
    assert combined([correction.metrics(examples)])["correction/rejected"] == pytest.approx(2 / 3)


def test_metrics_count_tokens_outside_the_bounds():
    figures = combined([RolloutCorrection("token_mask", 2.0, 0.6).metrics([[example(SAMPLE)]])])
    assert figures["correction/masked"] == pytest.approx(2 / 3)
    assert figures["correction/weight"] == pytest.approx(1 / 3)
    assert figures["correction/log_ratio_abs"] == pytest.approx((math.log(4) + math.log(2)) / 3)
    figures = combined([RolloutCorrection("token_truncate", 2.0).metrics([[example(SAMPLE)]])])
    assert figures["correction/truncated"] == pytest.approx(1 / 3) and "correction/masked" not in figures
    assert RolloutCorrection().metrics([]) == {}


def test_with_a_mask_the_ratio_is_among_the_kept_tokens():
    mask = SamplingMask(torch.tensor([1, 2, 5, 3], dtype=torch.int32), torch.tensor([1, 2, 1], dtype=torch.int32))
    masses = torch.tensor([-1.0, -0.25, -2.0])
    masked = replace(SAMPLE, sampling_mask=mask, log_kept_mass=masses, sampled_log_probs=SAMPLE.log_probs - masses)
    assert log_ratios(masked).tolist() == pytest.approx([0, 0, 0])
    figures = combined([RolloutCorrection("token_truncate").metrics([[example(masked)]])])
    assert figures["correction/weight"] == pytest.approx(1) and figures["sampling/kept_tokens"] == pytest.approx(4 / 3)
    assert figures["sampling/kept_mass"] == pytest.approx(float(masses.exp().mean()))

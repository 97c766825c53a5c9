"""The decode loop: its log-probs, its filters, its batching, its seeds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.engine.local.model import Network
from rlcsd.engine.local.sampler import filtered_log_probs, sample
from rlcsd.engine.local.scoring import score
from rlcsd.records import Pair, Sampling
from tests.conftest import ARCHITECTURES, random_model

PROMPTS = [[5, 6, 7], list(range(3, 20)), [8], [9, 9, 9, 9, 9, 9]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_are_those_of_a_plain_pass_for_ragged_prompts_and_lengths(architecture, monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.sampler._FIRST_SLOTS", 4)  # the cache grows on the way
    model = random_model(architecture)
    groups = sample(model, PROMPTS, 5, Sampling(max_tokens=24), seed=3, stop_ids=range(2, 14), pad_id=0, max_rows=10)
    pairs = [Pair(tuple(p), s.ids) for p, group in zip(PROMPTS, groups, strict=True) for s in group]
    assert len({len(pair.response) for pair in pairs}) > 3, "responses of several lengths are what is tested"
    scores = score(Network(model), pairs, pad_id=0)
    sampled = torch.tensor([value for group in groups for s in group for value in s.log_probs])
    torch.testing.assert_close(sampled, scores.log_prob, rtol=1e-3, atol=1e-4)
    mean_entropy = torch.tensor([s.entropy for group in groups for s in group])
    lengths = [len(pair.response) for pair in pairs]
    expected = torch.stack([part.mean() for part in scores.entropy.split(lengths)])
    torch.testing.assert_close(mean_entropy, expected, rtol=1e-3, atol=1e-4)


def test_a_response_ends_with_the_first_stop_token_or_at_the_limit():
    stop = set(range(2, 10))
    for group in sample(random_model(), PROMPTS, 6, Sampling(max_tokens=12), seed=0, stop_ids=sorted(stop), pad_id=0):
        for drawn in group:
            assert not stop & set(drawn.ids[:-1])
            assert drawn.finished == (drawn.ids[-1] in stop)
            assert drawn.finished or len(drawn.ids) == 12
            assert len(drawn.ids) == len(drawn.log_probs) == len(drawn.sampled_log_probs)


def test_a_seed_decides_the_samples():
    def drawn(seed):
        return sample(random_model(), PROMPTS, 2, Sampling(max_tokens=8), seed=seed, stop_ids=[2], pad_id=0)

    def plain(groups):
        return [
            [(s.ids, s.log_probs.tolist(), s.sampled_log_probs.tolist(), s.finished) for s in group] for group in groups
        ]

    assert plain(drawn(1)) == plain(drawn(1))
    assert plain(drawn(1)) != plain(drawn(2))


def test_temperature_zero_is_greedy():
    model = random_model()
    (group,) = sample(model, [[5, 6, 7]], 2, Sampling(temperature=0.0, max_tokens=6), seed=0, stop_ids=[2], pad_id=0)
    ids = [5, 6, 7]
    with torch.no_grad():
        for token in group[0].ids:
            assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
    assert group[0].ids == group[1].ids


@given(top_k=st.integers(0, 12), top_p=st.floats(0.05, 1.0), temperature=st.floats(0.2, 3.0), seed=st.integers(0, 99))
def test_filters_agree_with_a_slow_reading_of_their_definition(top_k, top_p, temperature, seed):
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = filtered_log_probs(logits, Sampling(temperature, top_p, top_k)).exp()[0]
    probs = (logits[0] / temperature).softmax(-1).tolist()
    ranked = sorted(range(10), key=lambda token: -probs[token])
    ranked = ranked[: top_k or 10]
    mass, kept, total = 0.0, [], sum(probs[token] for token in ranked)
    for token in ranked:
        if top_p >= 1.0 or mass < top_p:
            kept.append(token)
        mass += probs[token] / total
    whole = sum(probs[token] for token in kept)
    expected = torch.tensor(
        [probs[token] / whole if token in kept else 0.0 for token in range(10)], dtype=torch.float64
    )
    torch.testing.assert_close(got, expected)


def test_samples_follow_the_distribution():
    model = random_model(vocab=12)
    (group,) = sample(model, [[5, 6]], 4000, Sampling(max_tokens=1), seed=0, stop_ids=[], pad_id=0, max_rows=4000)
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([drawn.ids[0] for drawn in group]), minlength=12) / 4000
    assert float((counts - expected).abs().max()) < 4 * 0.5 / 4000**0.5

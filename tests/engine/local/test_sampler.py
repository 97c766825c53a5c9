"""The decode loop: its log-probs, its filters, its batching, its seeds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.engine.local import sampler
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.sampler import kept_tokens, nucleus, sample, sample_tokens, uniforms
from rlcsd.engine.local.scoring import score
from rlcsd.records import Pair, Sampling
from tests.conftest import ARCHITECTURES, random_model

PROMPTS = [[5, 6, 7], list(range(3, 20)), [8], [9, 9, 9, 9, 9, 9]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probs_are_those_of_a_plain_pass_for_ragged_prompts_and_lengths(architecture, monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.sampler._MORE_SLOTS", 4)  # the cache grows on the way
    network = Network(random_model(architecture))
    groups = sample(network, PROMPTS, 5, Sampling(max_tokens=24), seed=3, stop_ids=range(2, 14), pad_id=0, max_rows=10)
    pairs = [Pair(tuple(p), s.ids) for p, group in zip(PROMPTS, groups, strict=True) for s in group]
    assert len({len(pair.response) for pair in pairs}) > 3, "responses of several lengths are what is tested"
    scores = score(network, pairs, pad_id=0)
    sampled = torch.tensor([value for group in groups for s in group for value in s.log_probs])
    torch.testing.assert_close(sampled, scores.log_prob, rtol=1e-3, atol=1e-4)
    mean_entropy = torch.tensor([s.entropy for group in groups for s in group])
    lengths = [len(pair.response) for pair in pairs]
    expected = torch.stack([part.mean() for part in scores.entropy.split(lengths)])
    torch.testing.assert_close(mean_entropy, expected, rtol=1e-3, atol=1e-4)


def test_a_response_ends_with_the_first_stop_token_or_at_the_limit():
    stop = set(range(2, 10))
    for group in sample(
        Network(random_model()), PROMPTS, 6, Sampling(max_tokens=12), seed=0, stop_ids=sorted(stop), pad_id=0
    ):
        for drawn in group:
            assert not stop & set(drawn.ids[:-1])
            assert drawn.finished == (drawn.ids[-1] in stop)
            assert drawn.finished or len(drawn.ids) == 12
            assert len(drawn.ids) == len(drawn.log_probs) == len(drawn.sampled_log_probs)


def test_a_seed_decides_the_samples():
    def drawn(seed):
        return sample(Network(random_model()), PROMPTS, 2, Sampling(max_tokens=8), seed=seed, stop_ids=[2], pad_id=0)

    def plain(groups):
        return [
            [(s.ids, s.log_probs.tolist(), s.sampled_log_probs.tolist(), s.finished) for s in group] for group in groups
        ]

    assert plain(drawn(1)) == plain(drawn(1))
    assert plain(drawn(1)) != plain(drawn(2))


@pytest.mark.parametrize("architecture", ["qwen3", "olmo3"])
@pytest.mark.parametrize(
    "limits",
    [
        {"max_rows": 3},  # rows that have ended take the next response
        {"max_slots": 90},  # rows that no longer fit wait and are computed again
        {"look_every": 7},
        {"max_rows": 7, "max_slots": 150, "look_every": 5, "budget": 20},
        {"max_slots": 1},  # one row at a time
    ],
)
def test_what_a_seed_samples_depends_on_no_limit(architecture, limits, monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.sampler._MORE_SLOTS", 3)
    network = Network(random_model(architecture))

    def drawn(**limits):
        options = {"seed": 3, "stop_ids": range(2, 6), "pad_id": 0}
        groups = sample(network, PROMPTS, 4, Sampling(max_tokens=24), **options, **limits)
        return [sample for group in groups for sample in group]

    alone, limited = drawn(), drawn(**limits)
    assert len({sample.ids for sample in alone}) > 12
    assert {sample.finished for sample in alone} == {True, False}
    for one, other in zip(alone, limited, strict=True):
        assert one.ids == other.ids and one.finished == other.finished
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one.entropies, other.entropies, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_log_probs_and_entropies_are_the_heads(autocast, monkeypatch):
    """As in scoring and in the update; so in bf16 nothing but the backbone's rounding tells them apart."""
    network, states = Network(random_model("qwen3"), autocast=autocast), []

    def spied(cache=None, **inputs):
        states.append(real(cache, **inputs))
        return states[-1]

    real = network.hidden
    monkeypatch.setattr(network, "hidden", spied)
    with network.precision():
        groups = sample(network, PROMPTS, 1, Sampling(max_tokens=12), seed=3, stop_ids=[], pad_id=0)
        hidden = torch.cat([state[:, 0] for state in states if state.shape[1] == 1])  # step by step, rows side by side
        ordered = [group[0] for _, group in sorted(zip(map(len, PROMPTS), groups, strict=True), key=lambda one: one[0])]
        ids = torch.tensor([sample.ids for sample in ordered]).T.reshape(-1)
        found = network.head(hidden[-len(ids) :], ids)
    for ours, theirs in (("log_probs", found.log_prob), ("entropies", found.entropy)):
        sampled = torch.stack([getattr(sample, ours) for sample in ordered]).T.reshape(-1)
        torch.testing.assert_close(sampled, theirs, rtol=1e-5, atol=1e-5)


def test_without_a_cuda_graph_a_warning_says_so_and_samples_are_the_same():
    options = {"seed": 3, "stop_ids": range(2, 6), "pad_id": 0, "look_every": 4}
    network = Network(random_model())
    with pytest.warns(UserWarning, match=r"engine.cuda_graph=true: .*decoded without a graph"):
        found = sample(network, PROMPTS, 2, Sampling(max_tokens=8), cuda_graph=True, **options)
    plain = sample(network, PROMPTS, 2, Sampling(max_tokens=8), **options)
    assert [[s.ids for s in group] for group in found] == [[s.ids for s in group] for group in plain]


def test_rows_and_slots_stay_within_their_limits(monkeypatch):
    shapes = []

    class Spied(sampler._RowsLayer):
        def update(self, *states, **options):
            shapes.append(self.keys.shape)
            return super().update(*states, **options)

    monkeypatch.setattr(sampler, "_RowsLayer", Spied)
    options = {"seed": 3, "stop_ids": range(2, 6), "pad_id": 0, "max_rows": 7, "max_slots": 200}
    sample(Network(random_model()), PROMPTS, 5, Sampling(max_tokens=40), **options)
    assert max(rows for rows, _, _, _ in shapes) == 7
    assert 150 < max(rows * slots for rows, _, slots, _ in shapes) <= 200


def test_random_numbers_are_those_published_of_splitmix64():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    start = torch.tensor([1234567])
    found = uniforms(start, torch.tensor([0]), 4)[0]
    assert (1 - found).tolist() == [(value >> 11) / 2**53 for value in expected]
    assert torch.equal(uniforms(start, torch.tensor([2]), 2)[0], found[2:])


def test_responses_and_seeds_have_streams_of_their_own():
    starts = torch.cat([sampler.stream_starts(seed, torch.arange(100)) for seed in (0, 1, 2**62 + 1)])
    numbers = uniforms(starts, torch.zeros_like(starts), 100)
    assert len(numbers.unique()) == numbers.numel()
    assert float(numbers.mean()) == pytest.approx(0.5, abs=4 / (12 * numbers.numel()) ** 0.5)
    correlations = torch.corrcoef(numbers) - torch.eye(len(numbers))
    assert float(correlations.abs().max()) < 0.55  # about 5.5 standard errors


def test_temperature_zero_is_greedy():
    model = random_model()
    (group,) = sample(
        Network(model), [[5, 6, 7]], 2, Sampling(temperature=0.0, max_tokens=6), seed=0, stop_ids=[2], pad_id=0
    )
    ids = [5, 6, 7]
    with torch.no_grad():
        for token in group[0].ids:
            assert token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
    assert group[0].ids == group[1].ids


def filtered(scaled: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits `[R, V]` with −inf at what the sampler's filters exclude."""
    if not sampling.top_k:
        return nucleus(scaled, sampling.top_p)
    values, ids = kept_tokens(scaled, sampling)
    whole = torch.full((*scaled.shape[:1], scaled.shape[1] + 1), -torch.inf, dtype=scaled.dtype)
    return whole.scatter(1, ids % (scaled.shape[1] + 1), values)[:, :-1]  # −1 becomes the column that is cut off


@given(top_k=st.integers(0, 12), top_p=st.floats(0.05, 1.0), temperature=st.floats(0.2, 3.0), seed=st.integers(0, 99))
def test_filters_agree_with_a_slow_reading_of_their_definition(top_k, top_p, temperature, seed):
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    got = filtered(logits / temperature, Sampling(temperature, top_p, top_k)).softmax(-1)[0]
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


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), [1, 2, 3]),  # 2 and 3 tie for the second place
        (Sampling(top_k=2, top_p=0.3), [1]),
        (Sampling(top_k=2, top_p=0.6), [1, 2, 3]),  # 0.5, 0.25, 0.25
        (Sampling(top_p=0.5), [1, 2, 3]),  # 0.4, 0.2, 0.2, 0.1, 0.1
        (Sampling(top_p=0.4), [1]),
        (Sampling(top_k=4, top_p=0.95), [0, 1, 2, 3, 4]),
        (Sampling(top_k=9), [0, 1, 2, 3, 4]),
    ],
)
def test_equal_tokens_stay_or_go_together(sampling, kept):
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.2, 0.1]], dtype=torch.float64).log()
    assert filtered(logits, sampling)[0].isfinite().nonzero()[:, 0].tolist() == kept


def test_a_token_of_probability_zero_is_never_sampled():
    logits = torch.tensor([[0.0, 9.0, 9.0, 0.0]]).repeat(3, 1)
    ids, values, kept = sample_tokens(
        logits, Sampling(top_k=2), torch.tensor([2.0**-53, 0.5, 1.0], dtype=torch.float64)
    )
    assert ids.tolist() == [1, 1, 2] and kept[:, :2].tolist() == [[1, 2]] * 3 and bool((kept[:, 2:] == -1).all())
    torch.testing.assert_close(values[:, 1], torch.full((3,), 0.5).log())
    torch.testing.assert_close(values[:, 0], logits.log_softmax(-1)[0, 1].expand(3))


def test_samples_follow_the_distribution():
    model = random_model(vocab=12)
    (group,) = sample(
        Network(model), [[5, 6]], 4000, Sampling(max_tokens=1), seed=0, stop_ids=[], pad_id=0, max_rows=4000
    )
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6]])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([drawn.ids[0] for drawn in group]), minlength=12) / 4000
    assert float((counts - expected).abs().max()) < 4 * 0.5 / 4000**0.5

"""Shared-prefix scoring against the plain pass, for several architectures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcsd.engine.local.network import Network
from rlcsd.engine.local.scoring import score
from rlcsd.records import Pair
from tests.conftest import ARCHITECTURES, random_model

NETWORKS = {name: Network(random_model(name)) for name in ARCHITECTURES}


def plain(network: Network, pairs: list[Pair]) -> torch.Tensor:
    """One unpadded forward pass per pair, whole logits: `[N, V]` log-probs."""
    found = []
    with torch.no_grad():
        for pair in pairs:
            logits = network.model(input_ids=torch.tensor([[*pair.context, *pair.response]])).logits[0]
            found.append(logits[len(pair.context) - 1 : -1].log_softmax(-1))
    return torch.cat(found)


@st.composite
def batches(draw):
    """Pairs whose contexts share nothing, a question, or all of it; and a token budget."""
    token = st.integers(3, 89)
    questions = draw(st.lists(st.lists(token, max_size=12).map(tuple), min_size=1, max_size=2, unique=True))
    hints = draw(st.lists(st.lists(token, min_size=1, max_size=14).map(tuple), min_size=1, max_size=4, unique=True))
    context = st.tuples(st.sampled_from(questions), st.sampled_from(hints)).map(lambda both: both[0] + both[1])
    response = st.lists(token, min_size=1, max_size=20).map(tuple)
    return draw(st.lists(st.builds(Pair, context, response), min_size=1, max_size=9)), draw(st.integers(1, 400))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=15)
@given(batch=batches())
def test_every_cut_gives_the_plain_result(architecture, batch):
    pairs, budget = batch
    network = NETWORKS[architecture]
    expected = plain(network, pairs)
    ids = torch.tensor([token for pair in pairs for token in pair.response])
    got = score(network, pairs, pad_id=0, budget=budget)
    torch.testing.assert_close(got.log_prob, expected.gather(-1, ids[:, None])[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.entropy, -(expected.exp() * expected).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_top_k_and_given_supports_stand_in_the_order_of_the_pairs(architecture):
    network = NETWORKS[architecture]
    pairs = [Pair((5, 6, 7, 8), (9, 10)), Pair((5, 6), (11, 12, 13)), Pair((5, 6, 7, 8), (14,))]
    expected = plain(network, pairs)
    best = score(network, pairs, pad_id=0, budget=12, top_k=7)
    torch.testing.assert_close(best.topk_log_prob, expected.topk(7).values, rtol=1e-4, atol=1e-5)
    support = torch.arange(6 * 4).reshape(6, 4)
    given_ids = score(network, pairs, pad_id=0, budget=12, support=support)
    torch.testing.assert_close(given_ids.topk_log_prob, expected.gather(-1, support), rtol=1e-4, atol=1e-5)


def test_the_same_context_is_computed_once():
    network = NETWORKS["qwen3"]
    seen = []
    counting = network.backbone.register_forward_pre_hook(
        lambda module, arguments, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    with counting:
        score(network, [Pair(tuple(range(3, 43)), (7, 8, 9)) for _ in range(6)], pad_id=0)
    assert seen == [(1, 39), (6, 3)]


def test_the_same_question_before_several_hints_is_computed_once():
    network = NETWORKS["qwen3"]
    tokens = []
    counting = network.backbone.register_forward_pre_hook(
        lambda module, arguments, inputs: tokens.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    with counting:
        score(network, [Pair((*range(3, 43), 50 + hint, 60, 61), (7, 8)) for hint in range(5)], pad_id=0)
    assert tokens == [
        40,
        5 * 2,
        5 * 2,
    ]  # the question; hints but for their last token; that and the response but for its last

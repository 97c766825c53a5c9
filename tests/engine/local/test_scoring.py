"""Shared-prefix scoring against the plain pass, for several architectures."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcsd.engine.local.model import Network
from rlcsd.engine.local.scoring import TopKStore, score
from rlcsd.records import Pair, TokenBatch
from rlcsd.run import Run
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
    given_ids = score(network, pairs, pad_id=0, budget=12, topk_ids=support)
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


# ------------------------------------------------------------------ test_supports
# Supports stay with the engine: what is kept, laid out over all tokens, and released.


def columns_of(hinted: list[bool]) -> TokenBatch:
    zeros, marks = torch.zeros(len(hinted)), torch.tensor(hinted)
    return TokenBatch(torch.arange(len(hinted)), zeros, zeros, zeros, hinted=marks, is_correct=marks)


def test_wrong_hints_are_marginalised_row_by_row():
    store = TopKStore()
    ids = torch.arange(6).reshape(3, 2)
    support = store.add(ids, [1, 2], teacher=-torch.ones(3, 2))
    assert torch.equal(store.ids_at(support, [1, 0, 1]), ids[[1, 2, 0, 1, 2]])
    one, two, three = (torch.full((size, 2), math.log(p)) for size, p in ((2, 0.2), (1, 0.5), (2, 0.4)))
    store.keep(support, [1, 0, 1], torch.cat([one, two, three]), "wrong")
    found = store.columns(columns_of([True] * 3).with_columns(topk_handle=support), torch.arange(3))
    torch.testing.assert_close(found.contrast_topk.exp(), torch.tensor([[0.5, 0.5], [0.3, 0.3], [0.3, 0.3]]))


def test_tokens_without_a_hint_have_no_support():
    store = TopKStore()
    support = store.add(torch.tensor([[7, 8], [5, 6]]), [2], teacher=torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]))
    batch = columns_of([False, True, True, False]).with_columns(topk_handle=support)
    found = store.columns(batch, torch.tensor([3, 2, 0]))
    assert found.topk_ids.tolist() == [[0, 0], [5, 6], [0, 0]]
    assert found.teacher_topk.tolist() == [[0.0, 0.0], [-3.0, -4.0], [0.0, 0.0]]
    store.release(support)
    assert len(store) == 0


@pytest.mark.parametrize("name", ["opsd", "sdpo", "srpo", "opsd_ectr"])
def test_a_step_leaves_no_support_behind(name, tiny_config):
    run = Run(tiny_config(f"method={name}"))
    result = run.trainer.step(1)
    assert any(batch.topk_handle is not None for batch in result.token_batches)
    assert all(batch.topk_ids is None for batch in result.token_batches)
    assert len(run.engine.topk) == 0


@pytest.mark.parametrize("source", ["gt_cot", "own_rollout"])
def test_srpo_trains_rollouts_without_a_usable_hint_by_their_reward(source, tiny_config):
    run = Run(tiny_config("method=srpo", f"method.hint_source={source}", "method.unusable=plain", "learning_rate=1e-3"))
    result = run.trainer.step(1)
    assert math.isfinite(result.metrics["actor/loss"])
    assert result.metrics["update/skipped"] == 0
    plain = [row for rows in result.examples for row in rows if row.teacher_prompt is None]
    assert bool(plain) == (source == "own_rollout")

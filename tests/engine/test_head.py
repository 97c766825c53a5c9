"""The chunked head against whole logits: values and gradients."""

from __future__ import annotations

import pytest
import torch

from rlcsd.engine.head import Head


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_values_and_gradients_equal_those_of_whole_logits(chunk, softcap):
    torch.manual_seed(0)
    projection = torch.nn.Linear(6, 17, bias=True).double()
    hidden = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    ids, support = torch.randint(17, (11,)), torch.randint(17, (11, 5))

    def objective(log_prob, entropy, at_support):
        return (log_prob * torch.arange(11)).sum() + entropy.square().sum() + at_support.sin().sum()

    logits = projection(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    full = logits.log_softmax(-1)
    expected = objective(full.gather(-1, ids[:, None])[:, 0], -(full.exp() * full).sum(-1), full.gather(-1, support))
    wanted = torch.autograd.grad(expected, [hidden, *projection.parameters()])
    output = Head(projection, softcap, chunk)(hidden, ids, support)
    got = objective(output.log_prob, output.entropy, output.topk_log_prob)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(torch.autograd.grad(got, [hidden, *projection.parameters()]), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_top_k_takes_the_whole_of_a_small_vocabulary():
    head = Head(torch.nn.Linear(4, 5))
    output = head.top_k(torch.randn(3, 4), torch.tensor([0, 1, 2]), 100)
    assert output.topk_ids.shape == (3, 5)
    torch.testing.assert_close(output.topk_log_prob.exp().sum(-1), torch.ones(3))

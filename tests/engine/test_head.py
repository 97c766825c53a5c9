"""The chunked head against whole logits: values and gradients."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

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


@pytest.mark.parametrize("where", ["autocast", "hidden states"])
def test_in_bf16_operands_are_rounded_and_sums_are_not(where):
    torch.manual_seed(0)
    projection = torch.nn.Linear(64, 50, bias=True)
    hidden = torch.randn(30, 64)
    ids, support = torch.randint(50, (30,)), torch.randint(50, (30, 5))
    if where == "hidden states":
        projection, hidden = projection.bfloat16(), hidden.bfloat16()
    hidden.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "autocast"):
        output = Head(projection, 3.0, 7)(hidden, ids, support)

    def rounded(tensor):
        return tensor.detach().bfloat16().double()

    inputs = [rounded(hidden), rounded(projection.weight), projection.bias.detach().double()]
    for tensor in inputs:
        tensor.requires_grad_()
    logits = 3.0 * torch.tanh(torch.nn.functional.linear(*inputs) / 3.0)
    full = logits.log_softmax(-1)
    exact = [full.gather(-1, ids[:, None])[:, 0], -(full.exp() * full).sum(-1), full.gather(-1, support)]
    found = [output.log_prob, output.entropy, output.topk_log_prob]
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)
    weights = [torch.randn(part.shape, dtype=torch.float64) for part in exact]
    sums = [sum((part * weight).sum() for part, weight in zip(parts, weights, strict=True)) for parts in (found, exact)]
    parameters = [hidden, projection.weight, projection.bias]
    for mine, theirs in zip(
        torch.autograd.grad(sums[0], parameters), torch.autograd.grad(sums[1], inputs), strict=True
    ):
        # The backward pass rounds the gradient of each logit to 8 bits, and the result to the operand's dtype.
        assert float((mine - theirs).norm() / theirs.norm()) < 2**-8


def test_a_bf16_product_to_float32_equals_the_product_of_rounded_operands():
    """What a CUDA device multiplies by `torch.mm(…, out_dtype=torch.float32)`, other devices multiply in float32."""
    hidden, weight = torch.randn(9, 32).bfloat16(), torch.randn(20, 32).bfloat16()
    found = Head(torch.nn.Linear(32, 20, bias=False).bfloat16())
    found.projection.weight.data = weight
    exact = hidden.double() @ weight.double().T
    torch.testing.assert_close(found.logits(hidden).double(), exact, rtol=1e-6, atol=1e-5)


def test_top_k_takes_the_whole_of_a_small_vocabulary():
    head = Head(torch.nn.Linear(4, 5))
    output = head.top_k(torch.randn(3, 4), torch.tensor([0, 1, 2]), 100)
    assert output.topk_ids.shape == (3, 5)
    torch.testing.assert_close(output.topk_log_prob.exp().sum(-1), torch.ones(3))


@pytest.mark.parametrize("entropy", [False, True])
def test_the_backward_pass_holds_few_copies_of_a_chunk(entropy):
    tokens, vocabulary, chunk = 96, 4000, 32
    head = Head(torch.nn.Linear(2, vocabulary, bias=False), chunk=chunk)
    hidden, ids = torch.randn(tokens, 2, requires_grad=True), torch.randint(vocabulary, (tokens,))

    def update():
        output = head(hidden, ids, entropy=entropy)
        loss = output.log_prob.sum()
        (loss + output.entropy.sum() if entropy else loss).backward()

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        update()
    changes = [one for one in found.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = accumulate(one.nbytes() for one in sorted(changes, key=lambda one: one.start_ns()))
    assert 2 <= max(held) / (4 * chunk * vocabulary) < (3.5 if entropy else 2.5)

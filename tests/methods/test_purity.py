"""A method has no state: rebuilt from a pickle, given only the columns that it declares, prepared in parts."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.methods import METHODS, method_class
from tests.methods.batches import policy_of, random_batch
from tests.methods.catalogue import method_of

OWN = """
import torch
from pydantic import Field
from rlcsd.methods import CreditMethod, MethodConfig

class MineConfig(MethodConfig):
    epsilon: float = Field(0.2, gt=0)

class Mine(CreditMethod):
    Config = MineConfig
    loss_columns = ("weight", "credit")

    def assign(self, batch, step):
        return super().assign(batch.with_columns(credit=batch.advantage / step), step)

    def advantages(self, log_prob, batch):
        return batch.credit
"""


def built(name: str, folder: Path):
    if name == "own":
        (folder / "mine.py").write_text(OWN)
        return method_class(f"{folder}/mine.py:Mine").from_fields()
    return method_of(name)


def loss_and_gradient(method, logits, ids, batch):
    loss = method.token_loss(policy_of(logits, ids, batch), batch)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize("name", [*METHODS, "own"])
def test_a_method_rebuilt_between_preparation_and_loss_gives_the_same(name, tmp_path):
    method = built(name, tmp_path)
    logits, ids, batch = random_batch(method, [5, 3, 6], 1)
    prepared = method.prepare(batch, 3)
    expected = loss_and_gradient(method, logits, ids, prepared)
    again = pickle.loads(pickle.dumps(method))
    fresh = type(method)(method.config)
    for other in (again, fresh):
        loss, gradient = loss_and_gradient(other, logits, ids, prepared)
        assert torch.equal(loss, expected[0])
        assert torch.equal(gradient, expected[1])
        assert torch.equal(other.needs_update(prepared), method.needs_update(prepared))


@pytest.mark.parametrize("name", [*METHODS, "own"])
def test_the_loss_reads_only_the_columns_that_the_method_declares(name, tmp_path):
    method = built(name, tmp_path)
    logits, ids, batch = random_batch(method, [5, 3, 6], 2)
    prepared = method.prepare(batch, 2)
    sent = prepared.for_loss(method.loss_columns)
    expected = loss_and_gradient(method, logits, ids, prepared)
    loss, gradient = loss_and_gradient(method, logits, ids, sent)
    assert torch.equal(loss, expected[0])
    assert torch.equal(gradient, expected[1])
    log_prob = policy_of(logits, ids, prepared).log_prob.detach()
    assert torch.equal(method.clipped_advantage(log_prob, sent), method.clipped_advantage(log_prob, prepared))
    assert torch.equal(method.needs_update(sent), method.needs_update(prepared))
    assert sent.teacher_log_prob is None or "teacher_log_prob" in method.loss_columns


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("name", METHODS)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=6), seed=st.integers(0, 50), data=st.data())
def test_parts_prepared_apart_with_added_sums_equal_the_whole(name, reduction, lengths, seed, data):
    fields = {"path_norm": "rollout" if reduction == "sequence" else "minibatch"} if name == "rlcsd" else {}
    method = method_of(name, reduction=reduction, **fields)
    _, _, batch = random_batch(method, lengths, seed)
    if method.whole_minibatch:
        return  # it compares tokens of all rollouts, so it declares that it cannot be prepared in parts
    whole = method.prepare(batch, 2)
    cut = data.draw(st.integers(1, len(lengths) - 1))
    ends = [0, sum(lengths[:cut]), sum(lengths)]
    parts = [method.assign(batch[slice(a, b)], 2) for a, b in pairwise(ends)]
    every = [method.sums(part) for part in parts]
    total = {key: sum(sums[key] for sums in every) for key in every[0]}
    parts = [method.normalise(part, total) for part in parts]
    for column in ("weight", "credit", "selected", "contrast"):
        expected = getattr(whole, column)
        if expected is not None:
            found = torch.cat([getattr(part, column) for part in parts])
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_methods_know_their_own_names():
    for name in METHODS:
        assert method_of(name).config.name == name

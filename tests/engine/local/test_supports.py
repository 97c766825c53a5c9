"""Supports stay with the engine: what is kept, laid out over all tokens, and released."""

from __future__ import annotations

import math

import pytest
import torch

from rlcsd.engine.local.supports import SupportStore
from rlcsd.records import TokenBatch
from rlcsd.run import Run


def columns_of(hinted: list[bool]) -> TokenBatch:
    zeros, marks = torch.zeros(len(hinted)), torch.tensor(hinted)
    return TokenBatch(torch.arange(len(hinted)), zeros, zeros, zeros, hinted=marks, is_correct=marks)


def test_wrong_hints_are_marginalised_row_by_row():
    store = SupportStore()
    ids = torch.arange(6).reshape(3, 2)
    support = store.add(ids, [1, 2], teacher=-torch.ones(3, 2))
    assert torch.equal(store.ids_at(support, [1, 0, 1]), ids[[1, 2, 0, 1, 2]])
    one, two, three = (torch.full((size, 2), math.log(p)) for size, p in ((2, 0.2), (1, 0.5), (2, 0.4)))
    store.keep(support, [1, 0, 1], torch.cat([one, two, three]))
    found = store.columns(columns_of([True] * 3).with_columns(topk_handle=support), torch.arange(3))
    torch.testing.assert_close(found.contrast_topk.exp(), torch.tensor([[0.5, 0.5], [0.3, 0.3], [0.3, 0.3]]))


def test_tokens_without_a_hint_have_no_support():
    store = SupportStore()
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
    assert len(run.engine.supports) == 0


@pytest.mark.parametrize("source", ["gt_cot", "own_rollout"])
def test_srpo_trains_rollouts_without_a_usable_hint_by_their_reward(source, tiny_config):
    run = Run(tiny_config("method=srpo", f"method.hint_source={source}", "method.unusable=plain", "learning_rate=1e-3"))
    result = run.trainer.step(1)
    assert math.isfinite(result.metrics["actor/loss"])
    assert result.metrics["update/skipped"] == 0
    plain = [row for rows in result.examples for row in rows if row.teacher_prompt is None]
    assert bool(plain) == (source == "own_rollout")

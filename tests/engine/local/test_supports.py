"""Supports stay with the engine: what is kept, laid out over all tokens, and released."""

from __future__ import annotations

import math

import pytest
import torch

from rlcsd.engine.local.supports import SupportStore
from rlcsd.records import Evidence
from rlcsd.run import Run


def evidence_of(hinted: list[bool]) -> Evidence:
    zeros = torch.zeros(len(hinted))
    return Evidence(torch.arange(len(hinted)), zeros, zeros, zeros, zeros, torch.tensor(hinted))


def test_wrong_hints_are_marginalised_row_by_row():
    store = SupportStore()
    ids = torch.arange(6).reshape(3, 2)
    support = store.add(ids, [1, 2], teacher=-torch.ones(3, 2))
    assert torch.equal(store.ids_at(support, [1, 0, 1]), ids[[1, 2, 0, 1, 2]])
    one, two, three = (torch.full((size, 2), math.log(p)) for size, p in ((2, 0.2), (1, 0.5), (2, 0.4)))
    store.keep(support, [1, 0, 1], torch.cat([one, two, three]))
    found = store.columns(evidence_of([True] * 3).with_columns(held=support), torch.arange(3))
    torch.testing.assert_close(found.wrong_support.exp(), torch.tensor([[0.5, 0.5], [0.3, 0.3], [0.3, 0.3]]))


def test_tokens_without_a_hint_have_no_support():
    store = SupportStore()
    support = store.add(torch.tensor([[7, 8], [5, 6]]), [2], teacher=torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]))
    evidence = evidence_of([False, True, True, False]).with_columns(held=support)
    found = store.columns(evidence, torch.tensor([3, 2, 0]))
    assert found.support.tolist() == [[0, 0], [5, 6], [0, 0]]
    assert found.teacher_support.tolist() == [[0.0, 0.0], [-3.0, -4.0], [0.0, 0.0]]
    store.release(support)
    assert len(store) == 0


@pytest.mark.parametrize("name", ["opsd", "sdpo", "srpo", "opsd_ectr"])
def test_a_step_leaves_no_support_behind(name, tiny_config):
    run = Run(tiny_config(f"method={name}"))
    result = run.trainer.step(1)
    assert any(evidence.held is not None for evidence in result.evidence)
    assert all(evidence.support is None for evidence in result.evidence)
    assert len(run.engine.supports) == 0


@pytest.mark.parametrize("source", ["gt_cot", "own_rollout"])
def test_srpo_trains_rollouts_without_a_usable_hint_by_their_reward(source, tiny_config):
    run = Run(tiny_config("method=srpo", f"method.hint_source={source}", "method.unusable=plain", "learning_rate=1e-3"))
    result = run.trainer.step(1)
    assert math.isfinite(result.metrics["actor/loss"])
    assert result.metrics["update/skipped"] == 0
    plain = [row for rows in result.rows for row in rows if row.correct is None]
    assert bool(plain) == (source == "own_rollout")

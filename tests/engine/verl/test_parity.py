"""The cluster engine against the local one: gradients of all methods, scores, teachers, state on other numbers of ranks.

Gradients are compared and not weights, because Adam turns a gradient of nearly zero into a whole step.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine
from rlcsd.methods import METHODS
from rlcsd.records import Pair, Sampling
from rlcsd.stages.correction import RolloutCorrection
from rlcsd.stages.score import build_token_batch
from tests.engine.local.test_update import rows_for
from tests.methods.catalogue import EIGHT, RELATIVES

from .conftest import TASK

TRUNCATED = RolloutCorrection("token_truncate")

EXTRA = ["kl_coefficient=0.01", "entropy_coefficient=0.02", "engine.micro_batch_tokens=60", "engine.score_tokens=150"]


@pytest.fixture(scope="module", params=[1, 2])
def both(request, engines):
    """The cluster engine on one or two ranks, and the local one, with a teacher, a reference and a bonus."""
    common = ["method=sdpo", "method.teacher=ema", "method.ema_rate=0.5", *EXTRA]
    cluster = engines(f"engine.gpus_per_node={request.param}", *common)
    config = load([*TASK, "engine=local", "engine.device=cpu", *common])
    return cluster, LocalEngine(config, build_method(config))


def built(name: str):
    return METHODS[name].from_fields(**({"top_k": 9} if METHODS[name].topk_from != "none" else {}))


def rows_of(local: LocalEngine, method, count: int = 7):
    """Random rows, of which some share a prompt and a hint, one has no hint, and lengths differ."""
    rows = rows_for(local, method, count=count)
    shared = [replace(row, prompt=rows[0].prompt, teacher_prompt=rows[0].teacher_prompt) for row in rows[:3]]
    return [*shared, *rows[3:-1], replace(rows[-1], teacher_prompt=None, contrast_prompts=(), hints=None)]


def relative(found, expected) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30))


@pytest.mark.parametrize(("name", "count"), [*((name, 7) for name in (*EIGHT, *RELATIVES)), ("sdpo", 1), ("rlcsd", 1)])
def test_the_first_gradient_is_the_local_engines(name, count, both):
    cluster, local = both
    method = built(name)
    rows = rows_of(local, method, count)
    pairs = [row.pair for row in rows]
    theirs = method.prepare(build_token_batch(cluster, rows, method, TRUNCATED), 2)
    ours = method.prepare(build_token_batch(local, rows, method, TRUNCATED), 2)
    for field in fields(ours):
        expected, found = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(expected, torch.Tensor) and field.name != "selected" and bool(expected.any()):
            assert relative(found, expected) < 1e-3, field.name
    local.optimizer.zero_grad()
    metrics = local.gradient(pairs, ours, method)
    expected = {n: p.grad for n, p in local.policy.named_trainable().items() if p.grad is not None}
    found = cluster.gradient(pairs, theirs, method)
    assert found.keys() == expected.keys()
    largest = max(float(grad.abs().max()) for grad in expected.values())
    assert largest > 0
    worst = max(float((found[n] - grad).abs().max()) for n, grad in expected.items()) / largest
    assert worst < 2e-4, worst
    updated = cluster.update(pairs, theirs, method, 0.0)
    for key in ("actor/loss", "actor/kl_to_old", "actor/updated_share"):
        assert updated[key].value == pytest.approx(metrics[key].value, abs=1e-4), key
    for engine, batch in ((cluster, theirs), (local, ours)):
        if batch.topk_handle is not None:
            engine.release(batch.topk_handle)


def pairs_of(engine, count: int = 5) -> list[Pair]:
    """The servers' responses to prompts of random ids."""
    prompts = [tuple(range(10 + 3 * i, 18 + 4 * i)) for i in range(count)]
    groups = engine.sample(prompts, 1, Sampling(max_tokens=20), 3)
    return [Pair(prompt, samples[0].ids) for prompt, samples in zip(prompts, groups, strict=True)]


def learn(engine, rows, method, steps: int = 2, rate: float = 1e-2) -> None:
    for step in range(1, steps + 1):
        batch = method.prepare(build_token_batch(engine, rows, method, TRUNCATED), step)
        engine.update([row.pair for row in rows], batch, method, rate)
        if batch.topk_handle is not None:
            engine.release(batch.topk_handle)


def figures(engine, pairs) -> torch.Tensor:
    return torch.stack([engine.score(pairs, who).log_prob for who in ("policy", "teacher", "reference")])


def test_servers_export_and_state_carry_what_was_learned(both, tmp_path_factory):
    """On one rank, train, save and go on; on two ranks, load that state and go on alike. Exports load locally."""
    cluster, local = both
    method = built("sdpo")
    rows = rows_of(local, method)
    state, ranks = tmp_path_factory.getbasetemp() / "state", cluster.settings.gpus
    pairs = [row.pair for row in rows]
    if ranks == 2:
        assert not torch.allclose(figures(cluster, pairs), torch.load(state / "before"), atol=1e-3)
        cluster.load_state(state)
        assert torch.allclose(figures(cluster, pairs), torch.load(state / "before"), atol=1e-4)
    else:
        state.mkdir()
        learn(cluster, rows, method)
        cluster.save_state(state)
        torch.save(figures(cluster, pairs), state / "before")
    policy, teacher, reference = figures(cluster, pairs)
    assert min(float((a - b).abs().max()) for a, b in ((policy, teacher), (teacher, reference))) > 1e-2
    assert torch.allclose(reference, local.score(pairs, "policy").log_prob, atol=1e-4)

    pairs_sampled = pairs_of(cluster)
    samples = cluster.sample([pair.context for pair in pairs_sampled], 2, Sampling(max_tokens=20), 5)
    again = [Pair(p.context, some[1].ids) for p, some in zip(pairs_sampled, samples, strict=True)]
    served = torch.cat([some[1].sampled_log_probs for some in samples])
    assert torch.allclose(cluster.score(again, "policy").log_prob, served, atol=2e-4)

    folder = tmp_path_factory.mktemp("export")
    cluster.save(folder)
    config = load([*TASK, f"model.path={folder}", "method=grpo", "engine.device=cpu"])
    exported = LocalEngine(config, build_method(config))
    assert torch.allclose(exported.score(pairs, "policy").log_prob, policy, atol=1e-4)

    learn(cluster, rows, method, 1, 1e-3)
    found = figures(cluster, pairs)
    if ranks == 1:
        torch.save(found, state / "after")
    else:
        moved = torch.load(state / "after") - torch.load(state / "before")
        assert float((found - torch.load(state / "after")).abs().mean()) < 0.05 * float(moved.abs().mean())


def test_a_state_of_another_model_is_refused(both, tmp_path):
    cluster, _ = both
    cluster.save_state(tmp_path)
    text = (tmp_path / "state.json").read_text().replace("weight/model.norm.weight", "weight/other")
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match="other parameters"):
        cluster.load_state(tmp_path)


def test_topk_log_probs_stay_with_the_workers_until_they_are_released(both):
    cluster, local = both
    method = built("sdpo")
    rows = rows_of(local, method)
    batch = build_token_batch(cluster, rows, method, TRUNCATED)
    assert batch.topk_handle is not None and batch.topk_ids is None
    assert sum(cluster.policy.call("topk_count", "counting")) > 0
    cluster.release(batch.topk_handle)
    cluster.release(batch.topk_handle)  # a second time does nothing
    assert sum(cluster.policy.call("topk_count", "counting")) == 0

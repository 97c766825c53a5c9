"""Sampling masks from sampler to gradient, against the whole softmax cut to the kept tokens by brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlcsd.config.schema import Config, LocalEngineConfig
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.sampler import sample
from rlcsd.layout import joined_masks
from rlcsd.methods import METHODS
from rlcsd.methods.contrast import contrast, teacher_gap
from rlcsd.methods.losses import low_variance_kl
from rlcsd.records import Pair, Rollout, Sample, Sampling, SamplingMask, TrainingExample, Verdict
from rlcsd.stages.score import build_token_batch
from tests.conftest import random_model

from .test_sampler import PROMPTS, filtered

CUT = Sampling(0.7, 0.8, 9, 14, keep_mask=True)


def logits_of(model, pair: Pair) -> Tensor:
    """`[T, V]` before each response token, by one plain pass."""
    ids = torch.tensor([[*pair.context, *pair.response]])
    return model(ids).logits[0, len(pair.context) - 1 : -1]


def kept_sets(mask: SamplingMask) -> list[list[int]]:
    return [part.tolist() for part in mask.ids.split(mask.counts.tolist())]


def among(log_probs: Tensor, kept: list[list[int]], ids) -> Tensor:
    """Log-probs of `ids [T]` among the kept tokens, from whole ones `[T, V]`: one softmax a token, cut by hand."""
    values = []
    for row, tokens, token in zip(log_probs, kept, ids, strict=True):
        probabilities = row.exp()
        whole = probabilities[tokens].sum() if tokens else probabilities.sum()
        values.append((probabilities[token] / whole).log())
    return torch.stack(values)


@pytest.mark.parametrize("sampling", [CUT, Sampling(1.0, 1.0, 3, 14, True), Sampling(1.0, 0.6, 500, 14, True)])
@pytest.mark.parametrize("limits", [{}, {"max_rows": 5, "max_slots": 120, "look_every": 5, "budget": 20}])
def test_the_sampler_records_what_it_sampled_from(sampling, limits, monkeypatch):
    monkeypatch.setattr("rlcsd.engine.local.sampler._MORE_SLOTS", 3)
    model = random_model(vocab=60, dtype=torch.float64)
    options = {"seed": 3, "stop_ids": range(2, 6), "pad_id": 0, **limits}
    groups = sample(Network(model), PROMPTS, 3, sampling, **options)
    plain = sample(Network(model), PROMPTS, 3, replace(sampling, keep_mask=False), **options)
    for prompt, group, unmasked in zip(PROMPTS, groups, plain, strict=True):
        for one, other in zip(group, unmasked, strict=True):
            assert one.ids == other.ids and other.sampling_mask is None
            with torch.no_grad():
                logits = logits_of(model, Pair(tuple(prompt), one.ids))
            expected = filtered(logits / sampling.temperature, sampling).isfinite()
            kept = kept_sets(one.sampling_mask)
            assert kept == [row.nonzero()[:, 0].tolist() for row in expected]
            assert one.sampling_mask.ids.dtype == one.sampling_mask.counts.dtype == torch.int32
            ids = torch.tensor(one.ids)
            restricted = among(logits.log_softmax(-1), kept, ids)
            torch.testing.assert_close(one.old_log_probs.double(), restricted, rtol=1e-4, atol=1e-5)
            drawn = among((logits / sampling.temperature).log_softmax(-1), kept, ids)
            torch.testing.assert_close(one.sampled_log_probs.double(), drawn, rtol=1e-4, atol=1e-5)


def test_a_mask_may_be_taken_apart_and_padded():
    mask = SamplingMask(torch.tensor([4, 1, 2, 3, 9], dtype=torch.int32), torch.tensor([1, 0, 3, 1], dtype=torch.int32))
    assert mask.padded().tolist() == [[4, -1, -1], [-1, -1, -1], [1, 2, 3], [9, -1, -1]]
    assert kept_sets(mask[1:3]) == [[], [1, 2, 3]] and kept_sets(mask[4:]) == []
    assert kept_sets(mask.at(torch.tensor([3, 0, 2]))) == [[9], [4], [1, 2, 3]]
    pairs = [Pair((1,), (5, 6)), Pair((1,), (7, 8, 9, 1), mask)]
    assert kept_sets(joined_masks(pairs)) == [[], [], [4], [], [1, 2, 3], [9]]
    assert joined_masks(pairs[:1]) is None and pairs[1] == Pair((1,), (7, 8, 9, 1))


def engine_for(method, tokenizer, model, micro: int = 10**6, **fields) -> LocalEngine:
    config = Config(
        engine=LocalEngineConfig(device="cpu", micro_batch_tokens=micro, score_tokens=64, self_check=False), **fields
    )
    return LocalEngine(config, method, Network(model, head_chunk=4), tokenizer)


def masked_examples(engine: LocalEngine, method) -> list[TrainingExample]:
    """Sampled with masks, except one without; the policy has moved a little since."""
    groups = engine.sample([[5, 6, 7], [8, 9]], 3, CUT, seed=4)
    samples = [one for group in groups for one in group]
    samples[2] = Sample(samples[2].ids, samples[2].log_probs, samples[2].sampled_log_probs, True)
    rows = []
    for index, one in enumerate(samples):
        hints = {"teacher_prompt": (3, index + 10), "contrast_prompts": ((4, 20), (4, 21, 22))} if method.hinted else {}
        if not method.needs_contrast:
            hints.pop("contrast_prompts", None)
        rows.append(
            TrainingExample(
                ((5, 6, 7), (8, 9))[index // 3],
                Rollout(one, "", Verdict(True, 1.0), None),
                [1.0, -0.8, 0.5][index % 3],
                **hints,
            )
        )
    with torch.no_grad():
        for parameter in engine.policy.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.003)
    return rows


def flat(rows, function) -> Tensor:
    return torch.cat([function(row) for row in rows])


def restricted(model, row: TrainingExample, context=None) -> Tensor:
    pair = replace(row.pair, context=row.prompt if context is None else context)
    mask = row.rollout.sample.sampling_mask
    kept = [[]] * len(pair.response) if mask is None else kept_sets(mask)
    return among(logits_of(model, pair).log_softmax(-1), kept, torch.tensor(pair.response))


def test_scores_and_gaps_are_among_the_kept_tokens_and_the_contrast_is_not(tokenizer):
    method = METHODS["rlcsd"].from_fields()
    model = random_model(vocab=len(tokenizer), dtype=torch.float64)
    engine = engine_for(method, tokenizer, model)
    rows = masked_examples(engine, method)
    teacher = engine.teacher.network.model
    scores = engine.score([row.pair for row in rows], "policy")
    with torch.no_grad():
        expected = flat(rows, lambda row: restricted(model, row))
        under_teacher = flat(rows, lambda row: restricted(teacher, row, row.teacher_prompt))
        whole = {
            context: flat(
                rows,
                lambda row, c=context: (
                    logits_of(teacher, Pair(c or row.teacher_prompt, row.pair.response))
                    .log_softmax(-1)
                    .gather(-1, torch.tensor(row.pair.response)[:, None])[:, 0]
                ),
            )
            for context in (None, (4, 20), (4, 21, 22))
        }
    torch.testing.assert_close(scores.log_prob - scores.log_kept_mass, expected)
    assert float(scores.log_kept_mass.min()) < -0.1
    batch = build_token_batch(engine, rows, method)
    old = flat(rows, lambda row: row.rollout.sample.old_log_probs)
    torch.testing.assert_close(batch.old_log_prob, old)
    torch.testing.assert_close(batch.teacher_log_prob, under_teacher)
    torch.testing.assert_close(teacher_gap(batch), under_teacher - old.double())
    wrong = torch.stack([whole[(4, 20)], whole[(4, 21, 22)]]).logsumexp(0) - torch.log(torch.tensor(2.0))
    torch.testing.assert_close(contrast(batch), whole[None] - wrong)


@pytest.mark.parametrize("name", ["grpo", "rlsd", "sdpo"])
def test_the_gradient_is_that_of_the_restricted_log_probs(name, tokenizer):
    """By autograd through whole softmaxes, for two cuts into micro-batches; the reference KL is over the vocabulary."""
    fields = {"top_k": 7} if name == "sdpo" else {}
    method = METHODS[name].from_fields(**fields)
    model = random_model(vocab=len(tokenizer), dtype=torch.float64)
    engine = engine_for(method, tokenizer, model, kl_coefficient=0.03)
    rows = masked_examples(engine, method)
    batch = method.prepare(build_token_batch(engine, rows, method), 2)
    teacher = engine.teacher.network.model if engine.teacher else None

    def whole(network, context, response) -> Tensor:
        return logits_of(network, Pair(context, response)).log_softmax(-1)

    loss, tokens = torch.zeros((), dtype=torch.float64), len(batch)
    for row in rows:
        one, ids = row.rollout.sample, torch.tensor(row.pair.response)
        now, old = restricted(model, row), one.old_log_probs.double()
        rho = (now - old).exp()
        advantage = torch.full_like(now, row.advantage)
        with torch.no_grad():
            reference = whole(engine.reference.model, row.prompt, row.pair.response).gather(-1, ids[:, None])[:, 0]
        full = whole(model, row.prompt, row.pair.response)
        loss = loss + 0.03 * low_variance_kl(full.gather(-1, ids[:, None])[:, 0], reference).sum() / tokens
        if name == "rlsd":
            gap = restricted(teacher, row, row.teacher_prompt).detach() - now.detach()
            lam = 0.5 * (1 - 1 / 50)
            advantage = advantage * ((1 - lam) + lam * (advantage.sign() * gap).exp().clamp(0.8, 1.2))
        if name == "sdpo":
            top = full.detach().topk(7).indices
            own, target = full.gather(-1, top), whole(teacher, row.teacher_prompt, row.pair.response).gather(-1, top)
            own, target = (
                torch.cat([x, (1 - x.exp().sum(-1, keepdim=True)).log()], -1) for x in (own, target.detach())
            )
            middle = (own.exp() + target.exp()).log() - torch.log(torch.tensor(2.0))
            divergence = 0.5 * (own.exp() * (own - middle) + target.exp() * (target - middle)).sum(-1)
            loss = loss + (divergence * rho.detach().clamp(max=2)).sum() / tokens
            continue
        surrogate = -torch.minimum(rho * advantage, rho.clamp(0.8, 1.2) * advantage)
        if name == "grpo":
            surrogate = torch.where(advantage < 0, torch.minimum(surrogate, -3 * advantage), surrogate)
        loss = loss + surrogate.sum() / tokens
    expected = torch.autograd.grad(loss, engine.policy.trainable())
    for micro in (10**6, 25):
        cut = engine if micro == 10**6 else engine_for(method, tokenizer, model, micro, kl_coefficient=0.03)
        cut.reference, cut.topk = engine.reference, engine.topk
        cut.optimizer.zero_grad(set_to_none=True)
        cut.gradient([row.pair for row in rows], batch, method)
        for parameter, wanted in zip(cut.policy.trainable(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-6, atol=1e-8)

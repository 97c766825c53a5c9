"""Means over each micro-batch: against literal loops of the published losses, and the cut against verl's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlcsd.config.load import load
from rlcsd.layout import Layout
from rlcsd.methods import METHODS, StudentLogProbs
from rlcsd.methods.losses import Regularisers, low_variance_kl
from rlcsd.records import Rollout, Sample, TrainingExample, Verdict
from rlcsd.stages.normalisation import balanced, micro_batches, normalised_in_parts, prepare_columns, row_tokens
from tests.methods.batches import policy_of, random_batch
from tests.methods.catalogue import EIGHT

LENGTHS = [5, 2, 9, 1, 4, 3]
PARTS = [[0, 3], [1], [2, 4, 5]]


def split(layout: Layout) -> list[torch.Tensor]:
    return [layout.tokens(part) for part in PARTS]


def built(name: str):
    return METHODS[name].from_fields(**({"top_k": 8} if METHODS[name].topk_from != "none" else {}))


@pytest.mark.parametrize("name", EIGHT)
def test_each_part_is_the_methods_own_mini_batch_weighed_by_its_rollouts(name):
    """What verl's legacy worker accumulates: Σ over micro-batches of rows / all rows × the loss of that one alone."""
    method, layout = built(name), Layout(tuple(LENGTHS))
    logits, ids, batch = random_batch(method, LENGTHS)
    prepared = normalised_in_parts(method, batch, split(layout), 2)
    found = method.token_loss(policy_of(logits, ids, prepared), prepared).sum()
    literal = torch.zeros((), dtype=torch.float64)
    for rows, tokens in zip(PARTS, split(layout), strict=True):
        alone = method.prepare(batch[tokens], 2)
        student = policy_of(logits[tokens], ids[tokens], alone)
        literal = literal + len(rows) / len(LENGTHS) * method.token_loss(student, alone).sum()
    torch.testing.assert_close(found, literal, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, literal)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)
    whole = method.prepare(batch, 2)
    other = method.token_loss(policy_of(logits, ids, whole), whole).sum()
    assert float((other - found).detach().abs()) > 1e-4 * float(found.detach().abs())  # it is not the mini-batch's


def test_rlcsd_by_hand():
    """The published loss of a micro-batch, written out: each path over its own tokens of this micro-batch."""
    method, layout = built("rlcsd"), Layout(tuple(LENGTHS))
    logits, ids, batch = random_batch(method, LENGTHS)
    prepared = normalised_in_parts(method, batch, split(layout), 1)
    log_prob = policy_of(logits, ids, batch).log_prob.detach()
    found = method.token_loss(StudentLogProbs(log_prob), prepared).sum()
    total = 0.0
    for rows in PARTS:
        sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        for row in rows:
            for t in range(layout.starts[row], layout.starts[row + 1]):
                wrong = [
                    float(batch.contrast_log_prob[t, k].exp())
                    for k in range(batch.contrast_valid.shape[1])
                    if batch.contrast_valid[t, k]
                ]
                contrast = float(batch.teacher_log_prob[t]) - torch.tensor(sum(wrong) / len(wrong)).log().item()
                residual = max(-2.0, min(2.0, 0.5 * torch.tanh(torch.tensor(contrast / 0.02)).item()))
                advantage, selected = float(batch.advantage[t]), abs(residual) > 0.02
                shifted = advantage + residual if selected else advantage
                shifted = max(shifted, 0.0) if advantage > 0 else min(shifted, 0.0) if advantage < 0 else 0.0
                ratio = float((log_prob[t] - batch.old_log_prob[t]).exp())
                surrogate = min(ratio * shifted, max(0.8, min(1.2, ratio)) * shifted)
                sums[selected] -= surrogate * float(batch.correction[t])
                counts[selected] += 1
        loss = sum(sums[path] / max(counts[path], 1) for path in (False, True))
        total += len(rows) / len(LENGTHS) * loss
    assert float(found) == pytest.approx(total, rel=1e-5)


def test_regularisers_are_means_of_the_same_parts():
    method, layout = built("rlsd_ectr"), Layout(tuple(LENGTHS))
    logits, ids, batch = random_batch(method, LENGTHS)
    prepared = normalised_in_parts(method, batch, split(layout), 1)
    log_prob = policy_of(logits, ids, batch).log_prob.detach()
    reference = log_prob - 0.3
    assert prepared.mean_tokens is not None
    found = Regularisers(kl=0.1).token_loss(log_prob, None, reference, prepared.mean_tokens)
    literal = sum(
        len(rows) / len(LENGTHS) * low_variance_kl(log_prob[tokens], reference[tokens]).mean()
        for rows, tokens in zip(PARTS, split(layout), strict=True)
    )
    torch.testing.assert_close(found.sum(), 0.1 * literal, rtol=1e-12, atol=0)
    assert prepared.for_loss(method.loss_columns).mean_tokens is not None  # it is sent to workers


def example(prompt: int, response: int, *hinted: int) -> TrainingExample:
    """A row with a prompt and a response of so many tokens, a correct hint and wrong ones."""
    sample = Sample((1,) * response, torch.zeros(response), torch.zeros(response), True)
    correct, *wrong = [(2,) * tokens for tokens in hinted] or [None]
    return TrainingExample((1,) * prompt, Rollout(sample, "", Verdict(True, 1.0), None), 1.0, correct, tuple(wrong))


def test_a_row_has_as_many_hinted_sequences_as_any_other():
    rows = [example(10, 5, 20, 30, 40), example(10, 5, 20, 50), example(10, 5)]
    assert row_tokens(rows) == [[15, 25, 35, 45], [15, 25, 55, 55], [15]]


def test_the_number_of_parts_follows_from_the_work_and_parts_are_even():
    def work(tokens):
        return 24576 * tokens + tokens**2

    lengths = [[7000], [3000], [12000], [500], [9000], [4000]]
    total = sum(work(one) for (one,) in lengths)
    parts = micro_batches(lengths, 12288)
    assert len(parts) == -(-total // work(12288)) == 3
    assert sorted(row for part in parts for row in part) == list(range(6))
    loads = [sum(work(lengths[row][0]) for row in part) for part in parts]
    assert max(loads) / min(loads) < 1.3
    assert micro_batches(lengths, 1) == [[row] for row in range(6)]
    assert micro_batches(lengths, 10**9) == [list(range(6))]


def test_the_work_of_a_published_row_is_what_the_docs_say():
    page = (Path(__file__).parents[2] / "docs" / "as_run.md").read_text(encoding="utf-8")
    row = [example(200, 7000, *[7200] * 5)]
    row_work, budget = (sum(24576 * n + n * n for n in lengths) for lengths in (row_tokens(row)[0], [40960]))
    assert row_work > budget and f"({row_work:.1e})".replace("e+0", "e") in page
    assert f"({budget:.1e})".replace("e+0", "e") in page
    assert len(micro_batches(row_tokens(row * 4), 40960)) == 4


def test_parts_are_those_of_verl():
    partition = pytest.importorskip("verl.utils.seqlen_balancing").get_seqlen_balanced_partitions
    generator = torch.Generator().manual_seed(0)
    for count in (2, 3, 7):
        work = torch.randint(1, 10**6, (16,), generator=generator).tolist()
        assert balanced(work, count) == sorted(partition(work, count, equal_size=False))


def test_the_config_decides_and_the_engines_cut_does_not_matter():
    method = built("rlcsd")
    rows = [example(10, length, 20, 30) for length in LENGTHS]
    _, _, batch = random_batch(method, LENGTHS)
    plain, nothing = prepare_columns(method, batch, rows, 1, load(["engine.micro_batch_tokens=7"]))
    torch.testing.assert_close(plain.weight, method.prepare(batch, 1).weight)
    assert nothing == {} and plain.mean_tokens is None
    keys = ["loss_normalisation=micro_batch", "normalisation_tokens=60"]
    columns, figures = prepare_columns(method, batch, rows, 1, load(keys))
    again, _ = prepare_columns(method, batch, rows, 1, load([*keys, "engine.micro_batch_tokens=7"]))
    assert torch.equal(columns.weight, again.weight) and not torch.allclose(columns.weight, plain.weight)
    parts = micro_batches(row_tokens(rows), 60)
    assert figures["update/micro_batch_rollouts"].value == len(rows) / len(parts) < len(rows)

"""The evidence of a mini-batch, against means of probabilities by hand."""

from __future__ import annotations

import math
import random

import pytest
import torch

from rlcsd.experiments.rlcsd_extended import RLCSDExtended
from rlcsd.records import Pair, Rollout, Sample, Scores, TrainingExample, Verdict
from rlcsd.stages.score import build_token_batch


class Table:
    """A scorer whose log-probs are drawn from the context and the token alone."""

    device = torch.device("cpu")

    def score(self, pairs, who="teacher", **_):
        values = [log_prob(pair, index) for pair in pairs for index in range(len(pair.response))]
        return Scores(torch.tensor(values), torch.tensor([abs(value) for value in values]))


def log_prob(pair: Pair, index: int) -> float:
    return -random.Random(f"{pair.context}/{pair.response}/{index}").uniform(0.1, 5.0)


def row(response: tuple[int, ...], correct, more, wrong) -> TrainingExample:
    sample = Sample(response, torch.zeros(len(response)), torch.zeros(len(response)), True)
    return TrainingExample(
        (1,), Rollout(sample, "", Verdict(False, 0.0), None), -0.5, correct, wrong, extra_prompts=more
    )


@pytest.mark.parametrize("k_correct", [1, 3])
def test_both_sides_are_marginalised_over_as_many_hints_as_each_row_has(k_correct):
    rows = [
        row((5, 6, 7), (10,), ((11,), (12,)), ((20,),)),
        row((8,), None, (), ()),
        row((9, 9), (13,), (), ((20,), (21,), (22,))),
        row((4,), (14,), ((15,),), ((23,),)),
    ]
    if k_correct == 1:
        rows = [row(r.rollout.sample.ids, r.teacher_prompt, (), r.contrast_prompts) for r in rows]
    method = RLCSDExtended.from_fields(k_correct=k_correct)
    batch = build_token_batch(Table(), rows, method)
    contrast = method.assign(batch, 1).contrast.tolist()
    expected = []
    for r in rows:
        for index in range(len(r.rollout.sample)):
            if r.teacher_prompt is None:
                expected.append(0.0)
                continue
            sides = []
            for contexts in ((r.teacher_prompt, *r.extra_prompts), r.contrast_prompts):
                shown = [math.exp(log_prob(Pair(c, r.rollout.sample.ids), index)) for c in contexts]
                sides.append(math.log(sum(shown) / len(shown)))
            expected.append(sides[0] - sides[1])
    assert contrast == pytest.approx(expected, rel=1e-5, abs=1e-6)
    first = [abs(log_prob(Pair(r.teacher_prompt, r.rollout.sample.ids), 0)) if r.teacher_prompt else 0.0 for r in rows]
    starts = [0, 3, 4, 6]
    assert [batch.teacher_entropy[s].item() for s in starts] == pytest.approx(first)

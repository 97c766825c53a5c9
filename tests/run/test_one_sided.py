"""rlcsd with the evidence of a correct hint alone, through a whole step."""

from __future__ import annotations

import json

import pytest

from rlcsd.run import Run, rollouts


@pytest.mark.parametrize("source", ["gt_cot", "self_rollout"])
def test_one_sided_evidence_needs_no_wrong_hint_and_is_teacher_minus_policy(source, tiny_config):
    run = Run(
        tiny_config(
            "method=rlcsd_extended",
            "method.evidence=one_sided",
            f"method.hint_source={source}",
            "sampling.max_tokens=80",
        )
    )
    result = run.trainer.step(1)
    records = json.loads(json.dumps(rollouts.records(result, run.engine.tokenizer, 4, run.method)))
    updated = [one for record in records for one in record["rollouts"] if one["updated"]]
    assert updated
    for one in updated:
        assert one["hints"]["wrong"] == []
        assert "wrong" not in one
        if source == "gt_cot":
            assert one["hints"]["correct"]["place"] == -1
        if one["advantage"]:  # the teacher was asked
            gaps = [teacher - mine for teacher, mine in zip(one["teacher"], one["log_prob"], strict=True)]
            assert one["contrast"] == pytest.approx(gaps, abs=1e-5)
    if source == "gt_cot":
        assert len(updated) == sum(len(record["rollouts"]) for record in records)  # no rollout is without a hint
    else:
        for record in records:
            correct = sum(one["correct"] for one in record["rollouts"])
            kept = sum(one["updated"] for one in record["rollouts"])
            assert kept == (0 if correct == 0 else len(record["rollouts"]) - (correct == 1))

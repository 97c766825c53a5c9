"""The records of rollouts: aligned columns, found by place, bounded in size."""

from __future__ import annotations

import json

import pytest
import torch

from rlcsd.methods import METHODS
from rlcsd.run import Run, rollout_log

SIGNALS = ("entropy", "teacher", "wrong", "contrast", "credit", "selected", "final_advantage", "weight")


@pytest.mark.parametrize("name", ["grpo", "rlsd", "rlcsd", "srpo", "opsd_ectr", "cepo", "opsa"])
def test_every_column_has_the_value_of_its_token(name, tiny_config):
    run = Run(tiny_config(f"method={name}", "sampling.max_tokens=144"))
    result = run.trainer.step(1)
    records = json.loads(json.dumps(rollout_log.rollout_records(result, run.engine.tokenizer, 4, run.method)))
    assert [record["group"] for record in records] == [0, 1, 2, 3]
    written = 0
    for rows, batch in zip(result.examples, result.token_batches, strict=True):
        start = 0
        for row in rows:
            record = records[row.group]["rollouts"][row.index]
            part = batch[slice(start, start := start + len(row.rollout.sample))]
            assert record["ids"] == list(row.rollout.sample.ids)
            assert record["log_prob"] == pytest.approx(part.old_log_prob.tolist(), abs=1e-5)
            assert record["advantage"] == pytest.approx(row.advantage)
            assert record["entropy"] == pytest.approx(row.rollout.sample.entropies.tolist(), abs=1e-5)
            assert record["weight"] == pytest.approx((part.weight * len(batch)).tolist(), rel=1e-4, abs=1e-5)
            final = None if name == "opsd_ectr" else part.credit
            if name == "srpo":  # rewarded where it is not distilled
                final = part.advantage * ~part.selected
            credit = part.credit if name == "srpo" else None
            for column, values in (("contrast", part.contrast), ("selected", part.selected), ("credit", credit),
                                   ("final_advantage", final)):  # fmt: skip
                assert (column in record) == (values is not None)
                if values is not None:
                    assert record[column] == pytest.approx(values.tolist(), abs=1e-5)
            assert all(len(record[column]) == record["tokens"] for column in SIGNALS if column in record)
            spans = dict.fromkeys(
                zip(record["start"], record["end"], strict=True)
            )  # bytes of one character share theirs
            assert (
                "".join(record["text"][a:b] for a, b in spans)
                == record["text"]
                == run.engine.tokenizer.decode(row.rollout.sample.ids)
            )
            written += 1
    assert written == sum(rollout["updated"] for record in records for rollout in record["rollouts"])
    assert METHODS[name].needs_contrast == any(
        "wrong" in rollout for record in records for rollout in record["rollouts"]
    )
    if name == "cepo":
        (shown, *_) = [one["hints"] for record in records for one in record["rollouts"] if "hints" in one]
        assert all((hint["kind"], hint["text"]) == ("answer", None) for hint in (shown["correct"], *shown["wrong"]))


def test_with_sampling_masks_a_step_is_among_the_kept_tokens_and_records_their_mass(tiny_config):
    cut = ("sampling.max_tokens=48", "sampling.top_p=0.7", "sampling.top_k=20", "method=sdpo", "sampling_mask=true")
    run = Run(tiny_config(*cut, "rollout_rejection=[0.99,1.01]", "engine.self_check=false"))
    result = run.trainer.step(1)
    assert result.metrics["correction/log_ratio_abs"] < 1e-4 and result.metrics["correction/rejected"] == 0
    assert result.metrics["correction/weight"] == pytest.approx(1, abs=1e-4)
    samples = [row.rollout.sample for rows in result.examples for row in rows]
    whole = torch.cat([sample.log_probs - sample.sampled_log_probs for sample in samples]).exp()
    assert result.metrics["sampling/kept_mass"] == pytest.approx(float(whole.mean()), abs=1e-4) and whole.mean() < 0.99
    records = rollout_log.rollout_records(result, run.engine.tokenizer, 4, run.method)
    first = next(rollout for record in records for rollout in record["rollouts"] if "teacher" in rollout)
    batch, size = result.token_batches[0], first["tokens"]
    assert len(first["log_kept_mass"]) == size and min(first["log_kept_mass"]) < -0.1
    for whole, mass, column in (
        ("log_prob", "log_kept_mass", batch.old_log_prob),
        ("teacher", "teacher_log_kept_mass", batch.teacher_log_prob),
    ):
        among = torch.tensor(first[whole]) - torch.tensor(first[mass])
        torch.testing.assert_close(among, column[:size], rtol=0, atol=1e-5)


def test_a_step_writes_a_bounded_number_of_tokens(tiny_config, monkeypatch):
    run = Run(tiny_config("sampling.max_tokens=144"))
    result = run.trainer.step(1)
    lengths = [sum(len(rollout.sample) for rollout in group.rollouts) for group in result.groups]
    monkeypatch.setattr(rollout_log, "TOKENS_PER_STEP", lengths[0] + lengths[1])
    assert len(rollout_log.rollout_records(result, run.engine.tokenizer, 4, run.method)) == 2
    monkeypatch.setattr(rollout_log, "TOKENS_PER_STEP", 40)
    (record,) = rollout_log.rollout_records(result, run.engine.tokenizer, 4, run.method)
    assert [rollout["tokens"] for rollout in record["rollouts"]] == [10] * 4
    assert [rollout["cut"] for rollout in record["rollouts"]] == [len(r.sample) - 10 for r in result.groups[0].rollouts]


# ------------------------------------------------------------------ test_one_sided
# rlcsd with the evidence of a correct hint alone, through a whole step.


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
    records = json.loads(json.dumps(rollout_log.rollout_records(result, run.engine.tokenizer, 4, run.method)))
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

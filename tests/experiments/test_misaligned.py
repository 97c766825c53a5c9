"""The misaligned teacher against a slow literal one: padded rows, a Python loop over rows and tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcsd.config.load import load
from rlcsd.prepare import prepare

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import misaligned

K = 4


class Literal:
    """One packed teacher batch: prompts end at one column, responses are padded to the longest of the step."""

    def __init__(self, network, prompts, responses, width):
        self.network, self.width = network, width
        self.prompt_width = max(map(len, prompts))
        self.total = self.prompt_width + max(map(len, responses))
        self.rows = [(self.prompt_width - len(p), (*p, *r), len(r)) for p, r in zip(prompts, responses, strict=True)]

    def logits(self, row):
        """`[total, V]` log-probs, 0 where nothing is attended."""
        offset, ids, _ = self.rows[row]
        with torch.no_grad():
            found = torch.log_softmax(self.network(input_ids=torch.tensor([ids])).logits[0].float(), dim=-1)
        full = torch.zeros(self.total, found.shape[-1])
        full[offset : offset + len(ids)] = found
        return full

    def attended(self, row, column):
        offset, ids, _ = self.rows[row]
        return offset <= column < offset + len(ids)

    def forward(self, micro, given=None, top_k=None):
        """log-probs, entropies, and top-k ids and log-probs `[B, width, …]` of a micro-batch as it reads them back.

        `given [B, width, k]` ids stand by the padded width of the student's responses.
        """
        end_to_end = [token for row in micro for token in self.rows[row][1]]
        rolled = [*end_to_end[1:], end_to_end[0]]
        longest = max(self.rows[row][2] for row in micro)
        start = self.total - longest - 1
        k = top_k or given.shape[-1] if given is not None or top_k else 1
        log_prob, entropy = torch.zeros(len(micro), self.width), torch.zeros(len(micro), self.width)
        ids = torch.zeros(len(micro), self.width, k, dtype=torch.long)
        values = torch.zeros(len(micro), self.width, k)
        at = 0
        for place, row in enumerate(micro):
            offset, tokens, length = self.rows[row]
            full = self.logits(row)
            for t in range(length):
                column = start + t
                if not self.attended(row, column):
                    continue
                log_prob[place, t] = full[column, rolled[at + column - offset]]
                entropy[place, t] = -(full[column].exp() * full[column]).sum()
                if given is not None:
                    index = column - (self.total - self.width - 1)  # of the ids that stand at this column
                    ids[place, t] = given[place, index]
                elif top_k:
                    ids[place, t] = full[column].topk(k).indices
                values[place, t] = full[column][ids[place, t]]
            at += len(tokens)
        return log_prob, entropy, ids, values


def flat(padded, lengths):
    return torch.cat([row[:n] for row, n in zip(padded, lengths, strict=True)])


def student_topk(network, prompt, response, width):
    """The student's ids `[width, K]` at the columns that predict its response and the padding behind it."""
    ids = torch.zeros(width, K, dtype=torch.long)
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([(*prompt, *response)])).logits[0]
    for t in range(min(len(response) + 1, width)):
        ids[t] = logits[len(prompt) - 1 + t].topk(K).indices
    return ids


@pytest.mark.parametrize("method", ["rlcsd", "opsd", "sdpo", "opsd_ectr"])
def test_columns_are_those_of_the_literal_packing(method):
    config = load([
        "task=roll_call", f"method={method}", "steps=1", "prompts_per_step=4", "prompts_per_update=2", "group_size=4",
        "seed=5", "task.train_per_size=8", "task.eval_per_size=2", "engine.threads=1", "engine.self_check=false",
        *([] if method == "rlcsd" else [f"method.top_k={K}"]),
    ])  # fmt: skip
    prepared = prepare(config)
    engine = misaligned.MisalignedEngine(config, prepared.method)
    trainer = misaligned.MisalignedTrainer(prepared, engine, severity="here")
    found = []
    score = trainer.token_batch

    def kept(batch):
        columns = score(batch)
        topk = None
        if columns.topk_handle is not None:
            topk = (
                engine.topk.ids_at(columns.topk_handle, range(len(batch))),
                *engine.topk.log_probs(columns.topk_handle),
            )
        expected = literal(method, engine, packed, batch)
        found.append((columns, topk, expected))
        return columns

    trainer.token_batch = kept
    hint = trainer.hint

    def packing(groups, number):
        hinted = hint(groups, number)
        examples = [example for group in hinted.examples for example in group]
        responses = [example.rollout.sample.ids for example in examples]
        width = max(map(len, responses))
        network = engine.teacher.network.model
        packed["rows"] = {(example.group, example.index): row for row, example in enumerate(examples)}
        packed["width"] = width
        packed["correct"] = Literal(network, [e.teacher_prompt for e in examples], responses, width)
        # a slot that a row lacks is filled with its first prompt, and ignored
        for slot in range(max(len(e.contrast_prompts) for e in examples)):
            prompts = [e.contrast_prompts[slot if slot < len(e.contrast_prompts) else 0] for e in examples]
            packed[slot] = Literal(network, prompts, responses, width)
        return hinted

    packed = {}
    trainer.hint = packing
    result = trainer.step(1)

    assert len(found) == 2
    shares = [result.metrics[f"misaligned/{name}"] for name in misaligned.SHARES]
    assert sum(shares) == pytest.approx(1) and min(shares[1:]) > 0.02
    for columns, topk, expected in found:
        torch.testing.assert_close(columns.teacher_log_prob, expected["log_prob"], atol=2e-4, rtol=0)
        torch.testing.assert_close(columns.teacher_entropy, expected["entropy"], atol=2e-4, rtol=0)
        if method == "rlcsd":
            valid = columns.contrast_valid
            torch.testing.assert_close(columns.contrast_log_prob[valid], expected["contrast"][valid], atol=2e-4, rtol=0)
        else:
            ids, teacher, contrast = topk
            assert torch.equal(ids, expected["ids"])
            torch.testing.assert_close(teacher, expected["teacher"], atol=2e-4, rtol=0)
            if method == "opsd_ectr":
                torch.testing.assert_close(contrast, expected["contrast"], atol=2e-4, rtol=0)


def literal(method, engine, packed, batch):
    """The columns of a mini-batch, micro-batch by micro-batch."""
    lengths = [len(example.rollout.sample) for example in batch]
    width = packed["width"]
    out = {name: torch.zeros(len(batch), width) for name in ("log_prob", "entropy")}
    slots = [slot for slot in packed if isinstance(slot, int)]
    out |= {"contrast": torch.zeros(len(batch), width, K if method == "opsd_ectr" else max(len(slots), 1))}
    out |= {"ids": torch.zeros(len(batch), width, K, dtype=torch.long), "teacher": torch.zeros(len(batch), width, K)}
    for micro in misaligned.balanced(lengths):
        rows = [packed["rows"][batch[i].group, batch[i].index] for i in micro]
        given = None
        if method == "sdpo":
            given = torch.stack(
                [student_topk(engine.policy.model, batch[i].prompt, batch[i].rollout.sample.ids, width) for i in micro]
            )
        top_k = K if method in ("opsd", "opsd_ectr") else None
        log_prob, entropy, ids, values = packed["correct"].forward(rows, given, top_k)
        out["log_prob"][micro], out["entropy"][micro] = log_prob, entropy
        if method == "rlcsd":
            for slot in slots:
                out["contrast"][micro, :, slot] = packed[slot].forward(rows)[0]
            continue
        out["ids"][micro], out["teacher"][micro] = (ids if given is None else given), values
        if method == "opsd_ectr":
            out["contrast"][micro] = packed[0].forward(rows, ids)[3]
    return {name: flat(padded, lengths) for name, padded in out.items()}


def test_a_severe_displacement_has_the_shares_of_the_published_sizes():
    rng = np.random.default_rng(1)
    found = np.zeros(3)
    for _ in range(50):
        lengths = rng.integers(45, 68, 64).tolist()
        stretched = misaligned.published_lengths(lengths)
        assert np.all(np.diff(np.array(stretched)[np.argsort(lengths, kind="stable")]) >= 0)
        for start in (0, 32):
            part = slice(start, start + 32)
            shifts = misaligned.displacements(lengths[part], stretched[part], misaligned.LIMIT)
            found += misaligned.counts(lengths[part], shifts)
    assert found / found.sum() == pytest.approx(misaligned.published_shares(misaligned.ROWS), abs=0.04)
    assert misaligned.published_shares(4) == pytest.approx([0.6, 0.28, 0.11], abs=0.02)


def test_one_response_by_hand():
    """Four tokens displaced by two: those of the third and fourth, the value behind the end, and nothing."""
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0, 7.0, 8.0])
    assert misaligned.read_back(values, [4, 1], [2, 0]).tolist() == [3.0, 4.0, 9.0, 0.0, 7.0]
    assert misaligned.counts([4, 1], [2, 0]).tolist() == [1, 3, 1]
    assert misaligned.read_back(values[:5], [4], [5]).tolist() == [0.0] * 4
    # M = 10; micro-batches by length (8, 3) and (6, 5): displaced by 2 and by 4
    assert misaligned.displacements([8, 6, 5, 3], [8, 6, 5, 3], 10, rows=2) == [2, 4, 4, 2]

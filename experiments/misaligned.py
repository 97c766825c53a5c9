"""The teacher of the published code before its fix of 2026-08-20, whose values stood at the wrong tokens.

    python experiments/misaligned.py     # the share of tokens with no value, another token's or their own, by size

Source: THU-BPM/RLCSD before commit 83bbd06: `_build_teacher_batch_from_prompts` in src/self_distill_main.py;
`_align_compact_response_tensor`, `_build_full_topk_indices`, `_forward_micro_batch` and `update_policy` in a copy of
third_party/verl/verl/workers/actor/dp_actor.py that lacks the fix (its commit is not known); the losses in
core_algos.py; scripts/_run_verl.sh (padding removed, micro-batches by tokens). What it did:

* The teacher's rows are packed once for the whole rollout batch: prompts end at one column, responses are padded to the
  longest response M of the batch. A micro-batch reads them back as if they were padded to the longest response m of its
  own rows. So token t gets what stands at token t + s, with s = M − m.
* Beyond the end of the response that is 0: log-probs, entropies and top-k ids alike. At t + s = n, one place behind the
  last of n tokens, stands the prediction after the end of the response, and as its "sampled token" the first token of
  the next row's prompt, because rows lie end to end without padding. All teacher prompts begin with the same token.
* Top-k targets. `opsd` and `opsd_ectr`: ids and log-probs of the teacher's most likely tokens are read back so; the
  student is scored at those ids at its own tokens. Where ids are given to the teacher (`sdpo`, `srpo`: the student's;
  the wrong hint of `opsd_ectr`: those read back before), they stand by the padded width R of the student's responses,
  and only what is read back is displaced by s. R is the response limit. At the published sizes a response is cut at the
  limit in practically every batch, so R = M and the ids stand at their own tokens; that is assumed here.

Micro-batches balance the lengths of the rows of a mini-batch, as there (verl's `get_seqlen_balanced_partitions`; here
the longest row goes to the lightest micro-batch), with four rows on average.

Severities:
    here: M and m are the lengths of this task's responses: 64 rollouts a step, 32 a mini-batch.
    severe: each response is displaced by the share of its length by which one of its rank is at the published sizes
        (`published_lengths`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcsd.engine.local.local_engine import LocalEngine
from rlcsd.methods import TokenBatch
from rlcsd.records import Group, HintKind, Pair, Scores, TopKHandle, TrainingExample
from rlcsd.stages.hint import HintedExamples
from rlcsd.trainer import StepResult, Trainer

ROWS = 4  # of a micro-batch, on average
LIMIT, MEAN, SIGMA = 16384, 7000, 0.5  # of the published responses: token limit, mean, spread of the logarithm
SEVERITIES = ("here", "severe")
SHARES = ("zero", "other", "own")


def balanced(lengths: Sequence[float], rows: int = ROWS) -> list[list[int]]:
    """Micro-batches of `rows` rows on average and similar sums of lengths, as indices into `lengths`."""
    found: list[list[int]] = [[] for _ in range(max(1, round(len(lengths) / rows)))]
    sums = [0.0] * len(found)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        lightest = sums.index(min(sums))
        found[lightest].append(index)
        sums[lightest] += lengths[index]
    return [micro for micro in found if micro]


def log_normal(normal: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    """Response lengths for draws of a standard normal: log-normal, cut at LIMIT, of mean MEAN before the cut."""
    return np.minimum(np.exp(np.log(MEAN) - sigma**2 / 2 + sigma * normal), LIMIT)


def published_lengths(lengths: Sequence[int]) -> list[float]:
    """For responses of these lengths, those of the same rank among as many published ones.

    The spread is a little wider than SIGMA, so that the shares of tokens are those of the published sizes: there long
    responses, which are displaced least, have far more tokens than short ones, and here hardly more.
    """
    order = np.argsort(np.argsort(lengths, kind="stable"), kind="stable")
    normal = [NormalDist().inv_cdf((rank + 0.5) / len(lengths)) for rank in order]
    return [float(length) for length in log_normal(np.array(normal), 0.55)]


def displacements(lengths: Sequence[int], stretched: Sequence[float], longest: float, rows: int = ROWS) -> list[int]:
    """By how many tokens each response of a mini-batch is displaced: M − m, in tokens of its own length.

    `stretched` are the lengths that decide M − m, and `longest` is M; for the severity `here` those of the responses.
    """
    found = [0] * len(lengths)
    for micro in balanced(stretched, rows):
        gap = longest - max(stretched[row] for row in micro)
        for row in micro:
            found[row] = round(gap * lengths[row] / stretched[row])
    return found


def counts(lengths: Sequence[int], shifts: Sequence[int]) -> np.ndarray:
    """Tokens that get 0, what stands at another token, and their own value, `[3]`."""
    found = np.zeros(3)
    for n, s in zip(lengths, shifts, strict=True):
        others = max(n - s + 1, 0) if s else 0
        found += (0, 0, n) if s == 0 else (n - others, others, 0)
    return found


def read_back(values: Tensor, lengths: Sequence[int], shifts: Sequence[int]) -> Tensor:
    """What the tokens of responses get, `[N, …]`.

    `values [N + B, …]` are those of B responses end to end, each with the one behind its end.
    """
    rows = []
    for row, n, s in zip(values.split([n + 1 for n in lengths]), lengths, shifts, strict=True):
        found = torch.zeros_like(row[:n])
        found[: max(n + 1 - s, 0)] = row[s : s + n]
        rows.append(found)
    return torch.cat(rows)


class MisalignedEngine(LocalEngine):
    """`shifts`: by how many tokens the teacher's values of a response are displaced, by `id` of its tuple of ids."""

    shifts: Mapping[int, int] = {}

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.behind: dict[int, Tensor] = {}  # of a handle: the student's ids behind the end of each response, [B, k]

    def score(
        self,
        pairs: Sequence[Pair],
        who: str = "teacher",
        *,
        top_k: int = 0,
        topk_handle: TopKHandle | None = None,
        rows: Sequence[int] | None = None,
        hints: HintKind = "correct",
    ) -> Scores:
        if who == "reference" or (who == "policy" and not top_k):
            return super().score(pairs, who)
        lengths = [len(pair.response) for pair in pairs]
        longer = [Pair(pair.context, (*pair.response, pair.context[0])) for pair in pairs]
        if who == "policy":
            return self._student(longer, lengths, top_k)
        shifts = [self.shifts[id(pair.response)] for pair in pairs]

        def back(values: Tensor) -> Tensor:
            return read_back(values, lengths, shifts)

        made = None
        if topk_handle is not None:
            rows = list(range(len(pairs))) if rows is None else rows
            given = self.topk.add(self._placed(topk_handle, rows, lengths), [n + 1 for n in lengths], None)
            scores = super().score(longer, topk_handle=given)
            log_probs = self.topk.log_probs(given)[0]
            assert log_probs is not None
            self.topk.keep(topk_handle, rows, back(log_probs), hints)
            self.topk.release(given)
        else:
            scores = super().score(longer, top_k=top_k)
        if scores.topk is not None:
            log_probs = self.topk.log_probs(scores.topk)[0]
            assert log_probs is not None
            ids = self.topk.ids_at(scores.topk, range(len(pairs)))
            made = self.topk.add(back(ids), lengths, back(log_probs))
            self.topk.release(scores.topk)
        return Scores(back(scores.log_prob), back(scores.entropy), made)

    def _student(self, longer: Sequence[Pair], lengths: Sequence[int], top_k: int) -> Scores:
        """The student's own top-k ids, in place, and those behind the end of each response."""
        scores = super().score(longer, "policy", top_k=top_k)
        assert scores.topk is not None
        ids = self.topk.ids_at(scores.topk, range(len(longer)))
        self.topk.release(scores.topk)
        ends = torch.tensor(lengths, device=ids.device).add(1).cumsum(0) - 1
        inside = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        inside[ends] = False
        made = self.topk.add(ids[inside], lengths, None)
        self.behind[made.key] = ids[ends]
        return Scores(scores.log_prob[inside], scores.entropy[inside], made)

    def _placed(self, handle: TopKHandle, rows: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """The ids of some responses where they stand in the teacher's rows, `[N + B, k]`."""
        ids = self.topk.ids_at(handle, rows)
        known = self.behind.get(handle.key)
        behind = ids.new_zeros(len(rows), ids.shape[1]) if known is None else known[list(rows)]
        return torch.cat([part for row in zip(ids.split(list(lengths)), behind.split(1), strict=True) for part in row])

    def release(self, topk_handle: TopKHandle) -> None:
        self.behind.pop(topk_handle.key, None)
        super().release(topk_handle)


class MisalignedTrainer(Trainer):
    """Trains with a teacher whose values are displaced; needs a MisalignedEngine.

    Its steps have the metrics `misaligned/zero`, `misaligned/other` and `misaligned/own`: shares of the updated tokens.
    """

    engine: MisalignedEngine

    def __init__(self, *arguments: Any, severity: str) -> None:
        super().__init__(*arguments)
        assert severity in SEVERITIES
        self.severity = severity
        self._stretched: dict[int, float] = {}
        self._counts = np.zeros(3)

    def hint(self, groups: Sequence[Group], number: int) -> HintedExamples:
        """The published code packs the teacher's rows here: for all rollouts that will be updated."""
        hinted = super().hint(groups, number)
        responses = [example.rollout.sample.ids for group in hinted.examples for example in group]
        lengths = [len(response) for response in responses]
        stretched = published_lengths(lengths) if self.severity == "severe" else lengths
        self._stretched = {id(response): length for response, length in zip(responses, stretched, strict=True)}
        return hinted

    def token_batch(self, batch: Sequence[TrainingExample]) -> TokenBatch:
        responses = [example.rollout.sample.ids for example in batch]
        lengths = [len(response) for response in responses]
        longest = LIMIT if self.severity == "severe" else max(self._stretched.values())
        shifts = displacements(lengths, [self._stretched[id(response)] for response in responses], longest)
        self._counts += counts(lengths, shifts)
        self.engine.shifts = {id(response): shift for response, shift in zip(responses, shifts, strict=True)}
        return super().token_batch(batch)

    def step(self, number: int) -> StepResult:
        self._counts = np.zeros(3)
        result = super().step(number)
        if not self._counts.any():  # no rollout was updated
            return result
        shares = self._counts / self._counts.sum()
        result.metrics.update({f"misaligned/{name}": float(share) for name, share in zip(SHARES, shares, strict=True)})
        return result


def published_shares(rows: int, sigma: float = SIGMA, batches: int = 6) -> np.ndarray:
    """Shares `[3]` at the published sizes: 512 responses a batch, 16 a mini-batch on one of eight devices."""
    rng = np.random.default_rng(0)
    found = np.zeros(3)
    for _ in range(batches):
        lengths = log_normal(rng.standard_normal(512), sigma).astype(int).tolist()
        for start in range(0, 512, 16):
            part = lengths[start : start + 16]
            found += counts(part, displacements(part, part, max(lengths), rows))
    return found / found.sum()


def main() -> None:
    print(f"512 responses, log-normal of mean {MEAN:,}, cut at {LIMIT:,}; share of tokens that get")
    print("spread  rows   no value   another's   their own")
    for sigma in (0.4, SIGMA, 0.6):
        for rows in (1, 2, 3, 4):
            zero, other, own = published_shares(rows, sigma)
            print(f"{sigma:6}  {rows:4}  {zero:9.2f}  {other:10.2f}  {own:10.2f}")


if __name__ == "__main__":
    main()

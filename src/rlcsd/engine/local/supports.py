"""Top-k supports and the log-probs at them: made by scoring, read by the update, released by the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layout import Layout
from ...methods.contrast import marginal_log_prob
from ...records import TokenBatch, TopKHandle


@dataclass
class _Held:
    """`ids [M, k]` of the M tokens of a support's rows; log-probs `[M, k]` at them under correct and wrong hints."""

    ids: Tensor
    teacher: Tensor | None = None
    wrong: Tensor | None = None


class SupportStore:
    """The supports of one engine, by key."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._made = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, ids: Tensor, lengths: Sequence[int], teacher: Tensor | None) -> TopKHandle:
        """A handle to new `ids [M, k]`; `teacher [M, k]` if they were the teacher's most likely tokens."""
        self._made += 1
        self._held[self._made] = _Held(ids, teacher)
        return TopKHandle(self._made, tuple(lengths))

    def ids_at(self, support: TopKHandle, rows: Sequence[int]) -> Tensor:
        """Token ids for responses scored at the given rows, `[sum of their lengths, k]`."""
        return torch.cat([self._held[support.key].ids[span] for span in _spans(support, rows)])

    def keep(self, support: TopKHandle, rows: Sequence[int], log_probs: Tensor) -> None:
        """Log-probs of responses scored at the given rows: the teacher's first, then those under wrong hints."""
        held = self._held[support.key]
        if held.teacher is None:
            assert list(rows) == list(range(len(support.lengths)))
            held.teacher = log_probs
            return
        slots: dict[int, int] = dict.fromkeys(rows, 0)
        wrong = log_probs.new_zeros(*held.ids.shape, max(map(list(rows).count, slots), default=1))
        valid = torch.zeros(len(wrong), 1, wrong.shape[-1], dtype=torch.bool, device=wrong.device)
        start = 0
        for row, span in zip(rows, _spans(support, rows), strict=True):
            size = support.lengths[row]
            wrong[span, :, slots[row]], valid[span, :, slots[row]] = log_probs[start : start + size], True
            slots[row], start = slots[row] + 1, start + size
        held.wrong = marginal_log_prob(wrong, valid)

    def log_probs(self, support: TopKHandle) -> tuple[Tensor | None, Tensor | None]:
        """The log-probs `[M, k]` at a support that are known: the teacher's, and the marginal under wrong hints."""
        held = self._held[support.key]
        return held.teacher, held.wrong

    def set_log_probs(self, support: TopKHandle, teacher: Tensor | None, wrong: Tensor | None) -> None:
        """Log-probs `[M, k]` that were computed elsewhere."""
        held = self._held[support.key]
        held.teacher, held.wrong = teacher, wrong

    def release(self, support: TopKHandle) -> None:
        self._held.pop(support.key, None)

    def columns(self, batch: TokenBatch, tokens: Tensor) -> TokenBatch:
        """`evidence[tokens]` with the support's columns; 0 at tokens that have no support (see `Evidence.hinted`)."""
        part = batch[tokens]
        if batch.topk_handle is None:
            return part
        held = self._held[batch.topk_handle.key]
        places = (batch.hinted.cumsum(0) - 1)[tokens]

        def column(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            return torch.where(part.hinted[:, None], values[places.clamp(min=0)], 0)

        return part.with_columns(
            topk_ids=column(held.ids), teacher_topk=column(held.teacher), contrast_topk=column(held.wrong)
        )


def _spans(support: TopKHandle, rows: Sequence[int]) -> list[slice]:
    layout = Layout(support.lengths)
    return [layout.span(row) for row in rows]

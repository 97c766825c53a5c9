"""Where the response tokens of some rows are in flat columns, and the way to `(B, T)` and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from .records import Pair, SamplingMask

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Layout:
    """Rows of the given lengths laid end to end, N tokens in all, in columns on `device`."""

    lengths: tuple[int, ...]
    device: torch.device = _CPU

    @cached_property
    def starts(self) -> list[int]:
        """The first token of each row, and N."""
        return list(accumulate(self.lengths, initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def span(self, row: int) -> slice:
        """The tokens of one row."""
        return slice(self.starts[row], self.starts[row + 1])

    def tokens(self, rows: Sequence[int]) -> Tensor:
        """The tokens of some rows, row after row, as an index of the columns."""
        parts = [torch.arange(self.starts[row], self.starts[row + 1]) for row in rows]
        return torch.cat(parts).to(self.device) if parts else torch.zeros(0, dtype=torch.long, device=self.device)

    def per_row(self, values: Sequence[float | bool | int], dtype: torch.dtype = torch.float32) -> Tensor:
        """One value for each row → `[N]`."""
        column = torch.tensor(list(values), dtype=dtype, device=self.device)
        repeats = torch.tensor(self.lengths, device=self.device)
        return column.repeat_interleave(repeats, output_size=sum(self.lengths))

    def mask(self) -> Tensor:
        """Bool `[B, T]`, T the longest row: True where a padded matrix holds a token."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(max(self.lengths, default=0), device=self.device) < lengths[:, None]

    def padded(self, flat: Tensor, fill: float = 0.0) -> Tensor:
        """`[N, …]` → `[B, T, …]`, rows padded at their end with `fill`."""
        mask = self.mask()
        matrix = flat.new_full((*mask.shape, *flat.shape[1:]), fill)
        matrix[mask] = flat
        return matrix

    def flat(self, matrix: Tensor) -> Tensor:
        """`[B, T, …]` → `[N, …]`, without the padding."""
        return matrix[self.mask()]


# ------------------------------------------------------------------ sampling masks


def all_masked(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, with a mask of the whole vocabulary for those without one if any has one."""
    if all(pair.sampling_mask is None for pair in pairs):
        return list(pairs)
    none = torch.zeros(0, dtype=torch.int32)

    def masked(pair: Pair) -> Pair:
        whole = SamplingMask(none, torch.zeros(len(pair.response), dtype=torch.int32))
        return pair if pair.sampling_mask is not None else replace(pair, sampling_mask=whole)

    return [masked(pair) for pair in pairs]


def joined_masks(pairs: Sequence[Pair]) -> SamplingMask | None:
    """The sampling masks of the pairs' response tokens end to end, or None if no pair has one."""
    masks = [pair.sampling_mask for pair in all_masked(pairs) if pair.sampling_mask is not None]
    if not masks:
        return None
    return SamplingMask(torch.cat([mask.ids for mask in masks]), torch.cat([mask.counts for mask in masks]))

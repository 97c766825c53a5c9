"""Where the response tokens of some rows are in flat columns, and the way to `(B, T)` and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Rows of the given lengths laid end to end, N tokens in all, in columns on `device`."""

    lengths: tuple[int, ...]
    device: torch.device

    @property
    def starts(self) -> list[int]:
        """The first token of each row, and N."""
        return list(accumulate(self.lengths, initial=0))

    def __len__(self) -> int:
        return sum(self.lengths)

    def span(self, row: int) -> slice:
        starts = self.starts
        return slice(starts[row], starts[row + 1])

    def per_row(self, values: Sequence[float | bool | int], dtype: torch.dtype = torch.float32) -> Tensor:
        """One value for each row → `[N]`."""
        column = torch.tensor(list(values), dtype=dtype, device=self.device)
        return column.repeat_interleave(torch.tensor(self.lengths, device=self.device))

    def mask(self) -> Tensor:
        """Bool `[B, T]`, T the longest row: which places of a padded matrix are tokens."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(max(self.lengths, default=0), device=self.device) < lengths[:, None]

    def padded(self, flat: Tensor, fill: float = 0.0) -> Tensor:
        """`[N, …]` → `[B, T, …]`, rows padded behind with `fill`."""
        mask = self.mask()
        matrix = flat.new_full((*mask.shape, *flat.shape[1:]), fill)
        matrix[mask] = flat
        return matrix

    def flat(self, matrix: Tensor) -> Tensor:
        """`[B, T, …]` → `[N, …]`, without the padding."""
        return matrix[self.mask()]

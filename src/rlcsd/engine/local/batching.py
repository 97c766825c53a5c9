"""Rows side by side: padded matrices, and batches of like length within a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...records import Pair


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device, left: bool) -> tuple[Tensor, Tensor]:
    """Ids and mask `[R, longest]`, padded at the beginning (`left`) or at the end of each row."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, where] = torch.tensor(list(row), dtype=torch.long)
        mask[index, where] = 1
    return ids.to(device), mask.to(device)


def predicting_places(pairs: Sequence[Pair], width: int, device: torch.device) -> Tensor:
    """Bool `[R, width]`: places of context + response, padded at the end, whose output predicts a response token."""
    contexts = torch.tensor([len(pair.context) for pair in pairs], device=device)[:, None]
    responses = torch.tensor([len(pair.response) for pair in pairs], device=device)[:, None]
    places = torch.arange(width, device=device)
    return (places >= contexts - 1) & (places < contexts + responses - 1)


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places in order of length, cut so that count × longest stays within `budget`, if one alone does.

    Places of length 0 never share a batch with others.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        first_with_tokens = batch and lengths[batch[0]] == 0 < lengths[place]
        if batch and (first_with_tokens or (len(batch) + 1) * lengths[place] > budget):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def micro_batches(lengths: Sequence[int], rows: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Some `rows` of those lengths, cut as `batches` does."""
    for batch in batches([lengths[row] for row in rows], budget):
        yield [rows[place] for place in batch]

"""Flat columns and padded matrices."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.layout import Layout


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), width=st.integers(0, 3))
def test_padding_and_flattening_are_inverse(lengths, width):
    layout = Layout(tuple(lengths), torch.device("cpu"))
    flat = torch.arange(len(layout) * max(width, 1), dtype=torch.float32)
    flat = flat.reshape(len(layout), width) if width else flat
    matrix = layout.padded(flat, -1.0)
    assert matrix.shape[:2] == (len(lengths), max(lengths))
    assert torch.equal(layout.flat(matrix), flat)
    for row, length in enumerate(lengths):
        assert torch.equal(matrix[row, :length], flat[layout.span(row)])
        assert bool((matrix[row, length:] == -1).all())


def test_a_value_for_each_row():
    layout = Layout((2, 0, 3), torch.device("cpu"))
    assert layout.per_row([5, 6, 7], torch.long).tolist() == [5, 5, 7, 7, 7]
    assert layout.per_row([True, False, False], torch.bool).tolist() == [True, True, False, False, False]

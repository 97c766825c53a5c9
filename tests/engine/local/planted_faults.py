"""Faults of a path's arithmetic, each of which the self-check must see; a plain pass computes as before."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers.masking_utils import causal_mask_function

from rlcsd.engine.local import attention, caches, sampler, scoring, self_check
from rlcsd.engine.local.model import Network


@contextmanager
def window_ignored() -> Iterator[None]:
    """A batch of several rows attends to all tokens, not only to those in the sliding window."""
    real = attention.sdpa_mask

    def mask(batch_size, *positions, **options):
        if batch_size > 1 and options.get("local_size") is not None:
            options |= {"local_size": None, "mask_function": causal_mask_function, "allow_is_causal_skip": False}
        return real(batch_size, *positions, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "sdpa_mask", mask)
        yield


@contextmanager
def in_extend(change) -> Iterator[None]:
    """`change(prefix)` before a block of tokens follows a cached prefix, in the scorer and in the update."""
    real = caches.extend

    def extend(network, prefix, blocks, pad):
        return real(network, change(prefix), blocks, pad)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "extend", extend)
        patch.setattr(scoring, "extend", extend)
        yield


def cache_off_by_one():
    """Tokens after a cached prefix do not attend to its last token."""

    def change(prefix):
        mask = prefix.mask.clone()
        mask[:, -1] = 0
        return replace(prefix, mask=mask)

    return in_extend(change)


def wrong_rotary():
    """Tokens after a cached prefix are rotated as if they stood one position later."""
    return in_extend(lambda prefix: replace(prefix, lengths=prefix.lengths + 1))


@contextmanager
def stale_weights() -> Iterator[None]:
    """The sampler has the weights of an earlier step: each is off by about a hundredth of the largest of its tensor."""
    real = sampler.sample

    def sample(network, *arguments, **options):
        old = Network(copy.deepcopy(network.model), autocast=network.autocast_dtype is not None)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in old.model.parameters():
                weight += torch.randn(weight.shape, generator=generator) * weight.abs().max() * 0.01
        return real(old, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_check.sampler, "sample", sample)
        yield


FAULTS = {fault.__name__: fault for fault in (window_ignored, cache_off_by_one, wrong_rotary, stale_weights)}

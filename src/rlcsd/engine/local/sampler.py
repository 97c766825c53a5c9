"""The decode loop: each prompt is prefilled once; its responses are decoded side by side over a static KV cache.

Simplified: a batch is drawn to its end before the next begins (no continuous batching), because that keeps the random
numbers of a response independent of timing. Two economies are made by editing the library's static cache in place: it
begins small and grows, because attention runs over every slot, and rows that have ended are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import StaticCache

from ...records import Sample, Sampling
from .caches import padded
from .model import cache_argument, uses_sliding_window

_FIRST_ROOM = 64  # tokens of a response that the cache has room for at first; then it grows by half
_SHRINK_BELOW = 0.75  # rows are copied together once fewer than this share still write


def filtered_log_probs(logits: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs `[R, V]` after temperature, then top-k, then top-p (nucleus); excluded tokens get −inf."""
    scaled = logits / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[-1]:
        kth = scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < kth, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = scaled.sort(dim=-1, descending=True)
        probs = ordered.softmax(dim=-1)
        # A token stays while the mass *before* it is below top_p, so the most likely one always stays.
        outside = probs.cumsum(dim=-1) - probs >= sampling.top_p
        scaled = scaled.masked_fill(outside.scatter(-1, order, outside), -torch.inf)
    return scaled.log_softmax(dim=-1)


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Next token ids `[R]`, and `[R, 3]`: log-prob as scored, log-prob as sampled, entropy. Temperature 0 is greedy."""
    scored = logits.log_softmax(dim=-1)
    entropy = -(scored.exp() * scored).sum(dim=-1)
    if sampling.temperature == 0.0:
        ids = logits.argmax(dim=-1)
        return ids, torch.stack([scored.gather(-1, ids[:, None])[:, 0], torch.zeros_like(entropy), entropy], dim=1)
    plain = sampling.temperature == 1.0 and sampling.top_p >= 1.0 and sampling.top_k == 0
    drawn_from = scored if plain else filtered_log_probs(logits, sampling)
    picked = torch.multinomial(drawn_from.exp(), 1, generator=generator)
    return picked[:, 0], torch.stack(
        [scored.gather(-1, picked)[:, 0], drawn_from.gather(-1, picked)[:, 0], entropy], dim=1
    )


class _GrowingCache(StaticCache):  # type: ignore[misc]
    """A static cache of one type whose rows can be selected and whose room can grow."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__(**options)
        self.held = dtype

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        # Under autocast, normalised keys come in float32 and values in bf16; a static cache holds one type.
        return super().update(key_states.to(self.held), value_states.to(self.held), *args, **kwargs)

    def keep_rows(self, rows: Tensor) -> None:
        for layer in self.layers:
            layer.keys = layer.keys.index_select(0, rows)
            layer.values = layer.values.index_select(0, rows)
            layer.batch_size = len(rows)

    def grow(self, slots: int) -> None:
        for layer in self.layers:
            layer.keys = pad(layer.keys, (0, 0, 0, slots))
            layer.values = pad(layer.values, (0, 0, 0, slots))
            layer.max_cache_len += slots


class _Decoding:
    """The responses to a few prompts that are being decoded side by side: R rows, of which some have ended."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int, limit: int, filler: int) -> None:
        """Prefills the prompts; `limit` is the most tokens of a response."""
        self.model, self.limit = model, limit
        ids, mask = padded(prompts, filler, model.device, left=True)
        # A sliding window's layers hold a fixed number of slots, so there the whole room is taken at once.
        self.room = limit if uses_sliding_window(model.config) else min(limit, _FIRST_ROOM)
        device = model.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
        self.cache = _GrowingCache(dtype, config=model.config, max_cache_len=ids.shape[1] + self.room)
        mask_with_room = pad(mask, (0, self.room), value=1)  # slots not yet written are hidden by causality
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        held = cache_argument(model, self.cache)
        output = model(ids, attention_mask=mask_with_room, position_ids=positions, logits_to_keep=1, **held)
        origin = torch.arange(len(prompts), device=ids.device).repeat_interleave(n)  # the prompt of each row
        self.cache.keep_rows(origin)
        self.logits = output.logits[origin, -1].float()
        self.mask, self.position = mask_with_room[origin], positions[origin, -1]
        self.rows = torch.arange(len(origin), device=ids.device)  # which response each row of the batch writes
        self.writing = torch.ones(len(origin), dtype=torch.bool, device=ids.device)

    def advance(self, token: Tensor, step: int) -> None:
        """Feed the tokens `[R]` of step number `step` (from 0), so that `logits` are those of the next."""
        if step == self.room:
            self._grow(min(self.limit - self.room, self.room // 2))
        if int(self.writing.sum()) < _SHRINK_BELOW * len(self.writing):
            token = self._drop_ended(token)
        self.position = self.position + 1
        inputs = {
            "attention_mask": self.mask,
            "position_ids": self.position[:, None],
            **cache_argument(self.model, self.cache),
        }
        self.logits = self.model(token[:, None], **inputs).logits[:, -1].float()

    def _grow(self, slots: int) -> None:
        self.cache.grow(slots)
        self.mask, self.room = pad(self.mask, (0, slots), value=1), self.room + slots

    def _drop_ended(self, token: Tensor) -> Tensor:
        keep = self.writing.nonzero()[:, 0]
        self.cache.keep_rows(keep)
        self.rows, self.position, self.mask, self.writing = (
            column[keep] for column in (self.rows, self.position, self.mask, self.writing)
        )
        return token[keep]


@torch.inference_mode()
def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
    stop: Tensor,
    filler: int,
) -> list[Sample]:
    """`n` samples for each of a few prompts, prompt by prompt."""
    limit, count, device = sampling.max_tokens, len(prompts) * n, model.device
    state = _Decoding(model, prompts, n, limit, filler)
    written = torch.full((count, limit), filler, device=device)
    figures = torch.zeros(count, limit, 3, device=device)  # log-prob, log-prob as drawn, entropy
    lengths = torch.full((count,), limit, device=device)
    for step in range(limit):
        token, figure = choose(state.logits, sampling, generator)
        written[state.rows, step], figures[state.rows, step] = token, figure  # what follows a row's end is never read
        ended = state.writing & torch.isin(token, stop)
        lengths[state.rows[ended]] = step + 1
        state.writing &= ~ended
        if step + 1 == limit or not bool(state.writing.any()):
            break
        state.advance(token, step)
    finished = torch.isin(written.gather(1, lengths[:, None] - 1)[:, 0], stop)
    columns = (written.tolist(), figures.transpose(1, 2).tolist(), lengths.tolist(), finished.tolist())
    return [_sample(ids, values, length, end) for ids, values, length, end in zip(*columns, strict=True)]


def _sample(ids: list[int], figures: list[list[float]], length: int, finished: bool) -> Sample:
    scored, drawn, entropies = (torch.tensor(values[:length]) for values in figures)
    return Sample(tuple(ids[:length]), scored, drawn, finished, entropies)


def _chunks(order: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield list(order[start : start + size])


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    seed: int,
    stop_ids: Sequence[int],
    pad_id: int,
    max_rows: int = 256,
) -> list[list[Sample]]:
    """`n` responses to each prompt, a stop token included in the response it ends.

    Prompts are sorted by length and decoded in batches of at most `max_rows` responses (or one prompt's `n`), so
    that memory is bounded by `rows × (longest prompt + max_tokens)` cache slots. The batches decide which random
    numbers a response gets, so the same seed repeats only with the same `max_rows`.
    """
    generator = torch.Generator(device=model.device).manual_seed(seed)
    stop = torch.tensor(list(stop_ids), device=model.device)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: list[list[Sample]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    for chunk in _chunks(order, max(1, max_rows // n)):
        drawn = _decode(model, [prompts[index] for index in chunk], n, sampling, generator, stop, pad_id)
        for place, index in enumerate(chunk):
            results[index] = drawn[place * n : (place + 1) * n]
    model.train(was_training)
    return results

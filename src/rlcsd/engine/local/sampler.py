"""The decode loop: each prompt is prefilled once; its responses are decoded side by side over a static KV cache.

Simplified: a batch is sampled to its end before the next begins (no continuous batching), which keeps the random
numbers of a response independent of timing. The static cache of transformers is edited in place for two savings: it
starts small and grows, because attention runs over every slot, and rows that have ended are dropped.
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
from .model import cache_argument, eval_mode, sliding_windows

_FIRST_SLOTS = 64  # cache slots for the response at first; then they grow by half
_SHRINK_BELOW = 0.75  # ended rows are dropped once fewer than this share still write


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


def sample_tokens(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample the next token of each row from logits `[R, V]`.

    Returns ids `[R]` and, `[R, 3]`: the log-prob at temperature 1 without filters, the log-prob in the distribution
    that was sampled from, and the entropy in nats. Temperature 0 is greedy.
    """
    scored = logits.log_softmax(dim=-1)
    entropy = -(scored.exp() * scored).sum(dim=-1)
    if sampling.temperature == 0.0:
        ids = logits.argmax(dim=-1)
        return ids, torch.stack([scored.gather(-1, ids[:, None])[:, 0], torch.zeros_like(entropy), entropy], dim=1)
    plain = sampling.temperature == 1.0 and sampling.top_p >= 1.0 and sampling.top_k == 0
    sampled_from = scored if plain else filtered_log_probs(logits, sampling)
    picked = torch.multinomial(sampled_from.exp(), 1, generator=generator)
    return picked[:, 0], torch.stack(
        [scored.gather(-1, picked)[:, 0], sampled_from.gather(-1, picked)[:, 0], entropy], dim=1
    )


class _GrowingCache(StaticCache):  # type: ignore[misc]
    """A static cache of one dtype, of which rows can be selected and whose slots can grow in number."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__(**options)
        self.dtype = dtype

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        # Under autocast, normalised keys are float32 and values bf16; a static cache holds one dtype.
        return super().update(key_states.to(self.dtype), value_states.to(self.dtype), *args, **kwargs)

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
    """The state of a batch: responses to a few prompts, decoded side by side in R rows, of which some have ended."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int, limit: int, filler: int) -> None:
        """Prefill the prompts; `limit` is the maximum number of tokens of a response."""
        self.model, self.limit = model, limit
        ids, mask = padded(prompts, filler, model.device, left=True)
        # Layers with a sliding window hold a fixed number of slots, so there all slots are taken at once.
        self.slots = limit if sliding_windows(model.config) else min(limit, _FIRST_SLOTS)
        device = model.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else model.dtype
        self.cache = _GrowingCache(dtype, config=model.config, max_cache_len=ids.shape[1] + self.slots)
        mask_with_slots = pad(mask, (0, self.slots), value=1)  # slots not yet written are hidden by causality
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = cache_argument(model, self.cache)
        output = model(ids, attention_mask=mask_with_slots, position_ids=positions, logits_to_keep=1, **cache)
        origin = torch.arange(len(prompts), device=ids.device).repeat_interleave(n)  # the prompt of each row
        self.cache.keep_rows(origin)
        self.logits = output.logits[origin, -1].float()
        self.mask, self.position = mask_with_slots[origin], positions[origin, -1]
        self.rows = torch.arange(len(origin), device=ids.device)  # the response that each row writes
        self.writing = torch.ones(len(origin), dtype=torch.bool, device=ids.device)

    def advance(self, token: Tensor, step: int) -> None:
        """Feed the tokens `[R]` of step number `step` (from 0); `logits` are then those of the next."""
        if step == self.slots:
            self._grow(min(self.limit - self.slots, self.slots // 2))
        if int(self.writing.sum()) < _SHRINK_BELOW * len(self.writing):
            token = self._drop_ended(token)
        self.position = self.position + 1
        cache = cache_argument(self.model, self.cache)
        inputs = {"attention_mask": self.mask, "position_ids": self.position[:, None]}
        self.logits = self.model(token[:, None], **inputs, **cache).logits[:, -1].float()

    def _grow(self, slots: int) -> None:
        self.cache.grow(slots)
        self.mask, self.slots = pad(self.mask, (0, slots), value=1), self.slots + slots

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
    values = torch.zeros(count, limit, 3, device=device)  # see `sample_tokens`
    lengths = torch.full((count,), limit, device=device)
    for step in range(limit):
        token, value = sample_tokens(state.logits, sampling, generator)
        written[state.rows, step], values[state.rows, step] = token, value  # what follows a row's end is never read
        ended = state.writing & torch.isin(token, stop)
        lengths[state.rows[ended]] = step + 1
        state.writing &= ~ended
        if step + 1 == limit or not bool(state.writing.any()):
            break
        state.advance(token, step)
    finished = torch.isin(written.gather(1, lengths[:, None] - 1)[:, 0], stop)
    columns = (written.tolist(), values.transpose(1, 2).tolist(), lengths.tolist(), finished.tolist())
    return [_sample(ids, row, length, end) for ids, row, length, end in zip(*columns, strict=True)]


def _sample(ids: list[int], values: list[list[float]], length: int, finished: bool) -> Sample:
    scored, sampled, entropies = (torch.tensor(column[:length]) for column in values)
    return Sample(tuple(ids[:length]), scored, sampled, finished, entropies)


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
    """`n` responses to each prompt; a response includes the stop token that ends it.

    Prompts are sorted by length and decoded in batches of at most `max_rows` responses (or one prompt's `n`), so
    memory is bounded by `rows × (longest prompt + max_tokens)` cache slots. Random numbers go to responses by batch, so
    the same seed repeats only with the same `max_rows`.
    """
    generator = torch.Generator(device=model.device).manual_seed(seed)
    stop = torch.tensor(list(stop_ids), device=model.device)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: list[list[Sample]] = [[] for _ in prompts]
    with eval_mode(model):
        for chunk in _chunks(order, max(1, max_rows // n)):
            samples = _decode(model, [prompts[index] for index in chunk], n, sampling, generator, stop, pad_id)
            for position, index in enumerate(chunk):
                results[index] = samples[position * n : (position + 1) * n]
    return results

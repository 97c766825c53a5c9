"""The decode loop: one prefill per prompt, then all its responses side by side over a static KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import StaticCache

from ...records import Sample, Sampling
from .caches import padded, slides

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
    return picked[:, 0], torch.stack([scored.gather(-1, picked)[:, 0], drawn_from.gather(-1, picked)[:, 0], entropy], dim=1)


def _keep_rows(cache: StaticCache, rows: Tensor) -> None:
    for layer in cache.layers:
        layer.keys = layer.keys.index_select(0, rows)
        layer.values = layer.values.index_select(0, rows)
        layer.batch_size = len(rows)


def _grow(cache: StaticCache, slots: int) -> None:
    for layer in cache.layers:
        layer.keys = pad(layer.keys, (0, 0, 0, slots))
        layer.values = pad(layer.values, (0, 0, 0, slots))
        layer.max_cache_len += slots


class _OneTypeCache(StaticCache):  # type: ignore[misc]
    """Under autocast, normalised keys come in float32 and values in bf16; a static cache holds one type."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__(**options)
        self.held = dtype

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return super().update(key_states.to(self.held), value_states.to(self.held), *args, **kwargs)


@torch.inference_mode()
def _decode(
    model: Any, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, generator: torch.Generator, stop: Tensor, filler: int
) -> list[Sample]:
    """`n` samples for each of a few prompts, prompt by prompt."""
    device = model.device
    prompt_ids, mask = padded(prompts, filler, device, left=True)
    width, limit, rows = prompt_ids.shape[1], sampling.max_tokens, len(prompts) * n
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.dtype
    # Attention runs over every slot, so the cache begins small and grows; a sliding window's layers cannot.
    room = limit if slides(model.config) else min(limit, _FIRST_ROOM)
    cache = _OneTypeCache(dtype, config=model.config, max_cache_len=width + room)
    full_mask = pad(mask, (0, room), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(prompt_ids, attention_mask=full_mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)

    origin = torch.arange(len(prompts), device=device).repeat_interleave(n)
    _keep_rows(cache, origin)
    logits, full_mask, position = output.logits[origin, -1].float(), full_mask[origin], positions[origin, -1]
    written = torch.full((rows, limit), filler, device=device)
    figures = torch.zeros(rows, limit, 3, device=device)
    lengths = torch.full((rows,), limit, device=device)
    active = torch.arange(rows, device=device)  # which row of the result each row of the batch writes
    writing = torch.ones(rows, dtype=torch.bool, device=device)
    for step in range(limit):
        token, figure = choose(logits, sampling, generator)
        written[active, step], figures[active, step] = token, figure  # what follows a row's end is never read
        ended = writing & torch.isin(token, stop)
        lengths[active[ended]] = step + 1
        writing &= ~ended
        alive = int(writing.sum())
        if not alive or step + 1 == limit:
            break
        position = position + 1
        if step == room:
            more = min(limit - room, room // 2)
            _grow(cache, more)
            full_mask, room = pad(full_mask, (0, more), value=1), room + more
        if alive < _SHRINK_BELOW * len(writing):
            keep = writing.nonzero()[:, 0]
            _keep_rows(cache, keep)
            active, token, position, full_mask, writing = active[keep], token[keep], position[keep], full_mask[keep], writing[keep]
        output = model(token[:, None], attention_mask=full_mask, position_ids=position[:, None], past_key_values=cache)
        logits = output.logits[:, -1].float()
    finished = torch.isin(written.gather(1, lengths[:, None] - 1)[:, 0], stop)
    results = []
    for ids, (scored, drawn, entropy), k, end in zip(
        written.tolist(), figures.transpose(1, 2).tolist(), lengths.tolist(), finished.tolist(), strict=True
    ):
        results.append(Sample(tuple(ids[:k]), torch.tensor(scored[:k]), torch.tensor(drawn[:k]), end, sum(entropy[:k]) / k))
    return results


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

"""The decode loop: responses are decoded side by side in rows of one KV cache, and a row that has ended takes the next.

Every row has its own position: its slots hold prompt and response from slot 0 on, so no row waits for another. The
host looks at the rows once every few tokens. When enough of them have ended, or the cache is full, it is laid out anew:
waiting responses enter, slots grow by half, and rows that no longer fit wait until there is room again; what they have
written is then part of their prefill.

Each response has a stream of random numbers of its own, so neither memory nor the order of responses nor how often the
host looks decides what a seed samples; they change it by rounding alone.
"""

from __future__ import annotations

import warnings
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ...errors import first_line
from ...records import Sample, Sampling, SamplingMask
from ..head import entropy_of
from .attention import query_positions
from .caches import Ids, batches, padded
from .model import Network, eval_mode

_MORE_SLOTS = 64  # slots beyond the longest row at first; then they grow by half
_ALIGNED = 16  # slots are a multiple of it, so that attention kernels need not pad the mask
_BUSY = 0.75  # the cache is laid out anew once fewer than this share of its rows still write
_LOOK_EVERY = 16  # tokens between two looks of the host at another device
_TIES = 12  # tokens that may tie with the last of the top-k and still be in a sampling mask


# ------------------------------------------------------------------ random numbers


def _mixed(state: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea and Flood, 2014) on 64-bit integers."""
    # Shifts of int64 copy the sign; the masks make them shifts of unsigned numbers.
    state = (state ^ ((state >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    state = (state ^ ((state >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return state ^ ((state >> 31) & (2**33 - 1))


def stream_starts(seed: int, responses: Tensor) -> Tensor:
    """The state `[R]` in which the stream of each response `[R]` (its number in the call) begins."""
    key = torch.tensor((seed + 2**63) % 2**64 - 2**63, device=responses.device)
    return _mixed(_mixed(key) + responses)


def uniforms(starts: Tensor, first: Tensor, count: int) -> Tensor:
    """Numbers `first [R]` to `first + count - 1` of each stream, float64 `[R, count]` in (0, 1]: SplitMix64."""
    steps = first[:, None] + torch.arange(1, count + 1, device=first.device)
    bits = _mixed(starts[:, None] + steps * -0x61C8864680B583EB)
    return 1 - ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53


# ------------------------------------------------------------------ one token


def nucleus(scaled: Tensor, top_p: float) -> Tensor:
    """Logits `[R, V]`, already over the temperature, with −inf at what top-p excludes.

    A token stays while the mass of the likelier ones is below `top_p`, so the most likely one always stays. Tokens of
    equal logits stay or go together.
    """
    largest = scaled.sort(dim=-1, descending=True).values
    probs = largest.softmax(dim=-1)
    stays = probs.cumsum(dim=-1) - probs < top_p
    least = largest.gather(-1, stays.sum(dim=-1, keepdim=True).clamp(min=1) - 1)
    return scaled.masked_fill(scaled < least, -torch.inf)


def kept_tokens(scaled: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """What top-k and then top-p keep of logits `[R, V]`: their logits `[R, W]` and their ids `[R, W]`, ascending.

    Unused entries have logit −inf and id −1. Tokens of equal logits stay or go together, up to `_TIES` beyond
    `top_k`; where still more are equal, as many as find room stay. The vocabulary is not sorted.
    """
    vocabulary = scaled.shape[-1]
    values, ids = scaled.topk(min(sampling.top_k + _TIES, vocabulary), dim=-1)
    least = values[:, min(sampling.top_k, vocabulary) - 1, None]
    unused = values < least
    if sampling.top_p < 1.0:
        likeliest = nucleus(values.masked_fill(unused, -torch.inf), sampling.top_p)
        unused = likeliest == -torch.inf
    ids, order = ids.masked_fill(unused, vocabulary).sort(dim=-1)
    return values.masked_fill(unused, -torch.inf).gather(-1, order), ids.masked_fill(ids == vocabulary, -1)


def sample_tokens(logits: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sample the next token of each row from logits `[R, V]`, given numbers `uniform [R]` in (0, 1].

    Returns ids `[R]`, values `[R, 4]` and, with top-k, the ids `[R, W]` that each row was sampled from (see
    `kept_tokens`). Values are the log-prob at temperature 1 without filters, the log-prob in the distribution that was
    sampled from, the entropy in nats, and the log of the kept tokens' total probability at temperature 1 (0 without
    top-k). Temperature 0 is greedy.
    """
    norm = logits.logsumexp(dim=-1)
    entropy, zero = entropy_of(logits, norm), torch.zeros_like(norm)

    def at(values: Tensor, indices: Tensor) -> Tensor:
        return values.gather(-1, indices[:, None])[:, 0]

    if sampling.temperature == 0.0:
        ids = logits.argmax(dim=-1)
        return ids, torch.stack([at(logits, ids) - norm, zero, entropy, zero], dim=1), None
    scaled = logits if sampling.temperature == 1.0 else logits / sampling.temperature
    if sampling.top_k:
        candidates, kept = kept_tokens(scaled, sampling)
        chosen = _drawn(candidates, uniform)
        ids = at(kept, chosen)
        unscaled = logits.gather(-1, kept.clamp(min=0)).masked_fill(kept < 0, -torch.inf)
        sampled, mass = at(candidates, chosen) - candidates.logsumexp(dim=-1), unscaled.logsumexp(dim=-1) - norm
        return ids, torch.stack([at(logits, ids) - norm, sampled, entropy, mass], dim=1), kept.int()
    if sampling.top_p < 1.0:
        scaled = nucleus(scaled, sampling.top_p)
    ids = _drawn(scaled, uniform)
    scored = at(logits, ids) - norm
    sampled = scored if scaled is logits else at(scaled, ids) - scaled.logsumexp(dim=-1)
    return ids, torch.stack([scored, sampled, entropy, zero], dim=1), None


def _drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    """Indices `[R]` drawn from logits `[R, W]`: the first whose cumulated probability reaches a share `uniform [R]` of
    the whole, so never one of probability 0."""
    cumulated = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    indices = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:])[:, 0]
    return indices.clamp(max=logits.shape[-1] - 1)


# ------------------------------------------------------------------ rows of the cache


class _RowsLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values `[R, heads, S, D]` of one layer, where row r writes its next token at slot `positions[r]`."""

    is_compileable = True  # so that transformers writes a mask for each token, which hides slots not yet written

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, positions: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.rows, self.positions = keys, values, rows, positions
        self.device, self.is_initialized = keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        # Under autocast, normalised keys are float32 and values bf16.
        self.keys[self.rows, :, self.positions] = key_states[:, :, 0].to(self.keys.dtype)
        self.values[self.rows, :, self.positions] = value_states[:, :, 0].to(self.values.dtype)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        """As if each row's next token had the last slot: causality then hides nothing, and the mask decides."""
        return int(self.keys.shape[2]) - 1


@contextmanager
def _unsorted_writes() -> Iterator[None]:
    """Without torch's deterministic mode, which sorts the indices of every write; here each write has its own slot."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


class _Rows:
    """R rows that decode side by side. What changes with a token is changed in place, on the device.

    Row r feeds its last token at `position[r]` and samples token number `count[r]` of its response. A row whose
    response has ended stays where it is, and what it samples is never read.
    """

    def __init__(self, network: Network, sampling: Sampling, stop: Tensor, look_every: int, cuda_graph: bool) -> None:
        self.network, self.sampling, self.stop = network, sampling, stop
        self.look_every, self.cuda_graph = look_every, cuda_graph
        self.cache: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer, none before the first layout
        self.layers: Cache | None = None
        self.rounded: Tensor | None = None
        self.graph: Any = None

    @property
    def slots(self) -> int:
        return int(self.cache[0][0].shape[2]) if self.cache else 0

    def keep(self, rows: Sequence[int], count: int, slots: int) -> None:
        """Make room for `count` rows of `slots` slots, of which the first are these rows of the cache."""
        self.graph = self.layers = None  # which hold the old cache
        source = torch.tensor(rows, dtype=torch.long, device=self.network.device)

        def moved(old: Tensor) -> Tensor:
            new = old.new_zeros(count, old.shape[1], slots, old.shape[3])  # what a mask hides must be finite
            width = min(slots, old.shape[2])
            new[: len(rows), :, :width] = old[:, :, :width].index_select(0, source)
            return new

        for index, (keys, values) in enumerate(self.cache):  # one layer at a time exists twice
            self.cache[index] = moved(keys), moved(values)

    def fill(self, prefixes: Sequence[tuple[Ids, list[int]]], pad: int, count: int, slots: int) -> None:
        """Compute the caches of prefixes, each for all rows that begin with it."""
        ids, _ = padded([prefix for prefix, _ in prefixes], pad, self.network.device, left=False)
        computed = DynamicCache()  # without the model's config: all tokens are kept, also in layers with a window
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
        self.network.hidden(computed, input_ids=ids, position_ids=positions)  # causality hides the padding
        device = ids.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.network.model.dtype
        rows = torch.tensor([row for _, several in prefixes for row in several], device=ids.device)
        source = torch.tensor([i for i, (_, several) in enumerate(prefixes) for _ in several], device=ids.device)
        for index, layer in enumerate(computed.layers):
            if index == len(self.cache):
                shapes = [(count, part.shape[1], slots, part.shape[3]) for part in (layer.keys, layer.values)]
                keys, values = (torch.zeros(shape, dtype=dtype, device=ids.device) for shape in shapes)
                self.cache.append((keys, values))
            for whole, part in zip(self.cache[index], (layer.keys, layer.values), strict=True):
                whole[rows, :, : ids.shape[1]] = part[source].to(dtype)

    def begin(self, tokens: Sequence[int], positions: Sequence[int], counts: Sequence[int], starts: Tensor) -> None:
        """Set what each row feeds next, how many tokens it has written, and its stream of random numbers."""
        device = self.network.device

        def column(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, device=device)

        self.token, self.position, self.count = column(tokens), column(positions), column(counts)
        self.starts, self.writing = starts.to(device), torch.ones_like(self.token)
        rows = torch.arange(len(tokens), device=device)
        self.layers = Cache(layers=[_RowsLayer(keys, values, rows, self.position) for keys, values in self.cache])
        self.ids = self.token.new_zeros(len(tokens), self.look_every)
        self.values = torch.zeros(*self.ids.shape, 4, device=device)  # see `sample_tokens`
        self.kept: Tensor | None = None  # ids [R, look_every, W] of the sampling masks, made at the first step
        self.uniform = torch.zeros(self.ids.shape, dtype=torch.float64, device=device)
        self.column = self.token.new_zeros(1)

    def decode(self, steps: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """Sample `steps` tokens in each row.

        Returns on the host ids `[R, steps]`, values `[R, steps, 4]` and, if masks are kept, ids `[R, steps, W]` (see
        `sample_tokens`), and `count` and `writing` `[R]`.
        """
        self.uniform.copy_(uniforms(self.starts, self.count, self.look_every))
        self.column.zero_()
        for step in range(steps):
            if self.cuda_graph and self.graph is None and step > 0:  # the first step makes what a capture must not
                self._capture()
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        state = torch.stack([self.count, self.writing]).cpu()
        kept = None if self.kept is None else self.kept[:, :steps].cpu()
        return self.ids[:, :steps].cpu(), self.values[:, :steps].cpu(), kept, state[0], state[1]

    def _step(self) -> None:
        slots = torch.arange(self.slots, device=self.token.device)
        inputs = {"input_ids": self.token[:, None], "position_ids": self.position[:, None]}
        mask = (slots <= self.position[:, None]).long()
        with query_positions(self.position):
            hidden = self.network.hidden(self.layers, attention_mask=mask, **inputs)[:, -1]
        if self.rounded is None:
            self.rounded = self.network.head.rounded_weight(hidden.dtype)
        logits = self.network.head.logits(hidden, self.rounded)
        uniform = self.uniform.index_select(1, self.column)[:, 0]
        ids, values, kept = sample_tokens(logits, self.sampling, uniform)
        self.ids.index_copy_(1, self.column, ids[:, None])
        self.values.index_copy_(1, self.column, values[:, None].to(self.values.dtype))
        if self.sampling.keep_mask:
            assert kept is not None
            if self.kept is None:
                self.kept = kept.new_zeros(*self.ids.shape, kept.shape[-1])
            self.kept.index_copy_(1, self.column, kept[:, None])
        self.column += 1
        self.token.copy_(ids)
        self.position += self.writing
        self.count += self.writing
        ended = (ids[:, None] == self.stop).any(dim=1) | (self.count >= self.sampling.max_tokens)
        self.writing *= ~ended

    def _capture(self) -> None:
        """Record one step as a CUDA graph, for the rows and slots of this layout."""
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            warnings.warn(
                f"engine.cuda_graph=true: this model's decode step cannot be captured ({first_line(error)}); "
                "responses are decoded without a graph",
                stacklevel=2,
            )
            self.cuda_graph = False
        else:
            self.graph = graph


# ------------------------------------------------------------------ all responses


class _Responses:
    """All responses of a call by number, on the host: what each has written, and which wait for a row."""

    def __init__(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, spare: int) -> None:
        """`spare`: columns for what a row samples after its response has ended."""
        count, limit = len(prompts) * n, sampling.max_tokens
        self.prompts, self.n, self.limit, self.masked = prompts, n, limit, sampling.keep_mask
        self.ids = torch.empty(count, limit + spare, dtype=torch.long)
        self.values = torch.empty(count, limit + spare, 4)
        self.kept_counts = torch.empty(count, limit + spare if self.masked else 0, dtype=torch.int32)
        self.kept: list[list[Tensor]] = [[] for _ in range(count)]  # kept ids [M], one part for each look of the host
        self.lengths = [0] * count
        # Prompts of like length together; `batches` pads them to the longest.
        self.waiting = deque(sorted(range(count), key=lambda index: len(prompts[index // n])))

    def tokens(self, response: int) -> list[int]:
        """Prompt and response so far."""
        return [*self.prompts[response // self.n], *self.ids[response, : self.lengths[response]].tolist()]

    def size(self, response: int, more: int = 0) -> int:
        """Tokens of prompt and response so far, and of up to `more` that follow."""
        return len(self.prompts[response // self.n]) + min(self.lengths[response] + more, self.limit)

    def write(
        self, responses: Sequence[int], ids: Tensor, values: Tensor, kept: Tensor | None, lengths: Sequence[int]
    ) -> None:
        """Append what the rows of these responses sampled: `ids [R, T]`, `values [R, T, 4]`, and `kept [R, T, W]`."""
        rows = torch.tensor(responses)[:, None]
        before = torch.tensor([self.lengths[index] for index in responses])[:, None]
        columns = before + torch.arange(ids.shape[1])
        self.ids[rows, columns], self.values[rows, columns] = ids, values
        if kept is not None:
            used = (kept >= 0) & (columns < torch.tensor(lengths)[:, None])[:, :, None]
            counts = used.sum(dim=-1, dtype=torch.int32)
            self.kept_counts[rows, columns] = counts
            for index, part in zip(responses, kept[used].split(counts.sum(dim=1).tolist()), strict=True):
                self.kept[index].append(part)
        for index, length in zip(responses, lengths, strict=True):
            self.lengths[index] = length

    def sample(self, response: int, stop: set[int]) -> Sample:
        length = self.lengths[response]
        ids = self.ids[response, :length].tolist()
        scored, sampled, entropies, mass = (column.clone() for column in self.values[response, :length].T)
        if not self.masked:
            return Sample(tuple(ids), scored, sampled, ids[-1] in stop, entropies)
        mask = SamplingMask(torch.cat(self.kept[response]), self.kept_counts[response, :length].clone())
        return Sample(tuple(ids), scored, sampled, ids[-1] in stop, entropies, mask, mass)


@torch.inference_mode()
def sample(
    network: Network,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    seed: int,
    stop_ids: Sequence[int],
    pad_id: int,
    max_rows: int = 256,
    max_slots: int | None = None,
    budget: int = 32768,
    look_every: int | None = None,
    cuda_graph: bool = False,
) -> list[list[Sample]]:
    """`n` responses to each prompt; a response includes the stop token that ends it.

    Args:
        max_rows: maximum number of responses that are decoded side by side.
        max_slots: maximum of rows × slots, the tokens that the cache has room for; one row may exceed it.
        budget: tokens of one forward pass over prompts, padding included, unless one prompt alone has more.
        look_every: tokens between two looks of the host; by default 1 on the CPU, where a look costs nothing.
        cuda_graph: replay the decode step as a CUDA graph.
    """
    look_every = look_every or (1 if network.device.type == "cpu" else _LOOK_EVERY)
    responses = _Responses(prompts, n, sampling, look_every)
    starts = stream_starts(seed, torch.arange(len(prompts) * n))
    stop = torch.tensor(list(stop_ids), dtype=torch.long, device=network.device)
    rows = _Rows(network, sampling, stop, look_every, cuda_graph)
    inside: list[int] = []  # the response of each row
    busy: list[int] = []  # rows that still write
    with eval_mode(network.model), network.rounded_weights(), _unsorted_writes():
        while busy or responses.waiting:
            needed = max((responses.size(inside[row], look_every) for row in busy), default=0)
            if len(busy) < max(1, _BUSY * len(inside)) or needed > rows.slots:
                inside = _lay_out(rows, responses, inside, busy, starts, pad_id, max_rows, max_slots, budget)
                busy = list(range(len(inside)))
            steps = min(look_every, max(responses.limit - responses.lengths[inside[row]] for row in busy))
            ids, values, kept, counts, writing = rows.decode(steps)
            responses.write(inside, ids, values, kept, counts.tolist())
            busy = writing.nonzero()[:, 0].tolist()
    samples = [responses.sample(index, set(stop_ids)) for index in range(len(prompts) * n)]
    return [samples[start : start + n] for start in range(0, len(samples), n)]


def _lay_out(
    rows: _Rows,
    responses: _Responses,
    inside: Sequence[int],
    busy: Sequence[int],
    starts: Tensor,
    pad: int,
    max_rows: int,
    max_slots: int | None,
    budget: int,
) -> list[int]:
    """Lay out the cache anew: rows that still write, as far as there is room, then waiting responses.

    Returns the response of each row.
    """

    def room(chosen: Sequence[int]) -> int:
        """Slots for these responses, so many that the cache is not laid out again at once."""
        return max(responses.size(one, max(rows.look_every, responses.size(one) // 8)) for one in chosen)

    def fits(chosen: Sequence[int]) -> bool:
        return len(chosen) == 1 or max_slots is None or len(chosen) * room(chosen) <= max_slots

    kept = sorted(busy, key=lambda row: -responses.size(inside[row]))  # the shortest cost least to compute again
    while kept and not fits([inside[row] for row in kept]):
        responses.waiting.appendleft(inside[kept.pop()])
    crowded = len(kept) < len(busy)
    chosen = [inside[row] for row in kept]
    while responses.waiting and len(chosen) < max_rows and not crowded and fits([*chosen, responses.waiting[0]]):
        chosen.append(responses.waiting.popleft())
    slots = max(responses.size(one, max(_MORE_SLOTS, responses.lengths[one] // 2)) for one in chosen)
    slots = -(-slots // _ALIGNED) * _ALIGNED
    slots = max(room(chosen), slots if max_slots is None else min(slots, max_slots // len(chosen)))

    rows.keep(kept, len(chosen), slots)
    prefixes: dict[Ids, list[int]] = defaultdict(list)
    texts = [responses.tokens(response) for response in chosen]
    for row in range(len(kept), len(chosen)):
        # The first token that a row decodes is its last one, so its logits need no pass of their own.
        prefixes[tuple(texts[row][:-1] or texts[row])].append(row)
    items = list(prefixes.items())
    for batch in batches([len(prefix) for prefix, _ in items], budget):
        rows.fill([items[index] for index in batch], pad, len(chosen), slots)
    sizes = [len(text) for text in texts]
    lengths = [responses.lengths[response] for response in chosen]
    rows.begin([text[-1] for text in texts], [size - 1 for size in sizes], lengths, starts[chosen])
    return chosen

"""Check before a run that sampler, scorer and update compute the log-probs of a plain forward pass of the same model.

They use caches, shared prefixes and padding; a model whose attention does not fit these would train on wrong numbers
without an error. The check costs a few short responses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...records import Pair, Sampling
from . import sampler, scoring
from .attention import mask_entries
from .caches import SharedPrompts
from .model import Network, sliding_windows
from .update import response_hidden

_SHORT, _LONG = 6, 64
_LONGEST = 512  # responses that cross a longer window would take too long to decode
TOLERANCE = {torch.float32: 5e-3, torch.bfloat16: 5e-2}  # mean difference in nats, by dtype of the arithmetic


def self_check(network: Network, pad_id: int) -> None:
    """Compare all paths with a plain pass, on short and on longer responses, which cross a short sliding window.

    Raises:
        InputError: one differs by more than `TOLERANCE` on average over a response.
    """
    windows = [window for window in sliding_windows(network.core.config) if window + 16 <= _LONGEST]
    length = min(max(_LONG, *(window + 16 for window in windows)) if windows else _LONG, network.context_length - 24)
    for tokens in (_SHORT, length):
        if tokens > 0:
            _check(network, pad_id, tokens)


def _check(network: Network, pad_id: int, tokens: int) -> None:
    prompts = _prompts(network)
    was_training = network.model.training
    network.model.eval()
    with network.precision():
        drawn = sampler.sample(
            network.model, prompts, 1, Sampling(max_tokens=tokens), seed=0, stop_ids=[], pad_id=pad_id
        )
    pairs = [Pair(prompt, samples[0].ids) for prompt, samples in zip(prompts, drawn, strict=True)]
    plain = _plain(network, pairs)
    paths = {
        "sampler": torch.cat([samples[0].log_probs for samples in drawn if samples[0].log_probs is not None]).to(
            plain.device
        ),
        "scorer": scoring.score(network, pairs, pad_id=pad_id).log_prob,
    }
    network.model.train(was_training)
    paths |= _update_paths(network, pairs, pad_id)
    with mask_entries(tokens):  # force the masks of long rows
        paths["scorer in blocks"] = scoring.score(network, pairs, pad_id=pad_id).log_prob
        paths |= {f"{name} in blocks": column for name, column in _update_paths(network, pairs, pad_id).items()}
    for name, log_probs in paths.items():
        _compare(network, name, log_probs, plain, tokens)


def _compare(network: Network, name: str, log_probs: Tensor, plain: Tensor, tokens: int) -> None:
    worst = float((log_probs - plain).abs().reshape(-1, tokens).mean(1).max())
    allowed = TOLERANCE[
        torch.float32 if network.autocast_dtype is None and network.core.dtype != torch.bfloat16 else torch.bfloat16
    ]
    if not worst <= allowed:
        raise InputError(
            f"model: on responses of {tokens} tokens the {name}'s log-probs differ from a plain pass of "
            f"{type(network.core).__name__} by "
            f"{worst:.3g} nats on average (at most {allowed:g}), so training would be wrong; "
            "engine.self_check=false trains all the same"
        )


def _prompts(network: Network) -> list[tuple[int, ...]]:
    """Three random prompts of unequal length, two of which share a prefix."""
    rng = random.Random(0)
    vocabulary = network.core.config.get_text_config().vocab_size
    root = tuple(rng.randrange(vocabulary) for _ in range(9))
    return [root + tuple(rng.randrange(vocabulary) for _ in range(count)) for count in (3, 8)] + [root[3:8]]


@torch.no_grad()
def _plain(network: Network, pairs: Sequence[Pair]) -> Tensor:
    """Log-probs `[N]` from the model's own logits, row by row, without cache or padding."""
    columns = []
    for pair in pairs:
        ids = torch.tensor([[*pair.context, *pair.response]], device=network.device)
        with network.precision():
            logits: Any = network.model(input_ids=ids, use_cache=False).logits
        log_probs = logits[0, len(pair.context) - 1 : -1].float().log_softmax(-1)
        columns.append(log_probs.gather(-1, ids[0, len(pair.context) :, None])[:, 0])
    return torch.cat(columns)


@torch.no_grad()
def _update_paths(network: Network, pairs: Sequence[Pair], pad_id: int) -> dict[str, Tensor]:
    """Log-probs as the update computes them, in train mode, with and without shared prompts."""
    ids = torch.tensor([token for pair in pairs for token in pair.response], device=network.device)
    adapted = network.core is not network.model  # adapters may have dropout, which the config asked for
    was_training = network.model.training
    if adapted:
        network.model.eval()
    with network.precision():
        paths = {"update": network.head(response_hidden(network, pairs, pad_id), ids, entropy=False).log_prob}
        if SharedPrompts.possible(network, pairs):
            shared = SharedPrompts(network, list(dict.fromkeys(pair.context for pair in pairs)), pad_id)
            paths["update with shared prompts"] = network.head(shared.hidden(pairs), ids, entropy=False).log_prob
    network.model.train(was_training)
    return paths

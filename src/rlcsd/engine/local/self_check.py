"""Check before a run that sampler, scorer and update compute the log-probs of a plain forward pass of the same model.

They use caches, shared prefixes and padding; a model whose attention does not fit these would train on wrong numbers
without an error. Log-probs of two correct passes differ by rounding, so the allowed difference is a multiple of this
model's own rounding noise, measured on the same responses. The check costs a few short responses. The cluster engine
compares its own paths with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ...errors import InputError
from ...layout import joined_masks
from ...prompts import render
from ...records import Pair, Sampling
from . import sampler, scoring
from .attention import mask_entries
from .caches import Ids, SharedPrompts
from .model import Network, eval_mode, sliding_windows
from .update import response_hidden

# Allowed mean difference over the noise floor, of all responses together and of the worst one. Correct paths of
# SmolLM2-135M in bf16 stay below both, and each of the faults that tests plant exceeds one of them.
_TOGETHER, _WORST = 1.4, 2.2
_PASSES = 4  # disturbed passes behind the noise floor: in a short response few tokens carry the noise, and one may miss
_NEGLIGIBLE = 1e-3  # nats: a difference that is allowed in any arithmetic
_SHORT, _LONG = 16, 64  # tokens of the responses
_LONGEST = 512  # responses that cross a longer window would take too long to decode
_QUESTIONS = (
    "What is 17 + 25?",
    "A farmer has 12 sheep and buys 5 more, then sells 3. How many sheep does the farmer have now? Explain each step.",
    "Name three prime numbers.",
)


def check_prompts(tokenizer: Any) -> list[Ids]:
    """Prompts to check with where a task gives none: short questions, of unequal length with a common prefix."""
    return [tuple(render(tokenizer, question)) for question in _QUESTIONS]


def self_check(
    network: Network, prompts: Sequence[Ids], pad_id: int, seed: int = 0, masked: Sampling | None = None
) -> None:
    """Compare all paths with a plain pass, on short and on longer responses, which cross a short sliding window.

    `seed` decides the responses. `masked` is how a run with sampling masks samples: the log-probs among the kept
    tokens are then compared as well, on responses sampled so.

    Raises:
        InputError: on average over a response, a path differs by more than the model's rounding noise explains.
    """
    room = network.context_length - max(map(len, prompts))
    lengths = response_lengths(sliding_windows(network.core.config), room)
    for tokens in lengths:
        _check(network, prompts, pad_id, Sampling(max_tokens=tokens), seed)
    if masked is not None and lengths:
        _check(network, prompts, pad_id, replace(masked, max_tokens=lengths[-1]), seed)


def response_lengths(windows: Sequence[int], room: int) -> list[int]:
    """Tokens of the responses to check with: short, and long enough to cross sliding windows; at most `room`."""
    longest = max([_LONG, *(window + 16 for window in windows if window + 16 <= _LONGEST)])
    return sorted({min(tokens, room) for tokens in (_SHORT, longest)} - {0})


def _check(network: Network, prompts: Sequence[Ids], pad_id: int, sampling: Sampling, seed: int) -> None:
    tokens = sampling.max_tokens
    with eval_mode(network.model):
        with network.precision():
            groups = sampler.sample(network, prompts, 1, sampling, seed=seed, stop_ids=[], pad_id=pad_id)
        samples = [group[0] for group in groups]
        pairs = [Pair(prompt, s.ids, s.sampling_mask) for prompt, s in zip(prompts, samples, strict=True)]
        plain = plain_log_probs(network, pairs)
        noise = rounding_errors(network, pairs, plain, seed).reshape(-1, tokens).mean(1)
        paths = {
            "sampler": torch.cat([sample.old_log_probs for sample in samples]).to(plain.device),
            "scorer": scoring.score(network, pairs, pad_id=pad_id).kept_log_prob,
        }
        with mask_entries(tokens):  # force the masks of long rows
            paths["scorer in blocks"] = scoring.score(network, pairs, pad_id=pad_id).kept_log_prob
    paths |= _update_paths(network, pairs, pad_id)
    with mask_entries(tokens):
        paths |= {f"{name} in blocks": column for name, column in _update_paths(network, pairs, pad_id).items()}
    for name, log_probs in paths.items():
        differences = (log_probs - plain).abs().reshape(-1, tokens).mean(1)
        compare(f"model: the {name}", type(network.core).__name__, differences, noise)


def compare(path: str, model: str, differences: Tensor, noise: Tensor, slack: float = 1.0) -> None:
    """Refuse a path whose mean absolute differences `[R]` of each response, in nats, are not explained by `noise`.

    `noise [R]` is what rounding does to each response. A response is held against its own noise or that of all,
    whichever is larger: one unsure token can carry the noise of a short one. `slack` widens what is allowed.

    Raises:
        InputError: they are not.
    """
    own = noise.clamp(min=float(noise.mean()))
    worst = int((differences / own.clamp(min=1e-12)).argmax())  # that of a NaN, if there is one
    for what, found, floor, factor in (
        ("all responses", differences.mean(), noise.mean(), _TOGETHER),
        ("one response", differences[worst], own[worst], _WORST),
    ):
        allowed = max(_NEGLIGIBLE, slack * factor * float(floor))
        if not float(found) <= allowed:  # also for NaN
            raise InputError(
                f"{path}'s log-probs differ from a plain pass of {model} by "
                f"{float(found):.3g} nats on average over {what}, and rounding explains at most {allowed:.3g}, so "
                "training would be wrong; engine.self_check=false trains all the same"
            )


@torch.no_grad()
def plain_log_probs(network: Network, pairs: Sequence[Pair], dtype: torch.dtype = torch.float32) -> Tensor:
    """Log-probs `[N]` row by row, without cache or padding, by the head that all paths use.

    Among the tokens of its sampling mask for a pair that has one. Logits are rounded to `dtype` first, as those of a
    server are.
    """
    columns = []
    for pair in pairs:
        ids = torch.tensor([[*pair.context, *pair.response]], device=network.device)
        with network.precision():
            hidden = network.hidden(input_ids=ids, use_cache=False)[0, len(pair.context) - 1 : -1]
            chosen = ids[0, len(pair.context) :]
            if dtype == torch.float32:
                columns.append(network.head(hidden, chosen, entropy=False, kept=joined_masks([pair])).kept_log_prob)
            else:
                logits = network.head.logits(hidden).to(dtype).float()
                columns.append(logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0])
    return torch.cat(columns)


def rounding_errors(
    network: Network, pairs: Sequence[Pair], plain: Tensor, seed: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """By how much rounding moves the log-probs `plain [N]` of a plain pass, `[N]` in nats: the mean over some passes.

    `dtype` is that of `plain_log_probs` in the disturbed passes.
    """
    found = []
    for number in range(_PASSES):
        with rounding_noise(network, seed + number):
            found.append((plain_log_probs(network, pairs, dtype) - plain).abs())
    return torch.stack(found).mean(0)


@contextmanager
def rounding_noise(network: Network, seed: int) -> Iterator[None]:
    """Within this context, each linear layer's output has a random relative error of up to half its dtype's epsilon.

    That is how far rounding may move it, so a pass differs from another as passes with other kernels or shapes do.
    """
    generator = torch.Generator(device=network.device).manual_seed(seed)

    def disturb(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        error = torch.rand(output.shape, generator=generator, device=output.device) - 0.5
        return (output.float() * (1 + error * torch.finfo(output.dtype).eps)).to(output.dtype)

    head = network.head.projection
    layers = [m for m in network.core.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    hooks = [layer.register_forward_hook(disturb) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _update_paths(network: Network, pairs: Sequence[Pair], pad_id: int) -> dict[str, Tensor]:
    """Log-probs as the update computes them, in the model's own mode, with and without shared prompts."""
    ids = torch.tensor([token for pair in pairs for token in pair.response], device=network.device)
    adapted = network.core is not network.model
    without_dropout = eval_mode(network.model) if adapted else nullcontext()  # adapters may have dropout of their own

    def log_probs(hidden: Tensor) -> Tensor:
        return network.head(hidden, ids, entropy=False, kept=joined_masks(pairs)).kept_log_prob

    with without_dropout, network.precision():
        paths = {"update": log_probs(response_hidden(network, pairs, pad_id))}
        if SharedPrompts.possible(network, pairs):
            shared = SharedPrompts(network, list(dict.fromkeys(pair.context for pair in pairs)), pad_id)
            paths["update with shared prompts"] = log_probs(shared.hidden(pairs))
    return paths

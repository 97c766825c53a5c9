"""One request to the rollout servers for every answer, and what comes back as samples."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

import torch

from ...errors import InputError
from ...records import Sample, Sampling


def requests(
    client: Any, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, stop: Sequence[int], seed: int
) -> list[Awaitable[Any]]:
    """`n` requests for each prompt, in the order of the prompts; each has a seed and a name of its own."""
    settings = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(stop),
        "logprobs": True,
    }
    return [
        client.generate(
            f"{seed}-{place}-{number}",
            prompt_ids=list(prompt),
            sampling_params={**settings, "seed": (seed + place * n + number) % 2**31},
        )
        for place, prompt in enumerate(prompts)
        for number in range(n)
    ]


def sample_of(output: Any, stop: Sequence[int]) -> Sample:
    """What a server answered. Raises InputError if it gave no tokens, or tokens without their log-probs."""
    ids = tuple(output.token_ids)
    if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
        raise InputError("sampling: a rollout server gave no tokens, or tokens without log-probs")
    return Sample(ids, None, torch.tensor(output.log_probs), ids[-1] in stop)

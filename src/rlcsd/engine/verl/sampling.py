"""One request to the rollout servers for every answer, and what comes back as samples."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from ...errors import InputError
from ...records import Sample, Sampling


async def draw(
    client: Any, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling, stop: Sequence[int], seed: int
) -> list[list[Sample]]:
    """`n` samples of each prompt; every request has a seed and a name of its own.

    Raises InputError when a server gives no tokens, or tokens without their log-probs.
    """
    settings = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": sampling.max_tokens,
        "stop_token_ids": list(stop),
        "logprobs": True,
    }
    requests = [
        client.generate(
            f"{seed}-{place}-{number}",
            prompt_ids=list(prompt),
            sampling_params={**settings, "seed": (seed + place * n + number) % 2**31},
        )
        for place, prompt in enumerate(prompts)
        for number in range(n)
    ]
    samples = [_sample(output, stop) for output in await asyncio.gather(*requests)]
    return [samples[start : start + n] for start in range(0, len(samples), n)]


def _sample(output: Any, stop: Sequence[int]) -> Sample:
    ids = tuple(output.token_ids)
    if not ids or output.log_probs is None or len(output.log_probs) != len(ids):
        raise InputError("sampling: a rollout server gave no tokens, or tokens without log-probs")
    return Sample(ids, None, torch.tensor(output.log_probs), ids[-1] in stop)

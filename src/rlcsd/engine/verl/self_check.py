"""Before a run: do server, scorer and update compute the same log-probs as a plain pass of this very model?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import InputError
from ...records import Pair, Sampling
from ..local.self_check import TOLERANCE
from .messages import Rows

if TYPE_CHECKING:
    from .engine import VerlEngine

_TOKENS = 24


def self_check(engine: VerlEngine) -> None:
    """Compare all paths on a few short responses that the servers draw, each with a plain pass on the workers.

    Raises:
        InputError: they differ by more than the local engine's tolerance on average over a response.
    """
    rng = random.Random(0)
    ids = [rng.randrange(len(engine.tokenizer)) for _ in range(14)]
    prompts = [tuple(ids[:6]), tuple(ids[:11]), tuple(ids[3:])]
    drawn = [some[0] for some in engine.sample(prompts, 1, Sampling(max_tokens=_TOKENS), seed=0)]
    pairs = [Pair(prompt, sample.ids) for prompt, sample in zip(prompts, drawn, strict=True)]
    scored = engine.score(pairs, "policy").log_prob
    plain, update = engine.policy.call("check", "checking the model", Rows.of(pairs))[0]
    paths = {"rollout server": torch.cat([sample.sampled_log_probs for sample in drawn]), "scorer": scored}
    for name, log_probs in {**paths, "update": update}.items():
        _compare(engine, name, log_probs, plain, [len(pair.response) for pair in pairs])


def _compare(engine: VerlEngine, name: str, log_probs: Tensor, plain: Tensor, lengths: list[int]) -> None:
    worst = max(float(part.abs().mean()) for part in (log_probs - plain).split(lengths))
    allowed = TOLERANCE[torch.bfloat16 if engine.config.model.dtype == "bfloat16" else torch.float32]
    if not worst <= allowed:
        raise InputError(
            f"model.path={engine.config.model.path}: the {name}'s log-probs differ from a plain pass of the model by "
            f"{worst:.3g} nats on average (at most {allowed:g}), so training would be wrong; engine.self_check=false "
            "trains all the same"
        )

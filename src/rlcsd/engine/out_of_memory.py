"""Turn an out-of-memory error into one sentence: the phase, and which keys to change from which value to which."""

from __future__ import annotations

import functools
import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch

from ..config.schema import Config, LocalEngineConfig, VerlEngineConfig, may_change_on_resume
from ..errors import OutOfMemoryError, is_out_of_memory

P = ParamSpec("P")
T = TypeVar("T")
Phase = Literal["loading", "sampling", "scoring", "update", "optimizer step", "saving", "resume"]
Change = tuple[str, Any, Any]  # key, its value, the proposed value


@contextmanager
def out_of_memory(phase: Phase, config: Config) -> Iterator[None]:
    """Raise OutOfMemoryError for an error of the block that means too little memory; any other passes."""
    try:
        yield
        return
    except (RuntimeError, MemoryError, OutOfMemoryError) as error:
        if not is_out_of_memory(error) or getattr(error, "phase", None):
            raise
        alone = "the device" if _on_device(error) else "the host"
        where = "a worker" if isinstance(config.engine, VerlEngineConfig) else alone
        traceback.clear_frames(error.__traceback__)  # their variables hold what has filled the memory
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise shortage(phase, config, where)


def in_phase(phase: Phase) -> Callable[[Callable[Concatenate[Any, P], T]], Callable[Concatenate[Any, P], T]]:
    """Decorate a method of an object with a `config`: `out_of_memory` around each call."""

    def decorate(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
        @functools.wraps(method)
        def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with out_of_memory(phase, self.config):
                return method(self, *args, **kwargs)

        return run

    return decorate


def shortage(phase: Phase, config: Config, where: str) -> OutOfMemoryError:
    """The error of a phase that ran out of memory; `where` is what had too little."""
    proposed = changes(phase, config)
    said = [f"{key}={_text(new)} (now {_text(old)})" for key, old, new in proposed]
    resumable = may_change_on_resume()
    override = next((f"{key}={_text(new)}" for key, _, new in proposed if key in resumable), None)
    what = f"set {', or '.join(said)}" if said else "free some, or take a smaller model or shorter responses"
    sentence = f"{phase} ran out of memory on {where}; {what}; `rlcsd train --dry-run` estimates the need"
    return OutOfMemoryError(sentence, phase, override)


def changes(phase: Phase, config: Config) -> list[Change]:
    """What lowers the memory that a phase needs, what helps most first; at most three."""
    e, model = config.engine, config.model
    longest = config.max_prompt_tokens + config.sampling.max_tokens
    head = _halved("engine.head_chunk", e.head_chunk, 256)
    whole: list[Change] = [] if model.lora else [("model.lora.rank", None, 64)]
    half: list[Change] = [("model.dtype", model.dtype, "bfloat16")] if model.dtype == "float32" else []
    recompute: list[Change] = [] if model.gradient_checkpointing else [("model.gradient_checkpointing", False, True)]
    server: list[Change] = []
    beside: list[Change] = []  # what a server holds while the trainer works
    offload: list[Change] = []
    if isinstance(e, VerlEngineConfig):
        server = beside = [("engine.rollout_memory", e.rollout_memory, round(e.rollout_memory * 0.8, 2))]
        offload = [("engine.offload", e.offload, "all")] if e.offload != "all" else []
        rows = _halved("engine.rollout_rows", e.rollout_rows, 1)
    else:
        assert isinstance(e, LocalEngineConfig)
        if e.sampler == "vllm" or (e.sampler == "auto" and torch.cuda.is_available()):
            server = [("engine.vllm_memory", e.vllm_memory, round(e.vllm_memory * 0.7, 2))]
            beside = [] if e.vllm_sleep else [("engine.vllm_sleep", False, True)]
        own = [
            *(_halved("engine.sample_gib", e.sample_gib, 0.1) if e.sample_gib else []),
            *_halved("engine.sample_rows", e.sample_rows, config.group_size),
            *([] if e.sample_gib else [("engine.sample_gib", None, 8.0)]),
        ]
        rows = [] if e.sampler == "vllm" else own
    copied: list[Change] = [("save_in_background", None, False)] if config.save_in_background is None else []
    states: list[Change] = [
        ("engine.optimizer", name, "adamw_8bit") for name in [getattr(e, "optimizer", None)] if name == "adamw"
    ]
    # Below the longest row a budget has no effect: one row is never cut.
    micro = _halved("engine.micro_batch_tokens", e.micro_batch_tokens, longest)
    score = _halved("engine.score_tokens", e.score_tokens, longest)
    by_phase: dict[Phase, list[Change]] = {
        "loading": [*offload, *half, *whole, *server],
        "sampling": [*rows, *server],
        "scoring": [*score, *head, *offload, *beside, *half],
        "update": [*micro, *recompute, *head, *offload, *beside, *whole],
        "optimizer step": [*states, *offload, *whole, *beside],
        "saving": [*offload, *copied],
        "resume": [*offload, *server],
    }
    return by_phase[phase][:3]


def _halved(key: str, value: float, least: float) -> list[Change]:
    """A proposal of half the value, if that is not below `least`, where it would change nothing."""
    half = value // 2 if isinstance(value, int) else value / 2
    return [(key, value, half)] if half >= least else []


def _on_device(error: BaseException) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "cuda" in str(error).lower()


def _text(value: Any) -> str:
    """A value as it is written in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)

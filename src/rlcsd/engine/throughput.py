"""What the device does in each phase of a step: tokens per second, share of its peak (MFU), and memory.

FLOPs are those of the counted work (`work.flops`): each prompt and each distinct context once, every response token,
forward alone for sampling and scoring. An update is three forward passes, or two with adapters, whose frozen base has
no weight gradient. Recomputed activations are not counted, as is usual for MFU (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..config.schema import Config, VerlEngineConfig
from ..records import Pair, Sample
from .work import after, flops

if TYPE_CHECKING:  # at run time engines import this module first
    from .local.memory import Shape

# Dense bf16 TFLOP/s with float32 accumulation, from the vendors' data sheets, by words of the device's name; the first
# entry all of whose words are in the name counts.
PEAK_TFLOPS = (
    ("B200", 2250), ("GB200", 2500), ("H100 PCIe", 756), ("H100 NVL", 835), ("H100", 989), ("H200", 989),
    ("GH200", 989), ("H800", 989), ("H20", 148), ("A100", 312), ("A800", 312), ("A6000", 155), ("6000 Ada", 364),
    ("A40", 150), ("A10G", 70), ("A10", 125), ("A30", 165), ("L40S", 362), ("L40", 181), ("L20", 119), ("L4", 121),
    ("RTX 5090", 209.5), ("RTX 4090", 165.2), ("RTX 3090", 71),
)  # fmt: skip


def peak_tflops(name: str) -> float | None:
    """Peak of a device by the name that torch gives; None for one that is not in the table."""
    words = set(re.findall(r"\w+", name.lower()))
    return next((float(peak) for known, peak in PEAK_TFLOPS if set(known.lower().split()) <= words), None)


def peak_flops(config: Config, device: torch.device) -> float | None:
    """FLOP/s of all devices of the run together: `engine.peak_tflops`, or by the device's name; None if unknown."""
    peak = config.engine.peak_tflops
    if peak is None and device.type == "cuda":
        peak = peak_tflops(torch.cuda.get_device_name(device))
    devices = config.engine.gpus if isinstance(config.engine, VerlEngineConfig) else 1
    return None if peak is None else peak * 1e12 * devices


class WorkCounter:
    """Response tokens and FLOPs of an engine's calls since the last `take`.

    `shape` is the policy's, None if it is not known; then FLOPs are not counted. Another model as the teacher counts as
    if it had the same.
    """

    def __init__(self, shape: Shape | None, config: Config) -> None:
        self.shape, self.tokens, self.flops = shape, 0, 0.0
        self.passes = 2.0 if config.model.lora is not None else 3.0  # of an update, in forward passes

    def sampled(self, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Sample]]) -> None:
        for prompt, group in zip(prompts, groups, strict=True):
            self._add(len(prompt), [len(sample) for sample in group])

    def scored(self, pairs: Sequence[Pair], passes: float = 1.0) -> None:
        lengths: dict[Any, list[int]] = defaultdict(list)
        for pair in pairs:
            lengths[pair.context].append(len(pair.response))
        for context, responses in lengths.items():
            self._add(len(context), responses, passes)

    def updated(self, pairs: Sequence[Pair], share: float) -> None:
        """`share` of the pairs had a gradient."""
        tokens = self.tokens
        self.scored(pairs, self.passes * share)
        self.tokens = tokens + round(share * (self.tokens - tokens))

    def _add(self, context: int, responses: Sequence[int], passes: float = 1.0) -> None:
        self.tokens += sum(responses)
        if self.shape is not None:
            work = sum((after(context, tokens, head=True) for tokens in responses), after(0, context))
            self.flops += passes * flops(self.shape, work)

    def take(self) -> tuple[int, float]:
        """Tokens and FLOPs; they start from 0 again."""
        taken = self.tokens, self.flops
        self.tokens, self.flops = 0, 0.0
        return taken


class PhaseMeter:
    """Measures the phases of one step on an engine. `metrics` are those of phases that computed tokens."""

    def __init__(self, engine: Any, config: Config) -> None:
        self.device: torch.device = engine.device
        self.work: WorkCounter | None = getattr(engine, "work", None)
        self.peak = peak_flops(config, self.device)
        self.tokens: dict[str, int] = defaultdict(int)
        self.flops: dict[str, float] = defaultdict(float)
        self.memory: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # largest bytes allocated and reserved

    def begin(self) -> None:
        if self.work is not None:
            self.work.take()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)

    def end(self, phase: str) -> None:
        """Wait for the device, so that the clock that is read next counts all of the phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peaks = torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device)
            self.memory[phase] = [max(pair) for pair in zip(self.memory[phase], peaks, strict=True)]
        if self.work is not None:
            tokens, done = self.work.take()
            self.tokens[phase] += tokens
            self.flops[phase] += done

    def metrics(self, seconds: dict[str, float]) -> dict[str, float]:
        """`perf/…` by phase."""
        found: dict[str, float] = {}
        for phase, tokens in self.tokens.items():
            if not tokens or not seconds.get(phase):
                continue
            found[f"perf/throughput/{phase}"] = tokens / seconds[phase]
            if self.peak is not None and self.flops[phase]:
                found[f"perf/mfu/{phase}"] = self.flops[phase] / seconds[phase] / self.peak
            if phase in self.memory:
                allocated, reserved = self.memory[phase]
                found[f"perf/memory_allocated/{phase}"] = allocated / 2**30
                found[f"perf/memory_reserved/{phase}"] = reserved / 2**30
        return found

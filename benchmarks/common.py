"""What the benchmarks share: random models of a given size, interleaved timing, a table."""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlcsd.engine.local.model import Network, resolve_device


def device() -> torch.device:
    return resolve_device("auto")


def random_network(hidden: int = 256, layers: int = 6, vocab: int = 8192, seed: int = 0) -> Network:
    """A random Qwen3 of about 12 · layers · hidden² parameters beside its embedding."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=32768,
    )
    return Network(Qwen3ForCausalLM(config).eval().to(device()))


def synchronise() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def interleaved(candidates: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each candidate, one after the other in every round; a first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            synchronise()
            begun = time.perf_counter()
            run()
            synchronise()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def resident() -> int:
    """Bytes now held by this process, or on the GPU."""
    if device().type == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def highest() -> int:
    """The most bytes that this process has held since it began, or that were held on the GPU."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not `ru_maxrss`, which a new process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def matmul_rate(size: int = 1024, rounds: int = 10) -> float:
    """Measured float32 matrix-product rate of this machine, FLOP/s."""
    a = torch.randn(size, size, device=device())
    seconds = interleaved({"product": lambda: a @ a}, rounds)["product"]
    return 2 * size**3 / median(seconds)


def write(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **record}, indent=2))

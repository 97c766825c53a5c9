"""Shared by the benchmarks: options, random models, interleaved timing, memory peaks, and records of results.

Every benchmark takes `--smoke`: the smallest sizes, one round, in seconds on one core. Its figures mean nothing; it
shows that the command works.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlcsd.config.load import build_method, load
from rlcsd.engine.local.model import Network, resolve_device
from rlcsd.engine.local.update import MiniBatch
from rlcsd.records import Pair, TokenBatch

SMOKE_STEP = (  # overrides for the smallest training step in which something is learnt
    "prompts_per_step=1", "prompts_per_update=1", "group_size=8", "task.train_per_size=2", "task.eval_per_size=1",
    "sampling.max_tokens=128", "engine.self_check=false",
)  # fmt: skip


def options(doc: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with `--smoke`, `--json FILE` and, if `rounds` is given, `--rounds` with that default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes, one round; the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results and the machine there")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of the command line; a smoke run has one round."""
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds = 1
        print("smoke run: the sizes are too small for the figures to mean anything", flush=True)
    return arguments


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


def grpo_token_batch(pairs: Sequence[Pair]) -> TokenBatch:
    """A prepared mini-batch of grpo for the responses of `pairs`, every advantage 1."""
    lengths = torch.tensor([len(pair.response) for pair in pairs], device=device())
    rollout = torch.arange(len(pairs), device=device()).repeat_interleave(lengths)
    ones = torch.ones(len(rollout), device=device())
    batch = TokenBatch(
        rollout=rollout,
        advantage=ones,
        old_log_prob=-8 * ones,
        correction=ones,
        hinted=ones.bool(),
        is_correct=ones.bool(),
    )
    return build_method(load(["method=grpo"])).prepare(batch, 1)


def grpo_mini_batch(pairs: Sequence[Pair]) -> MiniBatch:
    return MiniBatch(pairs, grpo_token_batch(pairs), build_method(load(["method=grpo"])))


# Time


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


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def matmul_rate(size: int = 1024, rounds: int = 10) -> float:
    """Measured float32 matrix-product rate of this machine, FLOP/s."""
    a = torch.randn(size, size, device=device())
    seconds = interleaved({"product": lambda: a @ a}, rounds)["product"]
    return 2 * size**3 / median(seconds)


# Memory


def resident() -> int:
    """Bytes that this process holds now, or the GPU."""
    if device().type == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """The most bytes that this process has held since it began, or the GPU."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    # Not `ru_maxrss`, which a new process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _answer(queue: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    queue.put(function(*arguments))


def in_own_process(function: Callable[..., Any], *arguments: Any, smoke: bool = False) -> Any:
    """What `function` returns in a new process, whose peak of memory is its own; a smoke run starts none."""
    if smoke:
        return function(*arguments)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_answer, args=(queue, function, arguments))
    process.start()
    process.join()
    return queue.get(timeout=1)  # an error if the process ended without an answer


# Results


def machine() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def write(path: Path | None, record: dict[str, Any]) -> None:
    """Write the record and the machine as JSON, if there is a path."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **record}, indent=2))

"""Peak memory above the weights for one long row: it must grow linearly with length, and the plan must foresee it.

    python benchmarks/long_responses.py [--most 32768] [--case NAME …] [--json FILE]

A random model of two layers. Each case and length runs in a process of its own; on a CPU its peak resident set counts,
with an allocator that gives freed blocks of a MiB and more back at once.

    score            a response of T tokens behind a hint of T / 2, and a shorter response behind it
    score, window    the same in a model whose layers attend within 1,024 tokens
    sample           the prefill of two prompts, of T tokens and of 100 fewer, two responses each
    update           a response of T tokens and a short one behind a shared prompt of 512 tokens, forward and backward
    update, alone    a response of T tokens and a short one behind prompts of their own
    update, checkpointed    the same with gradient checkpointing
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import device, highest, resident, write
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import sampler, scoring
from rlcsd.engine.local.memory import sampling_bytes, scoring_bytes, shape_of, update_bytes
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.update import MiniBatch, accumulate
from rlcsd.records import Pair, Sampling, TokenBatch

SIZES = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 65536,
}
SETTINGS = ["method=grpo", "engine.micro_batch_tokens=4096", "engine.score_tokens=4096", "engine.head_chunk=1024"]
PROMPT, SHORT, WINDOW = 512, 64, 1024
LENGTHS = (2048, 4096, 8192, 16384, 32768)


def network(case: str) -> Network:
    torch.manual_seed(0)
    if "window" in case:
        model: Any = MistralForCausalLM(MistralConfig(sliding_window=WINDOW, **SIZES))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **SIZES))
    if "checkpointed" in case:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Network(model.to(device()), head_chunk=1024)


def ids(count: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 4000, (count,)).tolist())


def work(case: str, net: Network, length: int) -> Callable[[], Any]:
    if case.startswith("score"):
        context = ids(length // 2)
        pairs = [Pair(context, ids(length)), Pair(context, ids(SHORT))]
        return lambda: scoring.score(net, pairs, pad_id=0, budget=4096)
    if case == "sample":
        prompts, sampling = [ids(length), ids(length - 100)], Sampling(max_tokens=4)
        return lambda: sampler.sample(net.model, prompts, 2, sampling, seed=0, stop_ids=[], pad_id=0)
    prompt = ids(PROMPT)
    other = prompt if case == "update" else ids(PROMPT)
    pairs = [Pair(prompt, ids(length)), Pair(other, ids(SHORT))]
    method = build_method(load(SETTINGS))
    rollout = torch.tensor([0, 1], device=device()).repeat_interleave(torch.tensor([length, SHORT], device=device()))
    ones = torch.ones(len(rollout), device=device())
    batch = method.prepare(TokenBatch(rollout, ones, ones, -9 * ones, ones, ones.bool()), 1)
    net.model.train()
    return lambda: accumulate(net, MiniBatch(pairs, batch, method), pad_id=0, budget=4096)


def measure(case: str, length: int, queue: Any) -> None:
    net = network(case)
    work(case, net, 100 + SHORT)()  # libraries load what they need, gradients are made
    run = work(case, net, length)
    before, begun = resident(), time.perf_counter()
    run()
    queue.put((highest() - before, time.perf_counter() - begun))


def estimate(case: str, length: int) -> float:
    """What the memory plan counts for the case, in bytes."""
    checkpointed = f"model.gradient_checkpointing={'true' if 'checkpointed' in case else 'false'}"
    config, shape = load([*SETTINGS, checkpointed]), shape_of(network(case).core.config)
    if case.startswith("score"):
        return scoring_bytes(shape, config, length // 2, length)
    if case == "sample":
        return sampling_bytes(shape, config, 4, 2, length, length + 4)
    return update_bytes(shape, config, PROMPT + length)


CASES = ("score", "score, window", "sample", "update", "update, alone", "update, checkpointed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=LENGTHS[-1], help="longest T")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lengths = [length for length in LENGTHS if length <= arguments.most]
    print(f"| GiB, measured (planned) | {' | '.join(f'{length:,}' for length in lengths)} |")
    print("|---" * (len(lengths) + 1) + "|")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    context = multiprocessing.get_context("spawn")
    records: dict[str, Any] = {}
    for case in arguments.case or CASES:
        cells = []
        for length in lengths:
            queue = context.Queue()
            process = context.Process(target=measure, args=(case, length, queue))
            process.start()
            process.join()
            peak, seconds = queue.get(timeout=1)  # an error if the process ended without an answer
            planned = estimate(case, length)
            cells.append(f"{peak / 2**30:.2f} ({planned / 2**30:.2f})")
            records[f"{case}/{length}"] = {"bytes": peak, "seconds": seconds, "planned": planned}
        print(f"| {case} | {' | '.join(cells)} |", flush=True)
    write(arguments.json, records)


if __name__ == "__main__":
    main()

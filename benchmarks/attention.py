"""Attention in blocks of queries instead of large masks: memory of long rows, and time of short ones.

    python benchmarks/attention.py long [--most 32768] [--case NAME …] [--json FILE] [--smoke]
    python benchmarks/attention.py short [--rounds 15] [--json FILE] [--smoke]

long: peak memory above the weights for one row of T tokens in a random model of two layers. It must grow linearly with
T, and the memory plan must foresee it. Each case and length runs in a process of its own; on a CPU the peak is that of
the resident set, with an allocator that gives freed blocks of a MiB and more back at once.

    score            a response of T tokens after a hint of T / 2, and a shorter response after it
    score, window    the same in a model whose layers attend within 1,024 tokens
    sample           the prefill of two prompts, of T tokens and of 100 fewer, two responses each
    update           a response of T tokens and a short one after a shared prompt of 512 tokens, forward and backward
    update, alone    a response of T tokens and a short one after prompts of their own
    update, checkpointed    the same with gradient checkpointing

short: scoring, sampling and update of rows of 96 tokens, with the masks of transformers and with blocks.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from common import (
    device,
    grpo_mini_batch,
    in_own_process,
    interleaved,
    median,
    options,
    parsed,
    peak,
    random_network,
    resident,
    write,
)
from scoring import BUDGET, pairs_of
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlcsd.config.load import load
from rlcsd.engine.local import attention, sampler, scoring
from rlcsd.engine.local.memory import sampling_bytes, scoring_bytes, shape_of, update_bytes
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.update import accumulate
from rlcsd.records import Pair, Sampling

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
CASES = ("score", "score, window", "sample", "update", "update, alone", "update, checkpointed")


def network(case: str) -> Network:
    torch.manual_seed(0)
    if "window" in case:
        model: Any = MistralForCausalLM(MistralConfig(sliding_window=WINDOW, **SIZES))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **SIZES))
    if "checkpointed" in case:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Network(model.to(device()), head_chunk=1024)


def random_ids(count: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 4000, (count,)).tolist())


def work(case: str, net: Network, length: int) -> Callable[[], Any]:
    """What a case measures, for rows of `length` tokens."""
    if case.startswith("score"):
        context = random_ids(length // 2)
        pairs = [Pair(context, random_ids(length)), Pair(context, random_ids(SHORT))]
        return lambda: scoring.score(net, pairs, pad_id=0, budget=4096)
    if case == "sample":
        prompts, sampling = [random_ids(length), random_ids(length - 100)], Sampling(max_tokens=4)
        return lambda: sampler.sample(net, prompts, 2, sampling, seed=0, stop_ids=[], pad_id=0)
    prompt = random_ids(PROMPT)
    other = prompt if case == "update" else random_ids(PROMPT)
    batch = grpo_mini_batch([Pair(prompt, random_ids(length)), Pair(other, random_ids(SHORT))])
    net.model.train()
    return lambda: accumulate(net, batch, pad_id=0, budget=4096)


def measure(case: str, length: int) -> tuple[int, float]:
    """Bytes at the peak above the loaded model, and seconds."""
    net = network(case)
    work(case, net, 100 + SHORT)()  # libraries load what they need, gradients are made
    run = work(case, net, length)
    before, begun = resident(), time.perf_counter()
    run()
    return peak() - before, time.perf_counter() - begun


def planned(case: str, length: int) -> float:
    """What the memory plan counts for the case, in bytes."""
    checkpointed = f"model.gradient_checkpointing={'true' if 'checkpointed' in case else 'false'}"
    config, shape = load([*SETTINGS, checkpointed]), shape_of(network(case).core.config)
    if case.startswith("score"):
        return scoring_bytes(shape, config, length // 2, length)
    if case == "sample":
        return sampling_bytes(shape, config, 4, 2, length, length + 4)
    return update_bytes(shape, config, PROMPT + length)


def long(arguments: argparse.Namespace) -> None:
    lengths = [256] if arguments.smoke else [length for length in LENGTHS if length <= arguments.most]
    print(f"| GiB, measured (planned) | {' | '.join(f'{length:,}' for length in lengths)} |")
    print("|---" * (len(lengths) + 1) + "|")
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    records: dict[str, Any] = {}
    for case in arguments.case or CASES:
        cells = []
        for length in lengths:
            held, seconds = in_own_process(measure, case, length, smoke=arguments.smoke)
            estimate = planned(case, length)
            cells.append(f"{held / 2**30:.2f} ({estimate / 2**30:.2f})")
            records[f"{case}/{length}"] = {"bytes": held, "seconds": seconds, "planned": estimate}
        print(f"| {case} | {' | '.join(cells)} |", flush=True)
    write(arguments.json, records)


def short(arguments: argparse.Namespace) -> None:
    size, length, sampled = (4, 16, 4) if arguments.smoke else (8, 96, 48)
    net = random_network(hidden=128 if arguments.smoke else 256, layers=4, vocab=2048)
    pairs = pairs_of(2, size, 4, length, length, 2048)
    rows = [Pair(pair.context[:40], pair.response) for pair in {pair.response: pair for pair in pairs}.values()]
    prompts = [row.context[: 30 + index] for index, row in enumerate(rows[:8])]
    batch, sampling = grpo_mini_batch(rows), Sampling(max_tokens=sampled)
    phases: dict[str, Callable[[], Any]] = {
        "score": lambda: scoring.score(net, pairs, pad_id=0, budget=BUDGET),
        "sample": lambda: sampler.sample(net, prompts, 8, sampling, seed=0, stop_ids=[], pad_id=0),
        "update": lambda: accumulate(net, batch, pad_id=0, budget=BUDGET),
    }

    def using(implementation: str, run: Callable[[], Any]) -> Callable[[], None]:
        def both() -> None:
            net.core.set_attn_implementation(implementation)
            run()

        return both

    records = {}
    print("| phase | library s | ours s | ratio of the least | median of the ratios |\n|---|---|---|---|---|")
    for name, run in phases.items():
        seconds = interleaved({"library": using("sdpa", run), "ours": using(attention.NAME, run)}, arguments.rounds)
        least = {which: min(values) for which, values in seconds.items()}
        ratios = [ours / library for library, ours in zip(seconds["library"], seconds["ours"], strict=True)]
        print(
            f"| {name} | {least['library']:.2f} | {least['ours']:.2f} | {least['ours'] / least['library']:.2f} "
            f"| {median(ratios):.2f} |",
            flush=True,
        )
        records[name] = seconds
    write(arguments.json, records)


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("what", choices=("long", "short"))
    parser.add_argument("--most", type=int, default=LENGTHS[-1], help="long: the longest T")
    parser.add_argument("--case", action="append", choices=CASES, help="long: some of the cases")
    arguments = parsed(parser)
    {"long": long, "short": short}[arguments.what](arguments)


if __name__ == "__main__":
    main()

"""The memory estimate: a table for models of 0.5 to 8 billion parameters, and a measured point to hold it against.

    python benchmarks/memory.py table              # GiB on one GPU, rlcsd, bf16, gradient checkpointing
    python benchmarks/memory.py check [--json FILE]   # one update of a random model, estimated and measured

Measured is what an update adds to weights and moments: gradients and activations, each case in a process of its own.
On a CPU that is the peak of the resident set beyond what it was with the model loaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import torch
from common import device, highest, resident, write
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlcsd.config.load import build_method, load
from rlcsd.config.schema import Config
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.memory import memory_plan, shape_of
from rlcsd.engine.local.model import Network, load_tokenizer
from rlcsd.records import Pair, TokenBatch

MODELS = {  # hidden, layers, heads, feed-forward, tied embeddings: as on the models' cards
    "0.6B (Qwen3)": (1024, 28, 16, 3072, True),
    "1.7B (Qwen3)": (2048, 28, 16, 6144, True),
    "4B (Qwen3)": (2560, 36, 32, 9728, True),
    "8B (Qwen3)": (4096, 36, 32, 12288, False),
}
RECIPES = {
    "full": [],
    "full, 8-bit paged": ["engine.optimizer=paged_adamw_8bit"],
    "LoRA 64": ["model.lora.rank=64"],
}


def qwen3(hidden: int, layers: int, heads: int, feed_forward: int, tied: bool, vocab: int = 151_936) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8 if heads >= 8 else heads,
        head_dim=128 if hidden >= 1024 else 64,
        intermediate_size=feed_forward,
        tie_word_embeddings=tied,
        max_position_embeddings=40_960,
    )


def table() -> None:
    lengths = (4096, 8192, 16384)
    print(
        "| model | training | "
        + " | ".join(f"{length:,} tokens" for length in lengths)
        + " |\n|---|---|"
        + "---|" * len(lengths)
    )
    for name, sizes in MODELS.items():
        shape = shape_of(qwen3(*sizes))
        for recipe, overrides in RECIPES.items():
            cells = []
            for length in lengths:
                settings = [f"sampling.max_tokens={length}", "engine.head_chunk=1024"]
                config = load(["model=qwen3_8b", "task=logic_kk", "method=rlcsd", *settings, *overrides])
                cells.append(f"{memory_plan(shape, config, build_method(config))['peak'] / 2**30:.0f}")
            print(f"| {name} | {recipe} | {' | '.join(cells)} |")


CASES = {
    "plain": [],
    "checkpointed": ["model.gradient_checkpointing=true"],
    "large vocabulary": ["vocab=50000"],
}


def settings_of(case: str) -> tuple[Config, Qwen3Config]:
    overrides = CASES[case]
    vocab = next((int(each.removeprefix("vocab=")) for each in overrides if each.startswith("vocab=")), 8192)
    budgets = [
        "engine.micro_batch_tokens=4096",
        "engine.head_chunk=1024",
        "max_prompt_tokens=256",
        "sampling.max_tokens=256",
    ]
    config = load(
        ["method=grpo", "kl_coefficient=0", *budgets, *(each for each in overrides if not each.startswith("vocab="))]
    )
    return config, qwen3(512, 12, 8, 1536, True, vocab)


def measure(case: str, queue: multiprocessing.Queue) -> None:
    """Bytes that an update over 8 rows of 512 tokens adds at its peak to a model that has been updated before."""
    config, shape = settings_of(case)
    model = Qwen3ForCausalLM(shape).to(device())
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    method = build_method(config)
    engine = LocalEngine(config, method, Network(model, config.engine.head_chunk), load_tokenizer(config.model))
    g = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 8000, (count,), generator=g).tolist())

    def update(rows: int, length: int) -> None:
        pairs = [Pair(draw(length), draw(length)) for _ in range(rows)]
        ones = torch.ones(rows * length, device=device())
        rollout = torch.arange(rows, device=device()).repeat_interleave(length)
        engine.update(
            pairs, method.prepare(TokenBatch(rollout, ones, ones, -9 * ones, ones, ones.bool()), 1), method, 1e-6
        )

    update(2, 4)  # libraries load what they need, the optimizer makes its moments
    before = resident()
    update(8, 256)
    queue.put(highest() - before)


def estimate(case: str) -> float:
    config, shape = settings_of(case)
    plan = memory_plan(shape_of(shape), config, build_method(config))
    return plan["gradients"] + plan["update"]


def check(json: Path | None) -> None:
    context = multiprocessing.get_context("spawn")
    records = {}
    print("| case | estimated GiB | measured GiB | measured / estimated |\n|---|---|---|---|")
    for case in CASES:
        queue = context.Queue()
        process = context.Process(target=measure, args=(case, queue))
        process.start()
        measured, estimated = queue.get(), estimate(case)
        process.join()
        print(f"| {case} | {estimated / 2**30:.2f} | {measured / 2**30:.2f} | {measured / estimated:.2f} |", flush=True)
        records[case] = {"estimated": estimated, "measured": measured}
    write(json, records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "check"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "table":
        table()
    else:
        check(arguments.json)


if __name__ == "__main__":
    main()

"""The memory plan: its estimates for published model sizes, and measured points to compare it with.

    python benchmarks/memory.py table              # GiB on one GPU, rlcsd, bf16, gradient checkpointing
    python benchmarks/memory.py check [--json FILE] [--smoke]   # one update of a random model, estimated and measured
    python benchmarks/memory.py cluster [key=value …]           # GiB on each of 8 GPUs, rlcsd, 16k response tokens

table and cluster load and measure nothing: they come from the shapes of the models. check measures what an update adds
to weights and optimizer state, that is gradients and activations, each case in a process of its own. On a CPU that is
the peak of the resident set beyond what it was with the model loaded.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import device, grpo_token_batch, in_own_process, options, parsed, peak, resident, write
from transformers import Olmo3Config, Qwen3Config, Qwen3ForCausalLM

from rlcsd.config.load import build_method, load
from rlcsd.config.schema import Config
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.memory import memory_plan, shape_of
from rlcsd.engine.local.model import Network, load_tokenizer
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.engine.verl.settings import engine_settings
from rlcsd.records import Pair

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
CLUSTER_RECIPES = {  # by model=…: what makes the run fit on 80 GB
    "qwen3_1p7b": ("1.7B (Qwen3)", []),
    "qwen3_4b": ("4B (Qwen3)", ["engine.offload=optimizer"]),
    "qwen3_8b": ("8B (Qwen3)", ["engine.offload=all", "engine.rollout_memory=0.8"]),
    "olmo3_7b_think": ("7B (Olmo 3)", ["engine.offload=all", "engine.rollout_memory=0.8"]),
}
CASES = {"plain": [], "checkpointed": ["model.gradient_checkpointing=true"], "large vocabulary": []}


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


def olmo3() -> Olmo3Config:
    return Olmo3Config(
        vocab_size=100_278,
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        intermediate_size=11_008,
        tie_word_embeddings=False,
    )


def table(smoke: bool) -> None:
    lengths = (4096,) if smoke else (4096, 8192, 16384)
    print(f"| model | training | {' | '.join(f'{length:,} tokens' for length in lengths)} |")
    print("|---" * (len(lengths) + 2) + "|")
    for name, sizes in list(MODELS.items())[: 1 if smoke else None]:
        shape = shape_of(qwen3(*sizes))
        for recipe, overrides in RECIPES.items():
            cells = []
            for length in lengths:
                settings = [f"sampling.max_tokens={length}", "engine.head_chunk=1024"]
                config = load(["model=qwen3_8b", "task=logic_kk", "method=rlcsd", *settings, *overrides])
                cells.append(f"{memory_plan(shape, config, build_method(config))['peak'] / 2**30:.0f}")
            print(f"| {name} | {recipe} | {' | '.join(cells)} |")


def cluster(overrides: list[str]) -> None:
    print("| model | settings | scoring | update | trainer while sampling | server's weights | full response | host |")
    print("|---|---|---|---|---|---|---|---|")
    for model, (size, recipe) in CLUSTER_RECIPES.items():
        config = load(["engine=verl", f"model={model}", "task=logic_kk", "method=rlcsd", *recipe, *overrides])
        shape = shape_of(qwen3(*MODELS[size]) if size in MODELS else olmo3())
        plan = gpu_plan(shape, config, build_method(config))
        parts = (plan.scoring, plan.update, plan.resting, plan.served, plan.row)
        host = plan.host * engine_settings(config).gpus_per_node
        named = " ".join(f"`{one}`" for one in recipe) or "defaults"
        print(f"| `{model}` | {named} | {' | '.join(f'{part / 2**30:.1f}' for part in parts)} | {host / 2**30:.0f} |")


def settings_of(case: str, smoke: bool = False) -> tuple[Config, Qwen3Config]:
    budgets = [
        "engine.micro_batch_tokens=4096",
        "engine.head_chunk=1024",
        "max_prompt_tokens=256",
        "sampling.max_tokens=256",
    ]
    config = load(["method=grpo", "kl_coefficient=0", *budgets, *CASES[case]])
    hidden, layers = (64, 1) if smoke else (512, 12)
    return config, qwen3(hidden, layers, 8, 3 * hidden, True, 50_000 if case == "large vocabulary" else 8192)


def measure(case: str, smoke: bool) -> int:
    """Bytes that an update over 8 rows of 512 tokens adds at its peak to a model that has been updated before."""
    config, shape = settings_of(case, smoke)
    model: Any = Qwen3ForCausalLM(shape).to(device())
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    method = build_method(config)
    engine = LocalEngine(config, method, Network(model, config.engine.head_chunk), load_tokenizer(config.model))
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 8000, (count,), generator=generator).tolist())

    def update(rows: int, length: int) -> None:
        pairs = [Pair(draw(length), draw(length)) for _ in range(rows)]
        engine.update(pairs, grpo_token_batch(pairs), method, 1e-6)

    update(2, 4)  # libraries load what they need, the optimizer makes its state
    before = resident()
    update(*((1, 16) if smoke else (8, 256)))
    return peak() - before


def estimate(case: str, smoke: bool) -> float:
    config, shape = settings_of(case, smoke)
    plan = memory_plan(shape_of(shape), config, build_method(config))
    return plan["gradients"] + plan["update"]


def check(arguments: argparse.Namespace) -> None:
    records = {}
    print("| case | estimated GiB | measured GiB | measured / estimated |\n|---|---|---|---|")
    for case in list(CASES)[:1] if arguments.smoke else CASES:
        measured = in_own_process(measure, case, arguments.smoke, smoke=arguments.smoke)
        estimated = estimate(case, arguments.smoke)
        print(f"| {case} | {estimated / 2**30:.2f} | {measured / 2**30:.2f} | {measured / estimated:.2f} |", flush=True)
        records[case] = {"estimated": estimated, "measured": measured}
    write(arguments.json, records)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=("table", "check", "cluster"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="cluster: overrides of the config")
    arguments = parsed(parser)
    match arguments.what:
        case "table":
            table(arguments.smoke)
        case "check":
            check(arguments)
        case "cluster":
            cluster(arguments.overrides)


if __name__ == "__main__":
    main()

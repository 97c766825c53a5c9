"""The plan of memory on each GPU for the published model sizes, from their shapes alone.

    python -m benchmarks.cluster_memory [key=value …]

Prints a table: GiB on each GPU of one node of eight, for rlcsd at 16k response tokens. Nothing is loaded or measured.
"""

from __future__ import annotations

import sys

from transformers import CONFIG_MAPPING

from rlcsd.config.load import build_method, load
from rlcsd.engine.local.memory import Shape, shape_of
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.engine.verl.settings import engine_settings

QWEN3 = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936}
MODELS = {
    "qwen3_1p7b": ("qwen3", {"num_hidden_layers": 28, "hidden_size": 2048, "intermediate_size": 6144,
                             "num_attention_heads": 16, "tie_word_embeddings": True, **QWEN3}),
    "qwen3_4b": ("qwen3", {"num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728,
                           "num_attention_heads": 32, "tie_word_embeddings": True, **QWEN3}),
    "qwen3_8b": ("qwen3", {"num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288,
                           "num_attention_heads": 32, "tie_word_embeddings": False, **QWEN3}),
    "olmo3_7b_think": ("olmo3", {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008,
                                 "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100278,
                                 "tie_word_embeddings": False}),
}  # fmt: skip
RECIPES = {
    "qwen3_1p7b": [],
    "qwen3_4b": ["engine.offload=optimizer"],
    "qwen3_8b": ["engine.offload=all", "engine.rollout_memory=0.8"],
    "olmo3_7b_think": ["engine.offload=all", "engine.rollout_memory=0.8"],
}


def shape(model: str) -> Shape:
    """The shape of a published model."""
    kind, sizes = MODELS[model]
    return shape_of(CONFIG_MAPPING[kind](**sizes))


def main(overrides: list[str]) -> None:
    print("| model | settings | scoring | update | trainer while sampling | server's weights | full response | host |")
    print("|---|---|---|---|---|---|---|---|")
    for model, recipe in RECIPES.items():
        config = load(["engine=verl", f"model={model}", "task=logic_kk", "method=rlcsd", *recipe, *overrides])
        plan = gpu_plan(shape(model), config, build_method(config))
        parts = (plan.scoring, plan.update, plan.resting, plan.served, plan.row)
        host = plan.host * engine_settings(config).gpus_per_node
        named = " ".join(f"`{one}`" for one in recipe) or "defaults"
        print(f"| `{model}` | {named} | {' | '.join(f'{part / 2**30:.1f}' for part in parts)} | {host / 2**30:.0f} |")


if __name__ == "__main__":
    main(sys.argv[1:])

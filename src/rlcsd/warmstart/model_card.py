"""The model card that is saved with a warm-started base."""

from __future__ import annotations

from .gates import GateReport
from .recipe import Recipe


def _standing(size: int, recipe: Recipe) -> str:
    if size in recipe.train_sizes:
        return ""
    share = recipe.sizes.count(size) / len(recipe.sizes)
    return f" ({share:.0%} of the warm-up; never in reinforcement learning)" if share else " (never trained on)"


def model_card(recipe: Recipe, report: GateReport, step: int) -> str:
    """Markdown: what the model is, how it was made, what it can do, what it is not for."""
    rates = "\n".join(
        f"| {size} people{_standing(size, recipe)} | {rate:.3f} |" for size, rate in report.accuracy.items()
    )
    signals = "\n".join(f"| {name} | {value:+.3f} |" for name, value in report.signals.items())
    settings = "\n".join(
        f"* {key}: {value}" for key, value in recipe.model_dump().items() if key not in ("name", "gates")
    )
    return f"""---
license: apache-2.0
library_name: transformers
tags: [reasoning, knights-and-knaves, synthetic]
---
# {recipe.name}

A very small Qwen3-architecture language model that solves Knights & Knaves puzzles some of the time and reads
reference solutions. It exists to make reinforcement-learning methods visible on a laptop. It knows nothing else.

Made by `rlcsd warmstart {recipe.name}`, supervised on synthetic puzzles only, stopped at step {step} when its gates
opened. Puzzles whose canonical form belongs to the validation or test split were never drawn.

| pass@1 at T = 1, validation puzzles | |
|---|---|
{rates}

Mean response length on the training sizes: {report.length:.0f} tokens.

What a hint does to the conclusion tokens of the model's own rollouts (nats, mean; the contrast is e_ctr of RLCSD):

| signal, by whether the rollout is correct | |
|---|---|
{signals}

## Recipe

{settings}
"""

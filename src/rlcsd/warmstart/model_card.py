"""The model card that is saved with a warm-started base."""

from __future__ import annotations

from .gates import GateReport
from .recipe import PuzzleRecipe, Recipe


def _standing(size: int, recipe: Recipe) -> str:
    if not isinstance(recipe, PuzzleRecipe) or size in recipe.train_sizes:
        return ""
    share = recipe.sizes.count(size) / len(recipe.sizes)
    return f" ({share:.0%} of the warm-up; never in reinforcement learning)" if share else " (never trained on)"


def model_card(recipe: Recipe, about: str, signals_are: str, report: GateReport, step: int) -> str:
    """Markdown: what the model is, how it was made, what it can do, what it is not for.

    `about` says what the model is, `signals_are` what the figures of the report's `signals` mean.
    """
    rates = "\n".join(
        f"| {size} {report.noun}{_standing(size, recipe)} | {rate:.3f} |" for size, rate in report.accuracy.items()
    )
    signals = "\n".join(f"| {name} | {value:+.3f} |" for name, value in report.signals.items())
    settings = "\n".join(
        f"* {key}: {value}" for key, value in recipe.model_dump().items() if key not in ("name", "gates")
    )
    origin = f" from `model.path={recipe.start}`" if recipe.start else ""
    return f"""---
license: apache-2.0
library_name: transformers
tags: [reasoning, {recipe.task.replace("_", "-")}, synthetic]
---
# {recipe.name}

{about} It exists to make reinforcement-learning methods visible on a laptop. It knows nothing else.

Made by `rlcsd warmstart {recipe.name}`{origin}, supervised on synthetic puzzles only, stopped at step {step} when
its gates opened. Puzzles whose canonical form belongs to the validation or test split were never drawn.

| pass@1 at T = 1, validation puzzles | |
|---|---|
{rates}

Mean response length on the training sizes: {report.length:.0f} tokens.

{signals_are}

| figure | |
|---|---|
{signals}

## Recipe

{settings}
"""

"""What a warm-started base is made of: a checked set of numbers, kept as YAML beside the other configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from ..config.load import first_complaint
from ..config.schema import Section
from ..errors import InputError
from ..tasks.knights_and_knaves import Recipe as PuzzleRecipe

RECIPES = Path(__file__).parents[1] / "config" / "warmstart"


class Gates(Section):
    """When the base is worth training. Rates are pass@1 at T = 1 on validation puzzles."""

    low: float = Field(0.40, ge=0, le=1, description="least pass@1 on the sizes to be trained on")
    high: float = Field(0.60, ge=0, le=1)
    unseen: float = Field(
        0.005, ge=0, description="least pass@1 on some size that reinforcement learning never trains on"
    )
    contrast: float = Field(0.02, ge=0, description="least mean e_ctr on conclusion tokens, by sign of the target")
    every: int = Field(100, ge=1, description="steps between checks")
    start: int = Field(500, ge=0, description="no check before this step")
    problems: int = Field(64, ge=8, description="validation puzzles per size")


class Recipe(Section):
    """Model, data, optimisation and gates of one warm start."""

    name: str
    seed: int = Field(0, ge=0)
    # model (Qwen3 architecture)
    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    feed_forward: int = Field(384, ge=8)
    vocabulary: int = Field(700, ge=300)
    context: int = Field(2048, ge=128)
    # data
    sizes: list[int] = Field([2, 3, 3], description="people per puzzle, drawn evenly from this list")
    train_sizes: list[int] = Field([3], description="what reinforcement learning will train on")
    unseen_sizes: list[int] = Field([4, 5], description="what neither will")
    repeats: float = Field(0.7, ge=0, le=1, description="share of examples in which people may be heard more than once")
    entries: int = Field(6, ge=2, description="the most entries of such an example")
    forms: list[str] = ["atom", "not", "and", "or"]
    people: int = Field(8, ge=2)
    hinted: float = Field(0.6, ge=0, le=1, description="share of examples with a reference")
    wrong: float = Field(0.5, ge=0, le=1, description="share of references that are wrong")
    diverging: float = Field(
        0.3, ge=0, le=1, description="hinted targets that reason on their own, then conclude as the reference"
    )
    slip: float = Field(0.12, ge=0, lt=1, description="chance of misjudging a statement in a wrong reference")
    direct: float = Field(0.7, ge=0, le=1, description="share of hinted targets in the direct manner")
    # optimisation
    batch: int = Field(16, ge=1)
    steps: int = Field(1600, ge=1, description="the most; the gates end it earlier")
    final_rate: float = Field(
        0.1, gt=0, le=1, description="share of the learning rates left after `steps`, reached linearly"
    )
    matrix_rate: float = Field(4e-3, gt=0, description="learning rate of Muon, for the matrices")
    other_rate: float = Field(3e-3, gt=0, description="learning rate of AdamW, for embeddings and norms")
    ramp: int = Field(50, ge=1)
    verdict_weight: float = Field(5.0, gt=0, description="loss weight of verdict and conclusion tokens")
    gates: Gates = Gates()


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A named recipe changed by `key=value` overrides.

    Raises:
        InputError: unknown recipe, key, or a value out of range.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"recipe={name}: unknown; known: {', '.join(sorted(p.stem for p in RECIPES.glob('*.yaml')))}")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        values: Any = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    try:
        recipe = Recipe.model_validate({"name": name, **values})
    except ValidationError as error:
        raise first_complaint(error, known=Recipe.model_fields) from None
    PuzzleRecipe(tuple(recipe.forms), wording="plain")
    for field, sizes in (
        ("sizes", recipe.sizes),
        ("train_sizes", recipe.train_sizes),
        ("unseen_sizes", recipe.unseen_sizes),
    ):
        if not sizes or not all(2 <= size <= recipe.people for size in sizes):
            raise InputError(
                f"{field}={sizes}: each size must be from 2 to people={recipe.people}, and there must be one"
            )
    if recipe.hidden % (2 * recipe.heads) or recipe.heads % recipe.kv_heads:
        raise InputError(
            f"heads={recipe.heads}: must divide hidden={recipe.hidden} into even parts and be a multiple of kv_heads"
        )
    return recipe

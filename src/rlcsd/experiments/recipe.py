"""Recipes of warm-started base models: typed settings, read from `recipes/NAME.yaml` and overridden by `key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from ..config.fields import Section
from ..errors import InputError
from ..tasks.knights_and_knaves import Recipe as Puzzles
from ..validation import as_input_error, known_keys

RECIPES = Path(__file__).parent / "recipes"


class Gates(Section):
    """Acceptance checks of a base. Rates are pass@1 at temperature 1 on validation problems."""

    low: float = Field(0.40, ge=0, le=1, description="least pass@1 on the sizes to be trained on")
    high: float = Field(0.60, ge=0, le=1)
    every: int = Field(100, ge=1, description="steps between checks")
    start: int = Field(500, ge=0, description="no check before this step")
    problems: int = Field(64, ge=8, description="validation puzzles per size")


class Recipe(Section):
    """Settings of every warm start: the model, its examples, the optimisation, and the acceptance checks."""

    name: str
    task: str = Field(description="task of the examples: knights_and_knaves or roll_call")
    seed: int = Field(0, ge=0)
    # model (Qwen3 architecture)
    start: str | None = Field(None, description="model to start from, as in model.path; null: a new one")
    new_people: bool = Field(
        False, description="add a token for each claim about people that the tokenizer of `start` does not know"
    )
    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    feed_forward: int = Field(384, ge=8)
    vocabulary: int = Field(700, ge=300)
    context: int = Field(2048, ge=128)
    # data
    hinted: float = Field(0.6, ge=0, le=1, description="share of examples with a reference solution")
    wrong: float = Field(0.5, ge=0, le=1, description="share of references that are wrong")
    slip: float = Field(0.12, ge=0, lt=1, description="probability of misjudging a statement in a wrong reference")
    direct: float = Field(0.7, ge=0, le=1, description="share of hinted targets in the direct style")
    # optimisation
    batch: int = Field(16, ge=1)
    steps: int = Field(1600, ge=1, description="upper limit; training stops when all gates pass")
    final_rate: float = Field(
        0.1, gt=0, le=1, description="learning rates after `steps`, as a share of the initial ones; decays linearly"
    )
    matrix_rate: float = Field(4e-3, gt=0, description="learning rate of Muon, for the matrices")
    other_rate: float = Field(3e-3, gt=0, description="learning rate of AdamW, for embeddings and norms")
    ramp: int = Field(50, ge=1)
    verdict_weight: float = Field(5.0, gt=0, description="loss weight of verdict and conclusion tokens")
    gates: Gates = Gates()


class PuzzleGates(Gates):
    unseen: float = Field(
        0.005, ge=0, description="least pass@1 on some size that reinforcement learning never trains on"
    )
    contrast: float = Field(0.02, ge=0, description="least mean e_ctr on conclusion tokens, by sign of the target")


class PuzzleRecipe(Recipe):
    """A base for Knights & Knaves."""

    task: Literal["knights_and_knaves"] = "knights_and_knaves"
    sizes: list[int] = Field([2, 3, 3], description="people per puzzle, drawn evenly from this list")
    train_sizes: list[int] = Field([3], description="what reinforcement learning will train on")
    unseen_sizes: list[int] = Field([4, 5], description="people per puzzle that neither trains on")
    repeats: float = Field(0.7, ge=0, le=1, description="share of examples that may repeat statements")
    entries: int = Field(6, ge=2, description="most statements of such an example")
    forms: list[str] = ["atom", "not", "and", "or"]
    people: int = Field(8, ge=2)
    diverging: float = Field(
        0.3, ge=0, le=1, description="share of hinted targets that reason on their own, then conclude as the reference"
    )
    gates: PuzzleGates = PuzzleGates()

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        Puzzles(tuple(self.forms), wording="plain")
        for field in ("sizes", "train_sizes", "unseen_sizes"):
            sizes = getattr(self, field)
            if not sizes or not all(2 <= size <= self.people for size in sizes):
                raise InputError(
                    f"{field}={sizes}: each size must be from 2 to people={self.people}, and there must be one"
                )
        return self


class RollCallGates(Gates):
    low: float = Field(0.15, ge=0, le=1, description="least pass@1 on the sizes to be trained on")
    high: float = Field(0.40, ge=0, le=1)
    decision: float = Field(0.7, ge=0, le=1, description="least share of lines with the right verdict")
    auc: float = Field(0.85, ge=0, le=1, description="least AUC of e_ctr, right against wrong decisions")
    worked: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        [0.1, 0.9], description="[low, high]: band of the share of worked lines"
    )
    style: float = Field(
        0.0, ge=0, description="least standard deviation, over rollouts, of the share of worked lines in a rollout"
    )


class RollCallRecipe(Recipe):
    """A base for the roll call."""

    task: Literal["roll_call"] = "roll_call"
    sizes: list[int] = Field([3, 4, 5, 5], description="speakers per roll call, drawn evenly from this list")
    train_sizes: list[int] = Field([5], description="what reinforcement learning will train on")
    known: int = Field(3, ge=2, le=6, description="people whose roles are given")
    people: int = Field(8, ge=3)
    diverging: float = Field(0.15, ge=0, le=1, description="share of hinted targets that judge every line on their own")
    worked: float = Field(0.3, ge=0, le=1, description="share of worked lines outside the direct style")
    talk: float = Field(
        0.25, ge=0, le=1, description="probability of an interjection before a line, outside the direct style"
    )
    gates: RollCallGates = RollCallGates()

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        most = self.people - self.known
        for field in ("sizes", "train_sizes"):
            sizes = getattr(self, field)
            if not sizes or not all(1 <= size <= most for size in sizes):
                raise InputError(
                    f"{field}={sizes}: each must be from 1 to people − known = {most}, and there must be one"
                )
        return self


_RECIPES: dict[str, type[Recipe]] = {"knights_and_knaves": PuzzleRecipe, "roll_call": RollCallRecipe}


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name, with `key=value` overrides.

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
    task = str(values.get("task", "knights_and_knaves"))
    if task not in _RECIPES:
        raise InputError(f"task={task}: a recipe is for one of {', '.join(_RECIPES)}")
    schema = _RECIPES[task]
    try:
        recipe = schema.model_validate({"name": name, **values})
    except ValidationError as error:
        raise as_input_error(error, known=known_keys(schema)) from None
    if recipe.hidden % (2 * recipe.heads) or recipe.heads % recipe.kv_heads:
        raise InputError(
            f"heads={recipe.heads}: must divide hidden={recipe.hidden} into even parts and be a multiple of kv_heads"
        )
    return recipe

"""Recipes: those of the package are valid, and bad values are refused by name."""

from __future__ import annotations

import pytest

from rlcsd.errors import InputError
from rlcsd.experiments.recipe import RECIPES, load_recipe
from rlcsd.tasks.knights_and_knaves import FORMS


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_package_are_valid(path):
    recipe = load_recipe(path.stem)
    assert recipe.name == path.stem
    assert recipe.hidden % recipe.heads == 0
    if recipe.task == "knights_and_knaves":
        assert set(recipe.forms) <= set(FORMS)
        assert not set(recipe.train_sizes) & set(recipe.unseen_sizes)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sizes=[9]"], "sizes"),
        (["task=sudoku"], "task=sudoku"),
        (["gates.worked=[0.5]"], "gates.worked"),
        (["repeats=0.5"], "repeats"),
        (["hinted=2"], "hinted=2"),
    ],
)
def test_a_bad_value_is_refused_by_name(overrides, words):
    with pytest.raises(InputError) as caught:
        load_recipe("roll_call", overrides)
    assert words in str(caught.value)

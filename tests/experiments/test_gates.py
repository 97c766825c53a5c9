"""The bases in the package pass the gates of their recipes on problems that did not choose them."""

from __future__ import annotations

import pytest
import torch

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import PACKAGED, load_network, load_tokenizer, resolve_path
from rlcsd.experiments.gates import measure_puzzles, measure_roll_call
from rlcsd.experiments.recipe import load_recipe
from rlcsd.inspection.signals import SIGNALS


def packaged(name: str):
    config = ModelConfig(path=name)
    return load_network(config, torch.device("cpu")), load_tokenizer(config)


@pytest.mark.slow  # hundreds of responses
def test_the_base_for_puzzles_passes_on_test_puzzles():
    """The gates were applied to the validation split."""
    recipe = load_recipe("kk_tiny")
    report = measure_puzzles(*packaged("tiny"), recipe, split="test", seed=7)
    assert 0.35 <= report.accuracy[3] <= 0.60, str(report)
    assert not {4, 5} & set(recipe.sizes)
    assert report.accuracy[4] > report.accuracy[5] > 0
    assert 70 <= report.length <= 160
    correct, wrong, contrast = SIGNALS
    assert report.figures[f"{correct} on correct"] > 0 > report.figures[f"{wrong} on correct"]
    assert report.figures[f"{contrast} on correct"] > 0 > report.figures[f"{contrast} on wrong"]


def test_the_base_for_roll_calls_passes_on_test_roll_calls():
    """The gates were applied to the validation split. The band is wide, as 48 problems are few."""
    recipe = load_recipe("roll_call", ["gates.problems=48", "gates.low=0.08", "gates.high=0.5", "gates.decision=0.62"])
    report = measure_roll_call(*packaged("tiny_roll_call"), recipe, split="test", groups=12, seed=7)
    assert report.passed, str(report)
    assert report.figures["contrast on right decisions"] > 0 > report.figures["contrast on wrong decisions"]


@pytest.mark.parametrize(
    ("name", "recipe", "words"), [("tiny", "kk_tiny", "never"), ("tiny_roll_call", "roll_call", "5 speakers")]
)
def test_a_packaged_base_is_small_and_carries_a_card(name, recipe, words):
    assert sum(path.stat().st_size for path in PACKAGED[name].iterdir()) < 5_000_000
    card = (PACKAGED[name] / "README.md").read_text()
    assert f"rlcsd warmstart {recipe}" in card
    assert words in card


def test_paths_that_earlier_versions_saved_still_find_their_base():
    for former, name in {"kk_tiny": "tiny", "roll_call": "tiny_roll_call"}.items():
        for root in ("/usr/lib/python3/site-packages", "src"):
            assert resolve_path(f"{root}/rlcsd/warmstart/{former}") == str(PACKAGED[name])
    assert resolve_path("elsewhere/kk_tiny") == "elsewhere/kk_tiny"

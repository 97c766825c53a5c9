"""The shipped base is worth training, and its recipe makes what it says."""

from __future__ import annotations

import random

import pytest
import torch

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import TINY, load_network, load_tokenizer
from rlcsd.experiments.examples import draw_example
from rlcsd.experiments.gates import measure_puzzles
from rlcsd.experiments.recipe import load_recipe
from rlcsd.experiments.warmstart import add_claims, warmstart
from rlcsd.prompts import TEMPLATES, hint_text, question_text, teacher_text
from rlcsd.tasks.knights_and_knaves import FORMS, NAMES, Recipe, draw_problems
from rlcsd.verifiers import get, last_boxed


def test_the_shipped_base_opens_its_gates_on_puzzles_that_chose_nothing():
    """Test-split puzzles: the gates were applied to the validation split."""
    recipe = load_recipe("kk_tiny")
    config = ModelConfig()
    report = measure_puzzles(
        load_network(config, torch.device("cpu")), load_tokenizer(config), recipe, split="test", seed=7
    )
    assert 0.35 <= report.accuracy[3] <= 0.60, str(report)
    assert not {4, 5} & set(recipe.sizes)
    assert report.accuracy[4] > report.accuracy[5] > 0
    assert 70 <= report.length <= 160
    assert report.signals["correct_gain on correct"] > 0
    assert report.signals["wrong_gain on correct"] < 0
    assert report.signals["contrast on correct"] > 0 > report.signals["contrast on wrong"]


def test_the_package_stays_small_and_carries_a_card():
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 5_000_000
    card = (TINY / "README.md").read_text()
    assert "rlcsd warmstart kk_tiny" in card
    assert "never" in card


def test_the_tokenizer_keeps_a_claim_whole_and_any_text_intact():
    tokenizer = load_tokenizer(ModelConfig())
    for name in NAMES[:8]:
        for role in ("knight", "knave"):
            assert len(tokenizer(f" {name} is a {role}", add_special_tokens=False).input_ids) == 1
    problem = draw_problems([4], 1, "test", Recipe())[0]
    for text in [problem.question, problem.solution, "Ünï ∑ 漢字\t1+1=2", *TEMPLATES.values()]:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_examples_follow_their_reference_and_keep_the_recipes_shares():
    recipe = load_recipe("kk_tiny")
    rng = random.Random(0)
    examples = [draw_example(recipe, rng) for _ in range(600)]
    hinted = [e for e in examples if "Reference Solution" in e.prompt]
    assert 0.5 < len(hinted) / 600 < 0.7
    verify = get("knights_and_knaves")
    for example in hinted:
        answer = example.prompt.split("Correct final answer: ")[1].split("\n")[0]
        assert verify(example.response, answer)
        assert last_boxed(example.prompt.split("Reference Solution:")[1]) is not None
    problem_prompt = question_text("Q")
    assert teacher_text("Q", hint_text("t", "a")).startswith(problem_prompt)


def test_a_warm_start_learns_and_saves_only_when_its_gates_open(tmp_path):
    small = [
        "hidden=32",
        "layers=2",
        "heads=2",
        "kv_heads=1",
        "feed_forward=64",
        "sizes=[2]",
        "batch=4",
        "gates.problems=8",
    ]
    lines: list[str] = []
    closed = warmstart(
        load_recipe("kk_tiny", [*small, "steps=2", "gates.start=2", "gates.every=2"]),
        tmp_path / "closed",
        tell=lines.append,
    )
    assert not closed.open
    assert not list(tmp_path.iterdir())
    never = warmstart(load_recipe("kk_tiny", [*small, "steps=1"]), tmp_path / "never", tell=lines.append)
    assert never.shut == ("never measured",)


@pytest.mark.parametrize("name", ["kk_tiny", "kk_small"])
def test_recipes_are_valid(name):
    recipe = load_recipe(name)
    assert set(recipe.forms) <= set(FORMS)
    assert recipe.hidden % recipe.heads == 0
    assert not set(recipe.train_sizes) & set(recipe.unseen_sizes)


# ------------------------------------------------------------------ test_tokenizer
# New people in an old vocabulary: one token for each claim, and nothing else changes.


def test_a_claim_about_a_new_person_becomes_one_token_like_those_about_others():
    config = ModelConfig(path="tiny_roll_call")
    network, tokenizer = load_network(config, torch.device("cpu")), load_tokenizer(config)
    old = "Suppose Alice is a knight. Bob says Alice is not a knave: false."
    ids = tokenizer(old).input_ids
    with torch.no_grad():
        before = network.model(torch.tensor([ids])).logits
    text = "Suppose Zoey is a knight. Zoey says Zoey is not a knave. Bob says Alice is a knight."
    size = len(tokenizer)
    assert add_claims(network.model, tokenizer, [text]) == 3
    assert add_claims(network.model, tokenizer, [text]) == 0
    assert tokenizer(old).input_ids == ids
    new = tokenizer(text).input_ids
    assert tokenizer.decode(new) == text
    assert [tokenizer.decode([token]) for token in new if token >= size] == [
        " Zoey is a knight",
        " Zoey says",
        " Zoey is not a knave",
    ]
    with torch.no_grad():
        after = network.model(torch.tensor([ids])).logits
    torch.testing.assert_close(after[..., :size], before)
    assert after.shape[-1] == size + 3  # the head has them too, and their embeddings are those of such a claim
    rows = network.model.get_input_embeddings().weight.detach()
    knight, says = (tokenizer(f" Zoey {words}").input_ids[0] for words in ("is a knight", "says"))
    likes = {
        token: torch.stack(
            [rows[tokenizer(f" {name} {words}").input_ids[0]] for name in ("Alice", "Bob", "Emma")]
        ).mean(0)
        for token, words in ((knight, "is a knight"), (says, "says"))
    }
    for token, other in ((knight, says), (says, knight)):
        assert (rows[token] - likes[token]).norm() < (rows[token] - likes[other]).norm()

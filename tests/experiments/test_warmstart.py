"""Tokenizer, loss weights and training of the warm start."""

from __future__ import annotations

import torch

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_network, load_tokenizer
from rlcsd.experiments.recipe import load_recipe
from rlcsd.experiments.warmstart import add_claims, roll_call_weights, warmstart
from rlcsd.prompts import TEMPLATES
from rlcsd.tasks.knights_and_knaves import NAMES, Recipe, draw_problems


def test_the_tokenizer_keeps_a_claim_whole_and_any_text_intact():
    tokenizer = load_tokenizer(ModelConfig())
    for name in NAMES[:8]:
        for role in ("knight", "knave"):
            assert len(tokenizer(f" {name} is a {role}", add_special_tokens=False).input_ids) == 1
    problem = draw_problems([4], 1, "test", Recipe())[0]
    for text in [problem.question, problem.solution, "Ünï ∑ 漢字\t1+1=2", *TEMPLATES.values()]:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


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


def test_the_sign_of_a_worked_line_weighs_as_much_as_a_verdict():
    pieces = [
        "Bob says",
        " Ann is a knight",
        ";",
        " Ann is a knave",
        ": false",
        ".",
        " \\boxed{",
        " Bob is a knave",
        "}",
    ]
    text, offsets = "", []
    for piece in pieces:
        offsets.append((len(text), len(text) + len(piece)))
        text += piece
    assert roll_call_weights(5.0, text, offsets) == [1.0, 1.0, 5.0, 1.0, 5.0, 1.0, 1.0, 2.0, 1.0]


def test_a_warm_start_whose_gates_do_not_pass_saves_nothing(tmp_path):
    size = ["hidden=32", "layers=2", "heads=2", "kv_heads=1", "feed_forward=64", "sizes=[2]", "batch=4"]
    checked = load_recipe("kk_tiny", [*size, "gates.problems=8", "steps=2", "gates.start=2", "gates.every=2"])
    lines: list[str] = []
    report = warmstart(checked, tmp_path / "checked", log=lines.append)
    assert not report.passed
    assert lines[-1].startswith("step 2: pass@1")
    assert warmstart(load_recipe("kk_tiny", [*size, "steps=1"]), tmp_path / "never").failures == ("never measured",)
    assert not list(tmp_path.iterdir())


def test_a_warm_start_whose_gates_pass_saves_a_model_with_a_card(tmp_path):
    lenient = ["low=0", "high=1", "decision=0", "auc=0", "worked=[0,1]", "start=1", "every=1", "problems=8"]
    recipe = load_recipe(
        "roll_call", ["start=tiny_roll_call", "steps=1", "batch=2", *(f"gates.{gate}" for gate in lenient)]
    )
    assert warmstart(recipe, tmp_path / "base", log=lambda line: None).passed
    config = ModelConfig(path=str(tmp_path / "base"))
    assert load_network(config, torch.device("cpu")).device.type == "cpu"
    assert len(load_tokenizer(config)) == len(load_tokenizer(ModelConfig(path="tiny_roll_call")))
    assert "`rlcsd warmstart roll_call` from `model.path=tiny_roll_call`" in (tmp_path / "base/README.md").read_text()

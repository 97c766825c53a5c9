"""The shipped bases of the roll call, their recipes and their examples."""

from __future__ import annotations

import random

import pytest
import torch

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import PACKAGED, load_network, load_tokenizer
from rlcsd.errors import InputError
from rlcsd.experiments.decision_labels import decisions, read
from rlcsd.experiments.examples import draw_roll_call
from rlcsd.experiments.gates import measure_roll_call
from rlcsd.experiments.recipe import load_recipe
from rlcsd.experiments.roll_call import parse_question, split_of
from rlcsd.experiments.warmstart import roll_call_weights
from rlcsd.run import Run
from rlcsd.verifiers import get

BASES = ["roll_call"]


@pytest.mark.parametrize("name", BASES)
def test_the_shipped_base_opens_its_gates_on_roll_calls_that_chose_nothing(name):
    """Test-split roll calls: the gates were applied to the validation split. The band is wide, as 48 problems are few."""
    recipe = load_recipe(name, ["gates.problems=48", "gates.low=0.08", "gates.high=0.5", "gates.decision=0.62"])
    config = ModelConfig(path=f"tiny_{name}")
    network = load_network(config, torch.device("cpu"))
    report = measure_roll_call(network, load_tokenizer(config), recipe, split="test", groups=12, seed=7)
    assert report.open, str(report)
    assert report.signals["contrast on right decisions"] > 0 > report.signals["contrast on wrong decisions"]


@pytest.mark.parametrize("name", BASES)
def test_the_package_stays_small_and_carries_a_card(name):
    folder = PACKAGED[f"tiny_{name}"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    card = (folder / "README.md").read_text()
    assert f"rlcsd warmstart {name}" in card
    assert "5 speakers" in card


def test_examples_follow_their_reference_in_the_direct_manner_and_draw_from_training_alone():
    recipe = load_recipe("roll_call", ["diverging=0", "direct=1"])
    rng = random.Random(0)
    verify, wrong, hinted, worked = get("knights_and_knaves"), 0, 0, 0
    for _ in range(300):
        example = draw_roll_call(recipe, rng)
        question = example.prompt[: example.prompt.index("?") + 1]
        roll = parse_question(question)
        assert split_of(roll) == "train"
        lines = read(roll, example.response).lines
        assert len(lines) == len(roll.speakers)
        if "Reference Solution" not in example.prompt:
            worked += sum(line.worked for line in lines)
            assert all(right for right, _ in decisions(roll, example.response))
            continue
        hinted += 1
        answer = example.prompt.split("Correct final answer: ")[1].split("\n")[0]
        assert verify(example.response, answer)
        assert not any(line.worked for line in lines)
        wrong += not all(line.right for line in lines)
    assert 0.4 < hinted / 300 < 0.6
    assert 0.45 < wrong / hinted < 0.75
    assert worked


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
def test_a_bad_recipe_ends_in_a_sentence(overrides, words):
    with pytest.raises(InputError) as caught:
        load_recipe("roll_call", overrides)
    assert words in str(caught.value)


def test_a_step_logs_what_the_task_tells_of_style(tmp_path):
    from rlcsd.config.load import load

    config = load([
        "task=roll_call", "method=grpo", "steps=1", "prompts_per_step=4", "prompts_per_update=4", "group_size=4",
        "task.train_per_size=8", "task.eval_per_size=2", f"output_dir={tmp_path}", "trackers=[]", "engine.threads=1",
    ])  # fmt: skip
    metrics = Run(config).trainer.step(1).metrics
    assert 0 < metrics["style/worked"] < 1
    assert 0.5 < metrics["style/right_verdicts"] < 1
    assert metrics["style/interjections"] > 0

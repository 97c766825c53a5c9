"""Labels of decisions against what was written, and the AUC of a signal on them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd import verifiers
from rlcsd.config.schema import ModelConfig
from rlcsd.decoding import token_offsets
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.experiments.decision_labels import auc, decision_kinds, find_decisions, token_labels
from rlcsd.experiments.roll_call import (
    RollCall,
    RollCallSettings,
    Style,
    correct_judgements,
    draw_problems,
    draw_roll,
    judgements_with_slips,
    read_response,
    roll_call_solution,
)
from rlcsd.tasks.knights_and_knaves import NAMES

seeds = st.integers(0, 100_000)


def random_roll(seed: int) -> RollCall:
    return draw_roll(random.Random(seed), 5, NAMES[:12])


@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_a_solution_without_mistakes_has_right_decisions_alone(seed, worked, talk):
    roll = random_roll(seed)
    text = roll_call_solution(roll, correct_judgements(roll), Style(worked, talk), random.Random(seed))
    found = find_decisions(roll, text)
    facts = sum(len(line.facts) for line in read_response(roll, text).lines)
    assert [right for right, _ in found] == [True] * (5 + 5 + facts)
    roles = (
        f"{name} is a {'knight' if true else 'knave'}" for name, true in zip(roll.speakers, roll.truths, strict=True)
    )
    assert verifiers.get("knights_and_knaves")(text, ", ".join(roles))


@given(seeds)
def test_each_mistake_is_labelled_where_it_was_made(seed):
    rng = random.Random(seed)
    roll = random_roll(seed)
    lines = judgements_with_slips(roll, 0.6, rng)
    text = roll_call_solution(roll, lines, Style(worked=1.0, talk=0.3), rng)
    reading = read_response(roll, text)
    for line, judgement, truth, statement in zip(reading.lines, lines, roll.truths, roll.statements, strict=True):
        assert line.worked
        assert line.verdict == judgement.truth
        assert line.right == (judgement.truth == truth)
        people = list(dict.fromkeys(part.person for part in statement.parts))
        assert [right for right, _ in line.facts] == [judgement.roles[p] == roll.roles[p] for p in people]
    box = text.index("\\boxed")
    assert [right for right, end in find_decisions(roll, text) if end > box] == [
        True
    ] * 5  # the box says what the lines say


def test_the_box_is_measured_by_the_lines_up_to_its_first_departure():
    roll = random_roll(3)
    right = roll_call_solution(roll, correct_judgements(roll))
    body, _, box = right.partition("\\boxed{ ")
    claims = box.removesuffix("}.").split(", ")
    third = claims[2].replace("knight", "?").replace("knave", "knight").replace("?", "knave")
    changed = f"{body}\\boxed{{ {', '.join([*claims[:2], third, *claims[3:]])}}}."
    start = len(body)
    assert [label for label, end in find_decisions(roll, changed) if end > start] == [True, True, False]


def test_labels_stand_at_the_tokens_that_decide():
    tokenizer = load_tokenizer(ModelConfig())
    roll = random_roll(11)
    lines = judgements_with_slips(roll, 0.5, random.Random(1))
    ids = tokenizer(roll_call_solution(roll, lines, Style(worked=1.0)), add_special_tokens=False).input_ids
    text, offsets = token_offsets(tokenizer, ids)
    labels = token_labels(roll, text, offsets)
    pieces = [text[start:end] for start, end in offsets]
    verdicts = [label for label, piece in zip(labels, pieces, strict=True) if piece in (": true", ": false")]
    assert verdicts == [1 if line.truth == truth else -1 for line, truth in zip(lines, roll.truths, strict=True)]
    assert not any(label for label, piece in zip(labels, pieces, strict=True) if piece in (".", ";", ",", " or", "\n"))


@pytest.mark.parametrize(
    "text", ["", "\\boxed", "Nobody says Ann is a knight: true.", "Wait. \\boxed{Zoe is a knight}"]
)
def test_a_text_about_others_has_no_right_decision(text):
    assert not any(right for right, _ in find_decisions(random_roll(1), text))


values = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(values, values)
def test_the_auc_counts_pairs(positive, negative):
    won = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative)
    found = auc(np.array(positive, dtype=float), np.array(negative, dtype=float))
    assert math.isclose(found, won / len(positive) / len(negative))


def test_without_one_of_the_two_there_is_no_auc():
    assert math.isnan(auc(np.zeros(0), np.ones(3)))


def test_kinds_name_the_labels_of_a_response():
    problem = draw_problems([2], 1, "val", RollCallSettings())[0]
    assert problem.solution is not None
    text = problem.solution
    offsets = [(i, i + 1) for i in range(len(text))]
    kinds = decision_kinds(problem, text, offsets)
    assert kinds.count("right") == 4  # two verdicts, two claims in the box
    assert kinds.count("wrong") == 0
    turned = text.replace(": true.", ": ?.").replace(": false.", ": true.").replace(": ?.", ": false.")
    assert decision_kinds(problem, turned, [(i, i + 1) for i in range(len(turned))]).count("wrong") >= 2

"""Roll calls against a slow reading of the same words, and their labels against what was written."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd import verifiers
from rlcsd.config.load import load
from rlcsd.config.schema import ModelConfig
from rlcsd.decoding import token_offsets
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.errors import InputError
from rlcsd.experiments.decision_labels import decisions, read, style_figures, token_labels
from rlcsd.experiments.roll_call import (
    ROLL_CALL_FORMS,
    Manner,
    Roll,
    Supply,
    canonical_form,
    draw_problems,
    draw_roll,
    judgements,
    parse_question,
    roll_call_question,
    roll_call_solution,
    slipped,
    split_of,
)
from rlcsd.tasks.knights_and_knaves import NAMES, Atom, Statement
from rlcsd.tasks.registry import build_task

seeds = st.integers(0, 100_000)


def drawn(seed: int, speakers: int = 5, known: int = 3) -> Roll:
    return draw_roll(random.Random(seed), speakers, NAMES[:12], known, ROLL_CALL_FORMS)


def judged(question: str) -> dict[str, bool]:
    """Who is a knight, read from the words of the question alone."""
    facts, _, told = question.removeprefix("Known: ").partition(". ")
    roles = {fact.split()[0]: fact.split()[-1] == "knight" for fact in facts.split(", ")}

    def claim(words: str) -> bool:
        name, _, rest = words.partition(" is ")
        return (roles[name] == rest.endswith("knight")) != rest.startswith("not ")

    found = {}
    for sentence in told.split(". ")[:-1]:
        speaker, _, said = sentence.partition(" says ")
        if " and " in said:
            found[speaker] = all(map(claim, said.split(" and ")))
        else:
            found[speaker] = any(map(claim, said.split(" or ")))
    return found


@given(seeds, st.integers(1, 8), st.integers(2, 4))
def test_the_answer_is_what_the_words_of_the_question_say(seed, speakers, known):
    roll = drawn(seed, speakers, known)
    assert judged(roll_call_question(roll)) == dict(zip(roll.speakers, roll.truths, strict=True))
    assert parse_question(roll_call_question(roll)) == roll


@pytest.mark.parametrize("text", ["", "Who is a knight?", "Known: Ann is a knight. Who is a knight?"])
def test_another_question_is_no_roll_call(text):
    with pytest.raises(ValueError, match="roll call"):
        parse_question(text)


@given(seeds)
def test_the_form_ignores_names_order_sides_and_wording(seed):
    rng = random.Random(seed)
    roll = drawn(seed)
    order = rng.sample(range(3), 3)
    moved = []
    for statement in rng.sample(roll.statements, 5):
        parts = tuple(Atom(order.index(part.person), part.knight) for part in statement.parts)
        if statement.form in ("atom", "not"):  # "is not a knight" says "is a knave"
            parts = (Atom(parts[0].person, not parts[0].knight),)
            moved.append(Statement("not" if statement.form == "atom" else "atom", parts))
        else:
            moved.append(Statement(statement.form, parts[::-1]))
    other = Roll(("X", "Y", "Z"), tuple(roll.roles[person] for person in order), tuple("abcde"), tuple(moved))
    assert canonical_form(other) == canonical_form(roll)


def meaning(roll: Roll) -> set[tuple]:
    """The roll call under every renaming: known roles, and what is said as truth under all roles, order apart."""
    renamed = set()
    for order in itertools.permutations(range(3)):
        said = []
        for statement in roll.statements:
            table = []
            for world in itertools.product([True, False], repeat=3):
                values = [(world[order[part.person]] == part.knight) for part in statement.parts]
                one = not values[0] if statement.form == "not" else values[0]
                table.append(one if len(values) == 1 else all(values) if statement.form == "and" else any(values))
            said.append(tuple(table))
        renamed.add((tuple(roll.roles[order.index(place)] for place in range(3)), tuple(sorted(said))))
    return renamed


def test_roll_calls_share_a_form_exactly_if_a_renaming_makes_them_the_same():
    by_meaning: dict[tuple, str] = {}
    for seed in range(500):
        roll = drawn(seed, speakers=2)
        key = min(meaning(roll))
        assert by_meaning.setdefault(key, canonical_form(roll)) == canonical_form(roll)
    assert len(set(by_meaning.values())) == len(by_meaning)
    assert len(by_meaning) < 500  # some were indeed the same


def test_splits_are_disjoint_whatever_the_seed_and_a_seed_draws_the_same_again():
    sets = {
        (split, seed): draw_problems([3, 5], 40, split, Supply(), seed)
        for split in ("train", "val", "test")
        for seed in (0, 1)
    }
    forms = {key: {problem.extra["form"] for problem in problems} for key, problems in sets.items()}
    for a, b in itertools.combinations(forms, 2):
        assert a[0] == b[0] or not forms[a] & forms[b]
    assert all(len(found) == 80 for found in forms.values())
    assert draw_problems([3, 5], 40, "val", Supply(), 1) == sets["val", 1]
    splits = [split_of(drawn(seed)) for seed in range(1000)]
    assert 0.75 < splits.count("train") / 1000 < 0.85


def test_the_supply_ends_in_a_sentence():
    with pytest.raises(InputError, match=r"only \d+ essentially different roll calls of 1 speakers"):
        draw_problems([1], 10_000, "test", Supply())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.known=9"], "task.known=9"),
        (["task.people=6"], "as many names"),
        (["task.forms=[iff]"], "task.forms"),
        (["task.unseen_sizes=[5]", "task.unseen_known=3"], "training size"),
        (["task.train_sizes=[0]"], "at least one speaker"),
        (["task.speakers=5"], "task.speakers: unknown key"),
    ],
)
def test_bad_parameters_end_in_a_sentence(overrides, words):
    with pytest.raises(InputError, match=words):
        build_task(load(["task=roll_call", *overrides]).task)


def test_the_task_has_all_its_sets_and_a_base_of_its_own():
    config = load(["task=roll_call", "task.train_per_size=6", "task.eval_per_size=3"])
    assert config.model.path == "tiny_roll_call"
    assert load(["model=smollm2_135m", "task=roll_call"]).model.path.endswith("SmolLM2-135M-Instruct")
    task = build_task(config.task)
    assert {name: len(problems) for name, problems in task.evaluations.items()} == {"seen_sizes": 3, "unseen_sizes": 3}
    assert [len(parse_question(p.question).known) for p in task.evaluations["unseen_sizes"]] == [4, 4, 4]
    for problem in task.train:
        assert task.verifier(problem.solution, problem.answer)


# ------------------------------------------------------------------ labels


@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_a_solution_without_mistakes_has_right_decisions_alone(seed, worked, talk):
    roll = drawn(seed)
    text = roll_call_solution(roll, judgements(roll), Manner(worked, talk), random.Random(seed))
    found = decisions(roll, text)
    facts = sum(len(line.facts) for line in read(roll, text).lines)
    assert [right for right, _ in found] == [True] * (5 + 5 + facts)
    assert verifiers.get("knights_and_knaves")(
        text,
        ", ".join(
            f"{name} is a {'knight' if truth else 'knave'}"
            for name, truth in zip(roll.speakers, roll.truths, strict=True)
        ),
    )


@given(seeds)
def test_each_mistake_is_labelled_where_it_was_made(seed):
    rng = random.Random(seed)
    roll = drawn(seed)
    lines = slipped(roll, 0.6, rng)
    text = roll_call_solution(roll, lines, Manner(worked=1.0, talk=0.3), rng)
    reading = read(roll, text)
    for line, judgement, truth, statement in zip(reading.lines, lines, roll.truths, roll.statements, strict=True):
        assert line.worked
        assert line.verdict == judgement.truth
        assert line.right == (judgement.truth == truth)
        people = list(dict.fromkeys(part.person for part in statement.parts))
        assert [right for right, _ in line.facts] == [judgement.roles[p] == roll.roles[p] for p in people]
    box = text.index("\\boxed")
    assert [right for right, end in decisions(roll, text) if end > box] == [True] * 5  # the box says what the lines say


def test_the_box_is_measured_by_the_lines_up_to_its_first_departure():
    roll = drawn(3)
    right = roll_call_solution(roll, judgements(roll))
    body, _, box = right.partition("\\boxed{ ")
    claims = box.removesuffix("}.").split(", ")
    third = claims[2].replace("knight", "?").replace("knave", "knight").replace("?", "knave")
    changed = f"{body}\\boxed{{ {', '.join([*claims[:2], third, *claims[3:]])}}}."
    start = len(body)
    assert [label for label, end in decisions(roll, changed) if end > start] == [True, True, False]


def test_labels_stand_at_the_tokens_that_decide():
    tokenizer = load_tokenizer(ModelConfig())
    roll = drawn(11)
    lines = slipped(roll, 0.5, random.Random(1))
    ids = tokenizer(roll_call_solution(roll, lines, Manner(worked=1.0)), add_special_tokens=False).input_ids
    text, offsets = token_offsets(tokenizer, ids)
    labels = token_labels(roll, text, offsets)
    pieces = [text[start:end] for start, end in offsets]
    verdicts = [label for label, piece in zip(labels, pieces, strict=True) if piece in (": true", ": false")]
    assert verdicts == [1 if line.truth == truth else -1 for line, truth in zip(lines, roll.truths, strict=True)]
    assert not any(label for label, piece in zip(labels, pieces, strict=True) if piece in (".", ";", ",", " or", "\n"))


def test_anything_can_be_read():
    problem = draw_problems([5], 1, "val", Supply())[0]
    roll = parse_question(problem.question)
    for text in ("", "\\boxed", "Nobody says Ann is a knight: true.", "Wait. Hmm. \\boxed{Zoe is a knight}"):
        read(roll, text)
        assert all(not right for right, _ in decisions(roll, text))
    figures = style_figures(
        problem, f"Wait. {roll.speakers[0]} says x: true. Hmm. {roll.speakers[1]} says x; y: false."
    )
    assert figures["style/worked"].value == 0.5
    assert figures["style/interjections"].value == 1.0
    assert figures["style/worked"].weight == 2
    assert style_figures(problem, "")["style/worked"].weight == 0  # and is then not logged

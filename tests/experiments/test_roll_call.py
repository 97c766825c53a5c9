"""Roll calls: question, answer and solution against a slow reading of the same words; splits; parameters."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.config.load import load
from rlcsd.errors import InputError
from rlcsd.experiments.roll_call import (
    RollCall,
    RollCallSettings,
    canonical_form,
    draw_problems,
    draw_roll,
    parse_question,
    read_response,
    roll_call_question,
    split_of,
    style_metrics,
)
from rlcsd.run import Run
from rlcsd.tasks.knights_and_knaves import NAMES, Atom, Statement
from rlcsd.tasks.registry import build_task

seeds = st.integers(0, 100_000)


def random_roll(seed: int, speakers: int = 5, known: int = 3) -> RollCall:
    return draw_roll(random.Random(seed), speakers, NAMES[:12], known)


def roles_by_words(question: str) -> dict[str, bool]:
    """Who is a knight, read_response from the words of the question alone."""
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
    roll = random_roll(seed, speakers, known)
    assert roles_by_words(roll_call_question(roll)) == dict(zip(roll.speakers, roll.truths, strict=True))
    assert parse_question(roll_call_question(roll)) == roll


@pytest.mark.parametrize("text", ["", "Who is a knight?", "Known: Ann is a knight. Who is a knight?"])
def test_another_question_is_no_roll_call(text):
    with pytest.raises(ValueError, match="roll call"):
        parse_question(text)


@given(seeds)
def test_the_form_ignores_names_order_sides_and_wording(seed):
    rng = random.Random(seed)
    roll = random_roll(seed)
    order = rng.sample(range(3), 3)
    moved = []
    for statement in rng.sample(roll.statements, 5):
        parts = tuple(Atom(order.index(part.person), part.knight) for part in statement.parts)
        if statement.form in ("atom", "not"):  # "is not a knight" says "is a knave"
            parts = (Atom(parts[0].person, not parts[0].knight),)
            moved.append(Statement("not" if statement.form == "atom" else "atom", parts))
        else:
            moved.append(Statement(statement.form, parts[::-1]))
    other = RollCall(("X", "Y", "Z"), tuple(roll.roles[person] for person in order), tuple("abcde"), tuple(moved))
    assert canonical_form(other) == canonical_form(roll)


def meaning(roll: RollCall) -> set[tuple]:
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
        renamed.add((tuple(roll.roles[order.index(index)] for index in range(3)), tuple(sorted(said))))
    return renamed


def test_roll_calls_share_a_form_exactly_if_a_renaming_makes_them_the_same():
    by_meaning: dict[tuple, str] = {}
    for seed in range(500):
        roll = random_roll(seed, speakers=2)
        key = min(meaning(roll))
        assert by_meaning.setdefault(key, canonical_form(roll)) == canonical_form(roll)
    assert len(set(by_meaning.values())) == len(by_meaning)
    assert len(by_meaning) < 500  # some were indeed the same


def test_splits_are_disjoint_whatever_the_seed_and_a_seed_draws_the_same_again():
    sets = {
        (split, seed): draw_problems([3, 5], 40, split, RollCallSettings(), seed)
        for split in ("train", "val", "test")
        for seed in (0, 1)
    }
    forms = {key: {problem.extra["form"] for problem in problems} for key, problems in sets.items()}
    for a, b in itertools.combinations(forms, 2):
        assert a[0] == b[0] or not forms[a] & forms[b]
    assert all(len(found) == 80 for found in forms.values())
    assert draw_problems([3, 5], 40, "val", RollCallSettings(), 1) == sets["val", 1]
    splits = [split_of(random_roll(seed)) for seed in range(1000)]
    assert 0.75 < splits.count("train") / 1000 < 0.85


def test_too_few_different_roll_calls_are_refused():
    with pytest.raises(InputError, match=r"only \d+ essentially different roll calls of 1 speakers"):
        draw_problems([1], 10_000, "test", RollCallSettings())


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
def test_bad_parameters_are_refused_by_name(overrides, words):
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


def test_any_text_can_be_read_as_a_response():
    problem = draw_problems([5], 1, "val", RollCallSettings())[0]
    roll = parse_question(problem.question)
    for text in ("", "\\boxed", "Nobody says Ann is a knight: true.", "Wait. Hmm. \\boxed{Zoe is a knight}"):
        assert not any(line.right for line in read_response(roll, text).lines)
    figures = style_metrics(
        problem, f"Wait. {roll.speakers[0]} says x: true. Hmm. {roll.speakers[1]} says x; y: false."
    )
    assert figures["style/worked"].value == 0.5
    assert figures["style/interjections"].value == 1.0
    assert figures["style/worked"].weight == 2
    assert style_metrics(problem, "")["style/worked"].weight == 0  # and is then not logged


def test_a_step_logs_what_the_task_tells_of_style(tmp_path):
    config = load([
        "task=roll_call", "method=grpo", "steps=1", "prompts_per_step=4", "prompts_per_update=4", "group_size=4",
        "task.train_per_size=8", "task.eval_per_size=2", f"output_dir={tmp_path}", "trackers=[]", "engine.threads=1",
    ])  # fmt: skip
    metrics = Run(config).trainer.step(1).metrics
    assert 0 < metrics["style/worked"] < 1
    assert 0.5 < metrics["style/right_verdicts"] < 1
    assert metrics["style/interjections"] > 0

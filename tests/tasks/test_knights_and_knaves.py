"""Puzzles: one solution, stated truly, solved in prose, and never in two splits."""

from __future__ import annotations

import hashlib
import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd import verifiers
from rlcsd.errors import InputError
from rlcsd.tasks.knights_and_knaves import (
    FORMS,
    NAMES,
    Atom,
    Puzzle,
    Recipe,
    Statement,
    canonical_form,
    draw_problems,
    draw_puzzle,
    solutions,
)
from rlcsd.tasks.knights_and_knaves.puzzle_data import split_of
from rlcsd.tasks.knights_and_knaves.puzzle_text import puzzle_text, search, statement_text
from rlcsd.tasks.knights_and_knaves.puzzles import draw_statement


def truth(statement: Statement, roles) -> bool:
    values = [roles[part.person] if part.knight else not roles[part.person] for part in statement.parts]
    return {
        "atom": lambda a: a,
        "not": lambda a: not a,
        "and": lambda a, b: a and b,
        "or": lambda a, b: a or b,
        "if": lambda a, b: b if a else True,
        "iff": lambda a, b: a is b,
    }[statement.form](*values)


def consistent(statements) -> list[tuple[bool, ...]]:
    return [
        roles
        for roles in itertools.product([True, False], repeat=len(statements))
        if all(truth(s, roles) == roles[speaker] for speaker, s in enumerate(statements))
    ]


@given(size=st.integers(2, 6), seed=st.integers(0, 10_000))
def test_a_puzzle_has_exactly_one_solution(size, seed):
    puzzle, roles = draw_puzzle(random.Random(seed), size, NAMES)
    assert consistent(puzzle.statements) == [roles] == solutions(puzzle.statements)
    assert len(set(puzzle.names)) == size


@pytest.mark.parametrize("size", [2, 5, 8, 11])
def test_the_worked_solution_ends_in_the_right_box(size):
    problem = draw_problems([size], 3, "train", Recipe())[0]
    assert verifiers.get("knights_and_knaves")(problem.solution, problem.answer)
    assert problem.solution.count("\\boxed") == 1
    assert problem.group == f"{size} people"


@given(seed=st.integers(0, 10_000), size=st.integers(2, 6))
def test_every_case_of_a_worked_solution_is_judged_truly_and_skips_nothing_possible(seed, size):
    puzzle, roles = draw_puzzle(random.Random(seed), size, NAMES)
    cases = search(puzzle)
    for case in cases:
        assert list(case.truths) == [truth(s, case.roles) for s in puzzle.statements[: len(case.truths)]]
        assert case.accepted == (case.roles == roles)
    assert [c.roles for c in cases] == sorted({c.roles for c in cases}, reverse=True)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 7))
def test_the_search_is_the_same_with_slips_that_never_happen(seed, size):
    puzzle, _ = draw_puzzle(random.Random(seed), size, NAMES)
    assert search(puzzle) == search(puzzle, 0.0, random.Random(0))


@given(seed=st.integers(0, 10_000), size=st.integers(2, 16), speaker=st.integers(0, 1))
def test_a_statement_is_drawn_as_the_standard_library_would(seed, size, speaker):
    rng, ours = random.Random(seed), random.Random(seed)
    for _ in range(5):
        form = rng.choice(FORMS)
        others = [person for person in range(size) if person != speaker]
        people = [rng.choice(others)] if form in ("atom", "not") else rng.sample(range(size), 2)
        statement = Statement(form, tuple(Atom(person, rng.random() < 0.5) for person in people))
        assert draw_statement(ours, speaker, size, FORMS) == statement
    assert rng.random() == ours.random()


@pytest.mark.parametrize(
    ("split", "varied", "plain"),
    [
        ("train", "b307a8d5f1d3f936", "f22a7c8dc0afb4af"),
        ("val", "a27a745abe571d72", "18188e6cba876498"),
        ("test", "c8900957bd72b31f", "316f5ec2b53007ee"),
    ],
)
def test_a_seed_gives_the_puzzles_that_it_always_gave(split, varied, plain):
    """Splits and published results depend on it: whoever changes the generator on purpose changes these numbers."""

    def digest(problems) -> str:
        rows = [[p.question, p.answer, p.solution, p.group, dict(p.extra)] for p in problems]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    assert digest(draw_problems([3, 4, 5, 8, 10], 12, split, Recipe(), 7)) == varied
    recipe = Recipe(("atom", "iff", "or"), wording="plain")
    assert digest(draw_problems([4, 6], 8, split, recipe, 1)) == plain


@given(seed=st.integers(0, 10_000), size=st.integers(2, 5))
def test_the_canonical_form_ignores_names_order_and_sides(seed, size):
    rng = random.Random(seed)
    puzzle, _ = draw_puzzle(rng, size, NAMES)
    order = rng.sample(range(size), size)
    moved: list = [None] * size
    for speaker, s in enumerate(puzzle.statements):
        parts = tuple(Atom(order[p.person], p.knight) for p in s.parts)
        moved[order[speaker]] = Statement(s.form, parts[::-1] if s.form in ("and", "or", "iff") else parts)
    assert canonical_form(moved) == canonical_form(puzzle.statements)


def test_the_canonical_form_tells_puzzles_apart():
    def form(*claims):
        return canonical_form([Statement("atom", (Atom(*claim),)) for claim in claims])

    assert form((1, True), (0, True)) != form((1, True), (0, False))
    assert form((1, True), (2, True), (0, True)) != form((1, True), (0, True), (0, True))


def meaning(statements) -> set[tuple]:
    """The puzzle under every renaming: for each, what each person says as the truth under all roles, written plainly."""
    size = len(statements)
    everyone = list(itertools.product([True, False], repeat=size))
    renamed = set()
    for order in itertools.permutations(range(size)):
        said: list = [None] * size
        for speaker, statement in enumerate(statements):
            table = tuple(truth(statement, [roles[order[person]] for person in range(size)]) for roles in everyone)
            said[order[speaker]] = table
        renamed.add(tuple(said))
    return renamed


@given(seed=st.integers(0, 100_000), size=st.integers(2, 4))
def test_the_canonical_form_is_shared_by_all_wordings_of_the_same_truth_tables(seed, size):
    rng = random.Random(seed)
    puzzle, _ = draw_puzzle(rng, size, NAMES)
    reworded = []
    for statement in puzzle.statements:
        same = [
            other
            for form, length in [("atom", 1), ("not", 1), ("and", 2), ("or", 2), ("if", 2), ("iff", 2)]
            for people in itertools.permutations(range(size), length)
            for roles in itertools.product([True, False], repeat=length)
            if all(
                truth(other := Statement(form, tuple(map(Atom, people, roles))), world) == truth(statement, world)
                for world in itertools.product([True, False], repeat=size)
            )
        ]
        assert same
        reworded.append(rng.choice(same))
    assert canonical_form(reworded) == canonical_form(puzzle.statements)


def test_puzzles_of_three_people_share_a_form_exactly_if_a_renaming_makes_them_the_same():
    rng = random.Random(5)
    drawn = [draw_puzzle(rng, 3, NAMES)[0].statements for _ in range(400)]
    by_meaning: dict[tuple, str] = {}
    for statements in drawn:
        key = min(meaning(statements))
        assert by_meaning.setdefault(key, canonical_form(statements)) == canonical_form(statements)
    assert len(set(by_meaning.values())) == len(by_meaning)


def test_no_held_out_puzzle_of_the_default_task_has_a_twin_in_training():
    from rlcsd.config.load import load
    from rlcsd.tasks.registry import build_task

    task = build_task(load().task)
    train = {problem.extra["form"] for problem in task.train}
    assert not any(problem.extra["form"] in train for problems in task.evaluations.values() for problem in problems)
    assert len(train) == len(task.train)


def test_splits_are_disjoint_whatever_the_seed_and_reproducible_whatever_the_processes():
    drawn = {
        (split, seed): draw_problems([3, 4], 40, split, Recipe(), seed)
        for split in ("train", "val", "test")
        for seed in (0, 1)
    }
    forms = {key: {p.extra["form"] for p in problems} for key, problems in drawn.items()}
    for a, b in itertools.combinations(forms, 2):
        if a[0] != b[0]:
            assert not forms[a] & forms[b]
    assert all(len(forms[key]) == 80 for key in forms)
    assert drawn["train", 0] != drawn["train", 1]
    assert draw_problems([3, 4], 40, "train", Recipe(), 0, processes=2) == drawn["train", 0]


def test_the_supply_of_small_puzzles_ends_in_a_sentence():
    with pytest.raises(InputError, match="essentially different puzzles of 2 people"):
        draw_problems([2], 10_000, "test", Recipe(("and", "or")))
    with pytest.raises(InputError, match="no puzzle of 2 people"):
        draw_problems([2], 1, "test", Recipe(("atom", "not")))


def test_the_shares_of_the_splits_are_eighty_ten_ten():
    rng = random.Random(0)
    splits = [split_of(draw_puzzle(rng, 5, NAMES)[0]) for _ in range(2000)]
    assert 0.75 < splits.count("train") / 2000 < 0.85
    assert 0.07 < splits.count("test") / 2000 < 0.13


def test_statements_read_as_they_mean():
    a, b = Atom(0, True), Atom(1, False)
    texts = {
        form: statement_text(Statement(form, (a,) if form in ("atom", "not") else (a, b)), ["Ann", "Ben"])
        for form in FORMS
    }
    assert texts == {
        "atom": "Ann is a knight",
        "not": "Ann is not a knight",
        "and": "Ann is a knight and Ben is a knave",
        "or": "Ann is a knight or Ben is a knave",
        "if": "if Ann is a knight then Ben is a knave",
        "iff": "Ann is a knight if and only if Ben is a knave",
    }


def test_both_wordings_tell_everything():
    puzzle = Puzzle(("Ann", "Ben"), (Statement("atom", (Atom(1, False),)), Statement("not", (Atom(0, True),))))
    for wording in ("plain", "varied"):
        text = puzzle_text(puzzle, wording, random.Random(3))
        assert "Ben is a knave" in text
        assert "Ann is not a knight" in text
        assert text.endswith("Who is a knight and who is a knave?")


@pytest.mark.parametrize(("field", "value"), [("forms", ("xor",)), ("forms", ()), ("wording", "loud")])
def test_a_recipe_refuses_what_it_does_not_know(field, value):
    with pytest.raises(InputError, match=f"task.{field}"):
        Recipe(**{field: value})

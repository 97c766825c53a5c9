"""What is shared, decided on ids: nothing lost, nothing computed twice, every portion within its budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlcsd.engine.local.caches import batches, families

QUESTIONS = [(1, 1, 7), (1, 1, 8, 8), (1, 2)]


@st.composite
def contexts(draw):
    hints = st.lists(st.integers(3, 5), min_size=0, max_size=6).map(tuple)
    return draw(
        st.lists(
            st.tuples(st.sampled_from(QUESTIONS), hints).map(lambda pair: pair[0] + pair[1]), min_size=1, max_size=12
        )
    )


@given(contexts())
def test_a_family_shares_its_root_and_each_context_is_in_one(drawn):
    found = families(drawn)
    assert sorted(context for family in found for context in family.contexts) == sorted(set(drawn))
    for family in found:
        assert len({context[: family.root] for context in family.contexts}) == 1
        assert family.root == 0 or all(len(context) >= family.root + 2 for context in family.contexts)


def test_questions_are_found_behind_what_all_prompts_have_in_common():
    system, hints = (9,) * 3, [tuple(range(30 * i, 30 * i + 20)) for i in range(1, 9)]
    questions = [tuple(range(1000, 1040)), tuple(range(2000, 2040))]
    found = families([system + question + hint for question in questions for hint in hints])
    assert [(family.root, len(family.contexts)) for family in found] == [(43, 8), (43, 8)]


def test_one_family_if_only_the_system_prompt_is_shared():
    system = tuple(range(50))
    found = families([(*system, 100 + n, 1, 2) for n in range(6)])
    assert [(family.root, len(family.contexts)) for family in found] == [(50, 6)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 40))
def test_batches_cover_all_within_the_budget_with_nothing_and_something_apart(lengths, budget):
    found = list(batches(lengths, budget))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        inside = [lengths[place] for place in batch]
        assert len(batch) == 1 or len(batch) * max(inside) <= budget
        assert len({length == 0 for length in inside}) == 1

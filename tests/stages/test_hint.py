"""Pools, draws and budgets of hints, over random groups."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.errors import InputError
from rlcsd.experiments.rlcsd_extended import RLCSDExtended
from rlcsd.methods import METHODS
from rlcsd.prompts import TEMPLATES, hint_text, teacher_text
from rlcsd.records import Group, Hint, Rollout, Sample, Verdict
from rlcsd.stages.grade import Overlong, grade, group_advantages
from rlcsd.stages.hint import (
    TeacherPrompts,
    draw_hints,
    hinted_examples,
    may_be_wrong_hint,
    teacher_context,
    teacher_token_limit,
)
from rlcsd.tasks.task import Problem, Task

SAMPLE = Sample((1,), torch.zeros(1), torch.zeros(1), True)


def group_of(marks: list[tuple[bool, bool]], solution: str | None = "the data set's solution") -> Group:
    """`marks`: (correct, boxed) of each rollout; a correct rollout always has a box."""
    rollouts = tuple(
        Rollout(
            SAMPLE,
            f"<think>t{i}</think>text {i}",
            Verdict(correct, float(correct)),
            f"answer {i}" if correct or boxed else None,
        )
        for i, (correct, boxed) in enumerate(marks)
    )
    return Group(Problem("Q?", "gold", solution), (1, 2), rollouts, group_advantages([r.reward for r in rollouts]))


groups = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10).map(group_of)


@given(
    group=groups,
    k=st.integers(1, 6),
    seed=st.integers(0, 999),
    exclude=st.booleans(),
    source=st.sampled_from(["self_rollout", "gt_cot"]),
)
def test_contrastive_draws_keep_every_rule(group, k, seed, exclude, source):
    config = METHODS["rlcsd"].from_fields(k_max=k, exclude_self=exclude, hint_source=source).config
    draws = draw_hints(group, config, True, random.Random(seed))
    drawn = [draw.hints for draw in draws]
    good = {i for i, r in enumerate(group.rollouts) if r.reward > 0}
    bad = {i for i, r in enumerate(group.rollouts) if r.reward <= 0 and r.boxed is not None}
    for index, hints in enumerate(drawn):
        others = {index} if exclude else set()
        usable = bool(bad - others) and (source == "gt_cot" or bool(good - others))
        assert (hints is not None) == usable
        if hints is None:
            continue
        if source == "self_rollout":
            assert hints.correct.index in good - others
        else:
            assert (hints.correct.index, hints.correct.answer) == (-1, "gold")
        indices = [hint.index for hint in hints.wrong]
        assert len(set(indices)) == len(indices) == min(k, len(bad - others))
        assert set(indices) <= bad - others
        assert all(hint.answer == f"answer {hint.index}" for hint in hints.wrong)
    assert len(draws) == len(group.rollouts)
    assert all((draw.hints is None) == (draw.missing is not None) for draw in draws)
    assert [draw.correct_pool for draw in draws] == [
        len(good - ({index} if exclude else set())) for index in range(len(draws))
    ]
    assert [draw.wrong_pool for draw in draws] == [
        len(bad - ({index} if exclude else set())) for index in range(len(draws))
    ]


@given(group=groups, most=st.integers(1, 6), seed=st.integers(0, 999), exclude=st.booleans())
def test_further_correct_hints_are_distinct_siblings_and_change_no_other_draw(group, most, seed, exclude):
    one, several = (RLCSDExtended.from_fields(k_correct=k, exclude_self=exclude).config for k in (1, most))
    plain = draw_hints(group, one, True, random.Random(seed))
    drawn = draw_hints(group, several, True, random.Random(seed))
    assert [draw.missing for draw in drawn] == [draw.missing for draw in plain]
    for index, draw in enumerate(drawn):
        if draw.hints is None:
            continue
        good = {i for i, r in enumerate(group.rollouts) if r.is_correct and not (exclude and i == index)}
        indices = [hint.index for hint in (draw.hints.correct, *draw.hints.extra_correct)]
        assert len(set(indices)) == len(indices) == min(most, len(good))
        assert set(indices) <= good
    usable = next((i for i, draw in enumerate(drawn) if draw.hints is not None), None)
    if usable is not None:  # up to here nothing more was drawn
        assert drawn[usable].hints.correct == plain[usable].hints.correct
        assert drawn[usable].hints.wrong == plain[usable].hints.wrong


@given(
    marks=st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=4)
)
def test_the_rows_of_a_step_and_how_the_draws_went(marks, tokenizer):
    step = [group_of(each) for each in marks]
    prompts = TeacherPrompts(tokenizer, 10**6)
    for name in ("rlcsd", "rlsd", "grpo"):
        method = METHODS[name].from_fields()
        hinted = hinted_examples(step, method, prompts, random.Random(0))
        assert len(hinted.examples) == len(step)
        for number, (group, rows) in enumerate(zip(step, hinted.examples, strict=True)):
            for row in rows:
                assert (row.group, row.rollout) == (number, group.rollouts[row.index])
                assert row.advantage == group.advantages[row.index]
                assert (row.teacher_prompt is not None) == (
                    row.hints is not None and (row.advantage != 0 or method.scores_zero_advantage)
                )
                assert len(row.contrast_prompts) == (len(row.hints.wrong) if row.hints and row.teacher_prompt else 0)
        kept = sum(len(rows) for rows in hinted.examples)
        if name == "grpo":
            assert kept == sum(len(group.rollouts) for group in step)
        else:
            assert kept == hinted.counts.usable
            assert hinted.counts.rollouts == sum(len(group.rollouts) for group in step)
            assert sum(hinted.counts.missing.values()) == hinted.counts.rollouts - kept
            assert hinted.counts.unusable_groups == sum(not rows for rows in hinted.examples)
        kept_plain = hinted_examples(step, METHODS["rlcsd"].from_fields(unusable="plain"), prompts, random.Random(0))
        assert sum(len(rows) for rows in kept_plain.examples) == sum(len(group.rollouts) for group in step)


@given(group=groups, seed=st.integers(0, 99))
def test_own_rollouts_are_correct_siblings(group, seed):
    config = METHODS["sdpo"].from_fields(hint_source="own_rollout").config
    good = set(group.correct_indices)
    for index, hints in enumerate(draw.hints for draw in draw_hints(group, config, False, random.Random(seed))):
        assert (hints is not None) == bool(good - {index})
        if hints is not None:
            assert hints.correct.index in good - {index}
            assert hints.wrong == ()


def test_the_data_sets_solution_serves_every_rollout_and_its_absence_is_named():
    config = METHODS["opsd"].from_fields().config
    drawn = [draw.hints for draw in draw_hints(group_of([(False, False)] * 3), config, False, random.Random(0))]
    assert [h.correct.text for h in drawn] == ["the data set's solution"] * 3
    only = METHODS["rlsd"].from_fields(hint_source="answer_only").config
    assert draw_hints(group_of([(True, True)]), only, False, random.Random(0))[0].hints.correct.text is None
    with pytest.raises(InputError, match="hint_source=gt_cot"):
        draw_hints(group_of([(True, True)], None), config, False, random.Random(0))


def test_every_candidate_is_drawn_sooner_or_later():
    group = group_of([(True, True)] * 3 + [(False, True)] * 4)
    config = METHODS["rlcsd"].from_fields(k_max=2).config
    rng = random.Random(0)
    seen = [draw_hints(group, config, True, rng)[0].hints for _ in range(200)]
    assert {h.correct.index for h in seen} == {1, 2}
    assert {hint.index for h in seen for hint in h.wrong} == {3, 4, 5, 6}


@pytest.mark.parametrize("name", ["opsd", "sdpo", "srpo", "rlsd"])
def test_feedback_is_what_the_verifier_said_of_this_very_rollout(name, tokenizer):
    said = [f"said of {i}" if i != 1 else None for i in range(3)]
    rollouts = tuple(Rollout(SAMPLE, "text", Verdict(i == 0, float(i == 0), {}, said[i]), None) for i in range(3))
    group = Group(Problem("Q?", "gold"), (1, 2), rollouts, group_advantages([r.reward for r in rollouts]))
    method = METHODS[name].from_fields(hint_source="feedback")
    draws = draw_hints(group, method.config, False, random.Random(0))
    assert [draw.missing for draw in draws] == [None, "feedback", None]
    assert [draw.hints and draw.hints.correct for draw in draws] == [
        Hint("said of 0", "", 0, "feedback"),
        None,
        Hint("said of 2", "", 2, "feedback"),
    ]
    hinted = hinted_examples([group], method, TeacherPrompts(tokenizer, 10**6), random.Random(0))
    assert hinted.counts.metrics()["hints/without_feedback"].value == 1
    without_a_reward_path = name in ("opsd", "sdpo")  # the others keep what is right and so needs no feedback
    assert [row.index for row in hinted.examples[0]] == ([0, 2] if without_a_reward_path else [0, 1, 2])
    dropping = {"hint_source": "feedback", "unusable": "drop"}
    assert METHODS[name].from_fields(**dropping).config.unusable == "drop"
    for row in (row for row in hinted.examples[0] if row.index != 1):
        text = tokenizer.decode(row.teacher_prompt)
        assert text.count(f"said of {row.index}") == 1 and "Feedback" in text
        assert "Correct final answer" not in text and "gold" not in text


def test_feedback_is_cut_to_fit_and_never_to_nothing(tokenizer):
    problem, hint = Problem("Q?", "gold"), Hint("Alice is a knight. " * 20, "", 0, "feedback")
    whole, _ = teacher_context(tokenizer, problem, hint)
    one, _ = teacher_context(tokenizer, problem, Hint("Alice", "", 0, "feedback"))
    for room in range(len(one) - 20, len(whole) + 1, 7):
        ids, cut = teacher_context(tokenizer, problem, hint, room=room)
        assert cut == (len(whole) > room)
        assert ids is None or (len(ids) <= room and "attempt:\n\n\n" not in tokenizer.decode(ids))
    assert teacher_context(tokenizer, problem, hint, room=len(one) - 20)[0] is None


def rollout(text, correct, boxed=None, finished=True, **verdict):
    sample = Sample((1,), torch.zeros(1), torch.zeros(1), finished)
    return Rollout(sample, text, Verdict(correct, float(correct), **verdict), boxed)


BY_TEXT = [rollout("It is 4.", True), rollout("It is 5.", False), rollout("It is 6, so \\boxed{6}.", False, "6"),
           rollout("It is", False, finished=False), rollout("  ", False), rollout("It is 7.", False, error="raised")]  # fmt: skip


def test_a_wrong_rollout_without_an_answer_is_a_hint_by_its_text_where_the_task_allows_it():
    rewards = [one.reward for one in BY_TEXT]
    group = Group(Problem("2 + 2?", "4"), (1, 2), tuple(BY_TEXT), group_advantages(rewards))
    config = METHODS["rlcsd"].from_fields().config
    published = draw_hints(group, config, True, random.Random(0))[1].hints
    assert [(hint.index, hint.answer) for hint in published.wrong] == [(2, "6")] and published.correct.answer == "4"
    drawn = [draw.hints for draw in draw_hints(group, config, True, random.Random(0), by_text=True)]
    assert {hint.index for hint in drawn[3].wrong} == {1, 2}
    assert not may_be_wrong_hint(rollout("<think>It is 5?</think>\n", False), by_text=True), "it says nothing"
    hints = (drawn[3].correct, *drawn[3].wrong)
    assert {hint.answer for hint in hints} == {""}, "one without an answer: all of them are shown alike"
    assert hint_text(hints[0].text, hints[0].answer) == "It is 4."
    assert [hint.answer for hint in (drawn[1].correct, *drawn[1].wrong)] == ["4", "6"]  # all have one


@pytest.mark.parametrize(("said", "answer"), [(None, "6"), ("", None), ("seven", "seven")])
def test_the_verdicts_answer_goes_before_the_box(said, answer, tokenizer):
    task = Task("t", [Problem("2?", "4")], {}, lambda r, a: Verdict(False, 0.0, answer=said), verifier_seconds=None)
    ids = tuple(tokenizer("\\boxed{6}").input_ids)
    sample = Sample(ids, torch.zeros(len(ids)), torch.zeros(len(ids)), True)
    ((one, _),) = (g.rollouts for g in grade(tokenizer, task, task.train, [(1,)], [[sample, sample]]))
    assert (one.answer, one.boxed) == (answer, "6") and task.hints_by_text


def test_a_task_says_how_an_answer_is_read():
    def last_word(response):
        return response.split()[-1] if response.split() else None

    task = Task("t", [Problem("2?", "4")], {}, lambda r, a: a in r, answer_of=last_word)
    assert (task.read_answer("it is 5 ", Verdict(False, 0.0)), task.read_answer("", Verdict(False, 0.0))) == ("5", "")
    assert not task.hints_by_text, "a response in which it finds none states none"
    assert not Task("t", [Problem("2?", "4")], {}, "exact").hints_by_text, "as published"
    for broken, said in ((lambda r: r[99], "answer_of raised IndexError"), (lambda r: 5, "must return a text or None")):
        with pytest.raises(InputError, match=said):
            replace(task, answer_of=broken).read_answer("x", Verdict(False, 0.0))


def test_a_hint_by_its_text_is_never_cut_to_nothing(tokenizer):
    problem, hint = Problem("Q?", "gold"), Hint("Alice is a knight. " * 20, "")
    least, _ = teacher_context(tokenizer, problem, Hint("Alice", ""))
    assert teacher_context(tokenizer, problem, hint, room=len(least) - 20)[0] is None
    ids, cut = teacher_context(tokenizer, problem, hint, room=len(least) + 10)
    assert cut and len(ids) <= len(least) + 10 and "Correct final answer" not in tokenizer.decode(ids)


def test_thinking_is_stripped_on_request():
    config = METHODS["sdpo"].from_fields(hint_source="own_rollout", strip_thinking=True).config
    drawn = draw_hints(group_of([(True, True), (True, True)]), config, False, random.Random(0))
    assert drawn[0].hints.correct.text == "text 1"


@pytest.mark.parametrize("template", TEMPLATES)
def test_outside_the_hint_correct_and_wrong_prompts_are_byte_identical(template):
    right, wrong = hint_text("all is well", "42"), hint_text("nothing is", "41")
    a, b = teacher_text("Why?", right, template), teacher_text("Why?", wrong, template)
    assert a.count(right) == b.count(wrong) == 1
    assert a.encode().replace(right.encode(), b"") == b.encode().replace(wrong.encode(), b"")
    assert ("Reference Solution" in a) == (template != "bare")


def test_templates_differ():
    assert set(TEMPLATES) == {"neutral", "verbose", "terse", "bare"}
    assert len({teacher_text("Q", "H", name) for name in TEMPLATES}) == 4


@given(room=st.integers(40, 200))
def test_only_the_hints_own_text_is_cut(room, tokenizer):
    problem = Problem("Alice says Bob is a knave. Who is what?", "Bob is a knight")
    hint = Hint("Suppose Alice is a knight. " * 20, "Alice is a knave")
    whole, _ = teacher_context(tokenizer, problem, hint)
    least, _ = teacher_context(tokenizer, problem, Hint(None, hint.answer))
    if room < len(least):
        assert teacher_context(tokenizer, problem, hint, room=room) == (None, True)
        return
    ids, cut = teacher_context(tokenizer, problem, hint, room=room)
    assert len(ids) <= room
    assert cut == (len(whole) > room)
    text = tokenizer.decode(ids)
    assert problem.question in text
    assert "Correct final answer: Alice is a knave" in text
    assert text.endswith(tokenizer.decode(least)[-40:])


@pytest.mark.parametrize("unusable", ["drop", "plain"])
def test_a_rollout_without_room_for_a_hint_is_not_usable(tokenizer, unusable):
    method = METHODS["rlcsd"].from_fields(unusable=unusable)
    group = group_of([(True, True), (True, True), (False, True), (False, True)])
    roomy, narrow = (TeacherPrompts(tokenizer, most) for most in (10**6, 3))
    assert hinted_examples([group], method, roomy, random.Random(0)).counts.usable == 4
    hinted = hinted_examples([group], method, narrow, random.Random(0))
    figures = hinted.counts.metrics()
    assert figures["hints/usable_share"].value == figures["hints/cut"].value == 0
    assert figures["hints/no_room"].value == figures["hints/skipped_rollouts"].value == 4
    assert figures["hints/unusable_groups"].value == 1
    assert len(hinted.examples[0]) == (4 if unusable == "plain" else 0)
    assert all(example.teacher_prompt is None for example in hinted.examples[0])


@pytest.mark.parametrize(("chosen", "context", "limit"), [(None, 45, 45), (60, 45, 45), (30, 45, 30)])
def test_the_teachers_limit_never_exceeds_the_context(chosen, context, limit):
    assert teacher_token_limit(chosen, context) == limit


# ------------------------------------------------------------------ bare answers


@given(group=groups, k=st.integers(1, 3), exclude=st.booleans(), data=st.data())
def test_bare_answers_are_the_data_sets_and_those_of_the_worst_rollouts(group, k, exclude, data):
    rewards = data.draw(
        st.lists(st.sampled_from([-1.0, 0.0, 0.3]), min_size=len(group.rollouts), max_size=len(group.rollouts))
    )
    rollouts = tuple(
        rollout if rollout.is_correct else replace(rollout, verdict=Verdict(False, reward))
        for rollout, reward in zip(group.rollouts, rewards, strict=True)
    )
    group = replace(group, rollouts=rollouts)
    config = METHODS["cepo"].from_fields(k_max=k, exclude_self=exclude).config
    for index, draw in enumerate(draw_hints(group, config, True, random.Random(0))):
        wrong = [i for i, r in enumerate(rollouts) if not r.is_correct and not (exclude and i == index)]
        assert (draw.hints is None) == (not wrong) == (draw.missing == "wrong")
        if wrong:
            assert draw.hints.correct == Hint(None, "gold", -1, "answer")
            worst = sorted((rollouts[i].reward, i) for i in wrong)[:k]
            stated = [rollouts[i].boxed or f"<think>t{i}</think>text {i}" for _, i in worst]
            assert draw.hints.wrong == tuple(
                Hint(None, text, i, "answer") for text, (_, i) in zip(stated, worst, strict=True)
            )


@pytest.mark.parametrize("answer", [" 72", r"\boxed{72}", "$72$", "$$ 72 $$", r"So \boxed{72 }."])
def test_the_data_sets_answer_is_stated_as_responses_state_theirs(answer):
    group = group_of([(True, True), (False, True), (False, True)])
    right = replace(group.rollouts[0], boxed=None)  # a verifier may accept an answer without a box
    group = replace(group, problem=Problem("Q?", answer, "s"), rollouts=(right, *group.rollouts[1:]))
    for name, source in (
        ("cepo", "answer_pair"),
        ("rlcsd", "self_rollout"),
        ("rlcsd", "gt_cot"),
        ("rlsd", "answer_only"),
    ):
        config = METHODS[name].from_fields(hint_source=source).config
        hints = draw_hints(group, config, name != "rlsd", random.Random(0))[1].hints
        assert hints.correct.answer == "72", source


def test_a_penalty_on_length_does_not_choose_the_wrong_answer():
    group, penalty = group_of([(True, True), (False, True), (False, True)]), Overlong(limit=100, buffer=20)
    right, short, long = group.rollouts
    short = replace(short, verdict=penalty.applied(Verdict(False, 0.1), 40))
    long = replace(long, verdict=penalty.applied(Verdict(False, 0.1), 100))
    group = replace(group, rollouts=(right, short, long))
    config = METHODS["cepo"].from_fields().config
    assert {draw.hints.wrong[0].index for draw in draw_hints(group, config, True, random.Random(0))} == {1}


def test_a_bare_answer_follows_the_prompt_that_was_answered(tokenizer):
    """Also where the teacher's prompts ask for thinking and the student's do not."""
    group = replace(group_of([(True, True), (False, True)]), prompt=(7, 8, 9))
    for examples in hinted_examples(
        [group], METHODS["cepo"].from_fields(), TeacherPrompts(tokenizer, 10**6), random.Random(0)
    ).examples:
        for example in examples:
            for prompt in (example.teacher_prompt, *example.contrast_prompts):
                assert prompt[:3] == (7, 8, 9) and tokenizer.decode(prompt[3:]).strip() in ("gold", "answer 1")


def test_the_bare_template_shows_a_solution_alone_and_an_answer_in_words(tokenizer):
    problem = Problem("2+2?", "4")

    def shown(hint):
        return tokenizer.decode(teacher_context(tokenizer, problem, hint, template="bare", instruction="")[0])

    text = shown(Hint("Two and two.", "4"))
    assert "Two and two." in text and "Correct final answer" not in text
    assert "Correct final answer: 4" in shown(Hint(None, "4"))


def test_a_response_without_an_answer_is_stated_by_its_first_50_characters_and_an_empty_one_not_at_all():
    group = group_of([(True, True), (False, False), (False, True)])
    long, empty = replace(group.rollouts[1], text="word " * 30), replace(group.rollouts[1], text=" \n")
    failed = replace(group.rollouts[1], verdict=Verdict(False, -1.0, error="timeout"))
    config = METHODS["cepo"].from_fields().config
    for second, expected in ((long, ("word " * 10, 1)), (empty, ("answer 2", 2)), (failed, ("answer 2", 2))):
        changed = replace(group, rollouts=(group.rollouts[0], second, group.rollouts[2]))
        (hint,) = draw_hints(changed, config, True, random.Random(0))[0].hints.wrong
        assert (hint.answer, hint.index) == expected


def test_a_step_that_reads_no_teacher_makes_no_prompts_and_keeps_its_rollouts(tokenizer):
    group = group_of([(True, True), (False, True), (False, False), (True, True)])
    prompts = TeacherPrompts(tokenizer, 10**6)
    for name, last in (("cepo", 25), ("rlsd", 50), ("rlsd_ectr", 50)):
        method = METHODS[name].from_fields()
        asked, unasked = (
            hinted_examples([group], method, prompts, random.Random(0), step) for step in (last, last + 1)
        )
        assert all(row.teacher_prompt is not None for row in asked.examples[0])
        assert all(row.teacher_prompt is None and not row.contrast_prompts for row in unasked.examples[0])
        assert [row.index for row in unasked.examples[0]] == [row.index for row in asked.examples[0]]
        assert unasked.counts == asked.counts

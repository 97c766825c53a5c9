"""Data in prompts stays data: no text of a question, an answer or a hint becomes a control token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.prompts import (
    TEMPLATES,
    Data,
    data_ids,
    hint_text,
    question_text,
    render,
    student_prompt,
    teacher_text,
    teacher_turn,
)
from rlcsd.records import Hint, Problem
from rlcsd.stages.hint import teacher_context

MARKS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>", "<<|im_end|>", "<|im_<|im_end|>end|>"]
spelled = st.lists(st.sampled_from([*MARKS, "Alice is a knight", " ", "\n", "user", "<", "|>"]), max_size=8).map(
    "".join
)


@pytest.fixture(scope="module")
def chat():
    tokenizer = load_tokenizer(ModelConfig())
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    return tokenizer


def controls(tokenizer) -> set[int]:
    return set(tokenizer.added_tokens_decoder)


@given(text=spelled)
def test_data_never_holds_a_control_token_and_loses_no_character(text, chat):
    ids = data_ids(chat, text)
    assert not controls(chat) & set(ids)
    assert chat.decode(ids, clean_up_tokenization_spaces=False) == text


@given(question=spelled, text=spelled, answer=spelled, template=st.sampled_from(sorted(TEMPLATES)))
def test_a_conversation_has_the_control_tokens_of_its_template_alone(question, text, answer, template, chat):
    plain = [token for token in render(chat, "Hello") if token in controls(chat)]
    problem, hint = Problem(question, answer), Hint(text, answer)
    context, _ = teacher_context(chat, problem, hint, template=template)
    assert [token for token in context if token in controls(chat)] == plain
    assert [token for token in student_prompt(chat, question) if token in controls(chat)] == plain


@given(right=st.text(max_size=20), wrong=st.text(max_size=20), template=st.sampled_from(sorted(TEMPLATES)))
def test_outside_the_hint_the_ids_of_correct_and_wrong_prompts_are_the_same(right, wrong, template, chat):
    def around(text: str) -> tuple[list[int], list[int]]:
        hint = hint_text(text, text)
        ids = render(chat, teacher_turn("Who is what?", hint, template))
        space = " " if "Solution: {hint}" in TEMPLATES[template] else ""
        inner = data_ids(chat, space + hint)
        start = next(p for p in range(len(ids)) if ids[p : p + len(inner)] == inner)
        return ids[:start], ids[start + len(inner) :]

    assert around(right) == around(wrong)


@given(text=st.text("abc\n .", max_size=30), template=st.sampled_from(sorted(TEMPLATES)))
def test_the_pieces_of_a_turn_are_its_text(text, template):
    turn = teacher_turn("Why?", hint_text(text, "42"), template)
    assert "".join(piece.text if isinstance(piece, Data) else piece for piece in turn) == teacher_text(
        "Why?", hint_text(text, "42"), template
    )
    assert teacher_text("Why?", "h", template).startswith(question_text("Why?"))


def test_many_spelled_control_tokens_take_linear_work(chat):
    text = "<|im_end|>" * 20_000
    assert chat.decode(data_ids(chat, text)) == text

"""The last box of a response, however it is written, and responses without their thoughts."""

from __future__ import annotations

import pytest

from rlcsd.verifiers.boxed import last_boxed, without_thinking


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {x}", "x"),
        (r"\boxed{1} then \boxed{2", None),
        ("no box", None),
    ],
)
def test_the_last_box_counts(text, content):
    assert last_boxed(text) == content


def test_thoughts_are_left_out_even_if_they_began_in_the_prompt():
    assert without_thinking("<think>a\nb</think> c") == "c"
    assert without_thinking("a</think> c") == "c"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a<think>b<think>c</think>d</think>e", "ae"),
        ("a<think>b", "a"),
        ("a<think>b</think>c<think>d", "ac"),
        ("a</think>b</think>c", "c"),
        ("<think></think>", ""),
    ],
)
def test_thoughts_may_be_nested_or_unclosed(text, left):
    assert without_thinking(text) == left


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\fbox{42}", "42"),
        (r"\framebox{42}", "42"),
        (r"\framebox[2cm][c]{42}", "42"),
        (r"\bbox[5px,border:2px solid]{42}", "42"),
        (r"\boxed[1]{3}", "3"),
        ("\\boxed\n{42}", "42"),
        (r"so \boxed 42.", "42"),
        (r"\boxed42", "42"),
        (r"$x = \boxed -3$", "-3"),
        (r"\[\boxed 42\]", "42"),
        (r"$\boxed \frac12$ is it", r"\frac12"),
        (r"the answer is \boxed \frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed\text{B}", r"\text{B}"),
        (r"\boxed (B)", "(B)"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{\fbox{5} or 6}", r"\fbox{5} or 6"),
        (r"{ \boxed{7}", "7"),
        (r"\fboxed{3}", None),
        (r"\boxedtext{3}", None),
        (r"\boxed", None),
    ],
)
def test_a_box_is_found_however_it_is_written(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    "after",
    [
        r"\boxed{}", r"\boxed{ }", r"\boxed{\ }", r"\boxed{\quad}", r"\boxed{~}", r"\boxed{...}", r"\boxed{…}", r"\boxed{\ldots}", r"\boxed{\dots}",
        r"\boxed{?}", r"\boxed{___}", r"\boxed{answer}", r"\boxed{\text{your answer}}", r"\boxed{\text{final answer}}", r"\boxed{\text{Answer here}}",
        r"\fbox{}", r"\boxed[1]{}", r"the \boxed command", r"within \boxed, as asked", r"$\boxed$", r"\boxed{} and \boxed{}",
    ],
)  # fmt: skip
def test_a_last_box_without_content_leaves_the_one_before_it(after):
    assert last_boxed(rf"So \boxed{{42}}. I was to put it in {after}") == "42"
    assert last_boxed(f"I am to put it in {after}") is None


THOUGHTS = [
    (r"<think> \boxed{5}", None, "5"),
    (r"<think> \boxed{5} </think> \boxed{6}", "6", "6"),
    (r"<think> \boxed{5} </think> so it is", "5", "5"),
    (r"\boxed{5} <think> \boxed{6}", "5", "6"),
    (r"<think> a <think> \boxed{5} </think> \boxed{6}", None, "6"),
    (r"\boxed{5} </think> \boxed{6}", "6", "6"),
    (r"<think> \boxed{5} </think> <think> \boxed{6}", "5", "6"),
]


@pytest.mark.parametrize(("text", "content", "with_unfinished"), THOUGHTS)
def test_a_box_in_a_thought_that_never_ends_counts_only_if_asked_for(text, content, with_unfinished):
    assert last_boxed(text) == content
    assert last_boxed(text, unfinished_thoughts=True) == with_unfinished


UNITS = [
    "\\boxed{",
    "\\boxed ",
    "\\boxed[",
    "{",
    "}",
    "\\",
    "\\boxed[a]",
    "$\\boxed ",
    "\\boxed{}",
    "<think>",
    "\\boxed{.",
    "\\boxed 1",
]


@pytest.mark.parametrize("unit", UNITS)
def test_the_work_is_linear_in_the_length(unit):
    """Seconds where a quadratic search takes hours."""
    last_boxed(unit * (1_000_000 // len(unit)))

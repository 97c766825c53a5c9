"""One spelling for answers, what dresses them, and the exact value of plain numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.verifiers import get
from rlcsd.verifiers.latex import clean, closed, number, spelled
from rlcsd.verifiers.statements import equivalent


@given(st.fractions(max_denominator=999))
def test_a_fraction_in_three_spellings_is_one_number(value):
    sign = "-" if value < 0 else ""
    above, below = abs(value.numerator), value.denominator
    for text in (
        f"{sign}{above}/{below}",
        rf"{sign}\frac{{{above}}}{{{below}}}",
        rf"\dfrac{{{sign}{above}}}{{{below}}}",
    ):
        assert number(spelled(text)) == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_a_decimal_is_exact(whole, places):
    text = f"{whole}" if not places else f"{whole / 10**places:.{places}f}"
    found = number(text)
    assert found is not None
    assert found * 10**places == whole


@given(st.text(alphabet=r"0123456789abcxyz\{}()[]^_+-*/=,.$% ", max_size=30))
def test_no_text_breaks_the_notation(text):
    plain = spelled(text)
    assert plain is None or number(closed(plain)) is None or "$" not in plain


# ------------------------------------------------------------------ what dresses an answer

DRESSES = [
    "{}", " {} ", "{}.", "**{}**", "***{}***", "*{}*", "__{}__", "`{}`", "```{}```", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", r"\text{{{}}}", r"\textbf{{{}}}",
    r"\mathbf{{{}}}", r"\mathrm{{{}}}", r"\underline{{{}}}", r"\emph{{{}}}", r"\color{{red}}{{{}}}", r"\color{{red}} {}", r"{{\color{{blue}} {}}}",
    r"\textcolor{{red}}{{{}}}", r"\textcolor[rgb]{{1,0,0}}{{{}}}", r"\colorbox{{yellow}}{{${}$}}", r"\fcolorbox{{red}}{{white}}{{{}}}", r"\boxed{{{}}}",
    r"\fbox{{{}}}", r"\Large {}", r"\large{{{}}}", r"\displaystyle {}", r"\bf {}", r"{{\bf {}}}", "<b>{}</b>", '<span style="color:red">{}</span>', "<strong>{}</strong>.",
    r"\,{}\,", r"\ {} \ ", r"\quad {}", "~{}", "{{{}}}", '"{}"', r"**${}$**", r"$\mathbf{{{}}}$.", r"\text{{**{}**}}", "The answer is {}", "Answer: {}",
    r"\text{{The final answer is }} {}", "the answer is: {}.", r"\color{{red}}{{\mathbf{{{}}}}}", "{}\\,", r"\ensuremath{{{}}}",
]  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES)
def test_one_cleaning_for_all_verifiers(dress):
    for name, answer in (("exact", "abc-7"), ("exact", "73"), ("knights_and_knaves", "Ann is a knight, Bo is a knave")):
        assert get(name)(rf"So \boxed{{{dress.format(answer)}}}", answer), (name, answer)
    for answer in ("73", r"\frac{1}{2}", "x+1", "(1,2)", r"\{1,2\}"):
        assert equivalent(dress.format(answer), answer), answer


@pytest.mark.parametrize(
    "text", ["a*b", "2**3", "x_1", "_", "*", "**", "`", "$", "$$", "5*3*2", "a_b_c", r"\{1\}", "1, 2", "{1,2}", r"\text{a} \text{b}", "x.y", "..."]
)  # fmt: skip
def test_what_is_part_of_an_answer_stays(text):
    assert clean(text) == text


@given(st.text(alphabet=r"01ab\{}()[]*_`$.,<>/ \"", max_size=40))
def test_cleaning_an_answer_again_changes_nothing(text):
    assert clean(clean(text)) == clean(text)

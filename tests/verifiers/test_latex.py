"""One spelling for answers, what dresses them, and the exact value of plain numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlcsd.verifiers.latex import closed, number, spelled


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

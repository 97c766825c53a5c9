"""A table of answers that say the same and answers that only look alike."""

from __future__ import annotations

import random

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.verifiers.latex import closed, number, spelled
from rlcsd.verifiers.math import equivalent

SAME = [
    ("1, 2", "1,2"),
    ("(101,102)", "101,102"),
    (r"\sqrt{\pi}", r"\sqrt\pi"),
    (r"\frac{\sqrt{\pi}}{2}", r"\frac{\sqrt\pi}{2}"),
    (r"\frac\pi2", r"\frac{\pi}{2}"),
    (r"\arcsin\frac12", r"\frac\pi6"),
    (r"\tbinom52", "10"),
    (r"0.\overline{3}", r"\frac13"),
    (r"0.1\overline{6}", "1/6"),
    (r"\langle 1,2\rangle", "(1,2)"),
    (r"\boldsymbol{5}", "5"),
    (r"\phi(n)", r"\varphi(n)"),
    ("2:3", r"\frac23"),
    ("5", "f(2)=5"),
    (r"\{1,1,2\}", r"\{1,2\}"),
    ("12_{5}", "12_5"),
    ("x_1", "x_1"),
    (r"\mathbb{R}\backslash\{0\}", r"\mathbb{R}\setminus\{0\}"),
    ("1,2,2", "2,1,2"),
    (r"5\text{ m}", "5"),
    (r"12\pi\text{ cm}^2", r"12\pi"),
    ("$25", "25"),
    (r"20 \text{ square meters}", "20"),
    (r"\{\}", r"\emptyset"),
    ("(5)", "5"),
    (r"\{5\}", "5"),
    (r"5 \text{ m}/\text{s}", "5"),
    ("42", "42"),
    ("42.0", "42"),
    ("042", "42"),
    ("1,000", "1000"),
    ("1{,}000", "1000"),
    ("12,345,678", "12345678"),
    ("+7", "7"),
    ("-0.5", r"-\frac{1}{2}"),
    ("1e3", "1000"),
    (r"1.5\times 10^{3}", "1500"),
    (r"2 \times 10^4", "20000"),
    (r"\frac12", "0.5"),
    (r"\dfrac{3}{4}", r"\frac{3}{4}"),
    (r"\tfrac{6}{8}", "3/4"),
    ("0.75", r"\frac{3}{4}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    (r"1\frac{1}{2}", r"\frac{3}{2}"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    (r"\left\{1, 2\right\}", r"\{1,2\}"),
    ("1, 2", "2, 1"),
    (r"\{1,2\}", "1,2"),
    (r"\emptyset", r"\varnothing"),
    (r"\{\frac12, 2\}", r"\{0.5,2\}"),
    (r"1 \text{ or } 2", "1, 2"),
    (r"\pm 2", "-2, 2"),
    (r"x = 1 \text{ and } x = 2", "1,2"),
    ("(0,1)", r"\left(0, 1\right)"),
    (r"[0,\infty)", r"[0, +\infty)"),
    (r"(-\infty,0)\cup(1,2]", r"(1,2]\cup(-\infty,0)"),
    (r"(\frac12,1)", "(0.5,1)"),
    ("(1,2)", "1, 2"),
    ("(3,-4,5)", "(3, -4, 5)"),
    ("(x,y)=(1,2)", "(1,2)"),
    ("90°", r"90^\circ"),
    (r"90^{\circ}", "90"),
    (r"90\degree", r"90^\circ"),
    (r"45^\circ", r"\frac{\pi}{4}"),
    (r"5\text{ cm}", "5 cm"),
    (r"5 \mathrm{cm}", "5"),
    (r"12\text{ cm}^2", "12"),
    (r"10\text{ km/h}", "10"),
    (r"\$5", "5"),
    (r"50\%", "50%"),
    (r"50\%", "0.5"),
    ("50", r"50\%"),
    ("0.5", r"50\%"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\sqrt2", r"\sqrt{2}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt[3]{27}", "3"),
    (r"3\sqrt{2}+1", r"1+3\sqrt2"),
    (r"\infty", r"+\infty"),
    ("∞", r"\infty"),
    (r"-\infty", r"-\infty"),
    ("A", "(A)"),
    (r"\text{B}", "B"),
    ("(C)", r"\textbf{(C)}"),
    (r"\text{Yes}", "yes"),
    (r"\text{even}", "Even"),
    ("True", "true"),
    ("x=5", "5"),
    ("5", "x = 5"),
    ("f(x)=x^2", "x^2"),
    ("x^2+2x+1", "(x+1)^2"),
    ("2x", r"x\cdot 2"),
    (r"\frac{x+1}{2}", r"\frac{1}{2}(x+1)"),
    (r"\ln 2", r"\ln(2)"),
    (r"\ln 2", r"\log 2"),
    (r"e^{i\pi}", "-1"),
    (r"\sin^2 x+\cos^2 x", "1"),
    ("2^{10}", "1024"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    (r"\mathbb{R}", r"\mathbb R"),
    ("i", "i"),
    ("2+3i", "3i+2"),
    ("$7$", "7"),
    (r"\(7\)", "7"),
    ("7.", "7"),
    (r"\frac{2}{4}", "0.5"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ("y = 2x+1", "y=1+2x"),
    (r"\log_2 8", "3"),
    ("|x|", "|x|"),
    ("x>2", "x > 2"),
    ("2<x", "x>2"),
    (r"x \in (1,2)", "(1,2)"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt3}"),
    (r"\text{(A)}", "A"),
    ("10^{-3}", "0.001"),
    ("C", r"\text{C}"),
    (r"1/2 + \frac{\pi}{4}", r"\frac{\pi}{4}+\frac12"),
    (r"\frac{1}{3}\pi", r"\frac{\pi}{3}"),
    (r"k\pi, k\in\mathbb{Z}", r"k\pi, k\in\mathbb{Z}"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"),
    ("{1,2}", "\\{1,2\\}"),
    ("20 percent", "20\\%"),
    ("(-\\infty,1)\\cup(1,\\infty)", "\\mathbb{R}\\setminus\\{1\\}"),
    ("[0,3]\\setminus\\{1\\}", "[0,1)\\cup(1,3]"),
    ("1<x<2", "(1,2)"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"),
    ("2pi", "2\\pi"),
    ("\\sqrt{-4}", "2i"),
    ("1 1/2", "3/2"),
    ("10^-5", "10^{-5}"),
    ("\\operatorname{arctan}(2)", "\\arctan(2)"),
    ("5 cm", "5"),
    ("5\\text{ cm}", "5"),
    ("12 square units", "12"),
    ("$5$", "5"),
    ("x=5", "5"),
    ("5 dollars", "5"),
    ("\\$5", "5"),
    ("1,234", "1234"),
    ("\\frac12", "0.5"),
    ("x \\in (1,2)", "(1,2)"),
    ("1\\le x\\le 2", "[1,2]"),
    ("x>3", "(3,\\infty)"),
    ("\\pm 2", "2,-2"),
    ("2 and 3", "2,3"),
    ("2\\sqrt2", "\\sqrt8"),
    ("90^\\circ", "90"),
    ("sqrt(2)", "\\sqrt{2}"),
    ("1e-3", "0.001"),
    ("3\\times10^4", "30000"),
    ("x^2+2x+1", "(x+1)^2"),
    ("(A)", "A"),
    ("\\text{(A)}", "A"),
    ("3:4", "3/4"),
    ("8!", "40320"),
    ("\\binom{5}{2}", "10"),
    ("2i", "2\\mathrm{i}"),
    ("\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
    ("-\\infty", "-\\infty"),
    ("\\left(1,2\\right]", "(1,2]"),
    ("50%", "\\frac12"),
    ("3 1/4", "13/4"),
    ("2\\frac{1}{2}", "5/2"),
    ("infinity", "\\infty"),
    ("e^(2)", "e^2"),
    ("2*pi", "2\\pi"),
    ("\\tan^{-1}(2)", "\\arctan 2"),
    ("1.5", "3/2"),
    ("\\{3,1\\}", "\\{1,3\\}"),
    ("Yes", "\\text{yes}"),
    ("\\ln 2", "\\log_e 2"),
    ("1000,99", "1000.99"),
    ("0,111", "0.111"),
    ("28 pct", "28\\%"),
    ("AB=4,CD=5", "4, 5"),
    ("\\frac{NO}{BO}=\\frac{1}{\\sqrt{6}}", "\\frac{1}{\\sqrt{6}}"),
    ("V_{1}:V_{2}=11:21", "11:21"),
    ("(11,7)or(7,11)", "(7,11),\\ (11,7)"),
    ("0<f(x)<1", "(0,1)"),
    ("5 km/h", "5"),
    ("7\\text{ m/s}", "7"),
    ("12 sq ft", "12"),
    ("3\\text{ cubic meters}", "3"),
]

DIFFERENT = [
    ("1 half", "1"),
    ("5 trillion", "5"),
    ("5 over two", "5"),
    ("0 mod n", "0"),
    ("5 but not six", "5"),
    ("3 thirds", "3"),
    ("7 squared", "7"),
    ("2 dozen", "2"),
    ("4 factorial", "4"),
    ("6 or 7", "6"),
    ("3 billion", "3"),
    ("5 million dollars", "5"),
    ("2 to the power n", "2"),
    ("9 base 7", "9"),
    ("8 times x", "8"),
    ("12 minus one", "12"),
    ("1 third", "1"),
    ("5 googol", "5"),
    ("10 choose 3", "10"),
    ("3 plus epsilon", "3"),
    ("6 times", "6"),
    ("4 quarters", "4"),
    ("2 radians less", "2"),
    ("1,234", "1, 234"),
    ("\\emptyset", "\\{\\emptyset\\}"),
    ("\\sqrt{10^{40}+1}", "10^{20}"),
    ("0^0", "1"),
    ("I do not know$$8", "8"),
    ("7$8", "8"),
    ("x", "X"),
    ("f'(x)", "f(x)"),
    ("101_2", "101_3"),
    ("(1,2)", "[1,2]"),
    ("1,2", "1"),
    ("0.333", "1/3"),
    ("3.14", "\\pi"),
    ("10^{20}+1", "10^{20}"),
    ("5 cm", "5 m"),
    ("5x", "5"),
    ("e", "2.718"),
    ("\\{1,2\\}", "(1,2)"),
    ("(2,1)", "(1,2)"),
    ("A", "a"),
    ("\\text{not } 5", "5"),
    ("\\text{yes}", "\\text{no}"),
    ("1/0", "0"),
    ("x=1", "y=1"),
    ("100000000001", "100000000000"),
    ("1+1+", "2"),
    ("1,234", "1.234"),
    ("3 \\text{ apples}", "3"),
    ("5 km", "5 cm"),
    ("1:2:3", "\\frac16"),
    ("0 \\pmod{n}", "0"),
    ("101, 102", "101,102"),
    ("\\sqrt{10^{60}+1}", "10^{30}"),
    ("6 thousand", "6"),
    ("1 quarter", "1"),
    ("2 nonsense", "2"),
    ("7 modulo 3", "7"),
    ("3=6", "6"),
    ("2=5", "5"),
    ("1+2=6", "6"),
    ("x^2=4", "4"),
    ("x^2+y^2=4", "4"),
    ("xy=6", "6"),
    ("2x=5", "x=5"),
    ("x^3=5", "x=5"),
    ("x", "X"),
    ("N", "n"),
    ("2x", "2X"),
    ("A_1", "a_1"),
    (r"\Pi", r"\pi"),
    ("AB", "BA"),
    (r"\text{BA}", r"\text{AB}"),
    ("f'", "f"),
    ("f'(0)", "f(0)"),
    ("A^T", "A"),
    ("12_5", "12"),
    ("101_3", "101_2"),
    ("12_{5}", "12_{7}"),
    ("1,1,2", "2,2,1"),
    ("1,1", "1"),
    ("e^{-41}", "e^{-40}"),
    (r"5\text{ million}", "5"),
    (r"5\text{ dozen}", "5"),
    ("2 log", "2"),
    ("2 xyz", "2"),
    ("3m", "3"),
    ("5s", "5"),
    ("1:2:3", r"\frac16"),
    ("5;6", "6"),
    ("2x", "2"),
    ("2i", "2"),
    (r"5\text{ m}", r"5\text{ s}"),
    (r"3 \text{ apples}", r"4 \text{ apples}"),
    (r"2\pi", "2"),
    ("(5)", "6"),
    ("41", "42"),
    ("0.33", r"\frac13"),
    ("3.14", r"\pi"),
    ("3.1416", r"\pi"),
    (r"\frac{22}{7}", r"\pi"),
    ("1.414", r"\sqrt2"),
    ("-5", "5"),
    ("1000", "1,001"),
    ("1000001", "10^6"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    (r"\{1,2,3\}", r"\{1,2\}"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", r"\{1,2\}"),
    ("[0,1)", "[0,1]"),
    ("1", "1,2"),
    (r"(0,1)\cup(2,3)", "(0,1)"),
    ("(1,2,3)", "(1,2)"),
    (r"\emptyset", "0"),
    (r"\emptyset", r"\{0\}"),
    (r"90^\circ", r"60^\circ"),
    (r"90^\circ", r"\pi"),
    (r"5\text{ cm}", r"5\text{ m}"),
    ("5 cm", "6 cm"),
    (r"50\%", "5"),
    (r"50\%", r"5\%"),
    ("0.05", r"50\%"),
    (r"\sqrt{2}", "2"),
    (r"2\sqrt{3}", r"3\sqrt{2}"),
    (r"\sqrt{-1}", "1"),
    (r"\infty", r"-\infty"),
    (r"\infty", "10^{100}"),
    ("A", "B"),
    ("(A)", "(D)"),
    ("yes", "no"),
    ("even", "odd"),
    ("x+1", "x-1"),
    ("x^2", "x^3"),
    ("2x", "2y"),
    ("e^2", "e^3"),
    (r"\ln 2", r"\ln 3"),
    (r"\log_{10} 2", r"\ln 2"),
    ("", "5"),
    (r"\frac{1}{0}", "0"),
    ("1e3", "1e4"),
    ("y=2x", "y=3x"),
    ("x=5", "y=5"),
    ("2+3i", "2-3i"),
    (r"\pm 2", "2"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\text{I do not know}", "5"),
    ("12", "1 2"),
    ("10^6", "10^7"),
    ("x>2", "x<2"),
    (r"(1,\infty)", "(1,2)"),
    ("0.6667", r"\frac{2}{3}"),
    ("100", "10^{3}"),
    ("none", "0"),
]


@pytest.mark.parametrize(("given", "reference"), SAME)
def test_answers_that_say_the_same(given, reference):
    assert equivalent(given, reference)
    assert equivalent(reference, given)


@pytest.mark.parametrize(("given", "reference"), DIFFERENT)
def test_answers_that_only_look_alike(given, reference):
    assert not equivalent(given, reference)
    assert not equivalent(reference, given)


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


def expressions() -> list[sympy.Expr]:
    """Independent of the tables above: random expressions from sympy's own constructors."""
    rng = random.Random(7)
    x, y = sympy.symbols("x y")
    atoms = [x, y, sympy.pi, sympy.E, sympy.sqrt(2), sympy.sqrt(7), sympy.Rational(3, 7), sympy.Integer(5), sympy.I]

    def draw(depth: int) -> sympy.Expr:
        if depth == 0:
            return rng.choice(atoms) * rng.choice([1, 1, 2, -3])
        a, b = draw(depth - 1), draw(depth - 1)
        return rng.choice([a + b, a - b, a * b, (a + 1) ** 2, a / (b**2 + 3)])

    return [draw(rng.choice([1, 2])) for _ in range(40)]


def test_error_rates_on_expressions_that_sympy_writes():
    refused, accepted, equal, unequal = [], [], 0, 0
    for expression in expressions():
        written = sympy.latex(expression)
        for other in (sympy.expand(expression), sympy.factor(expression)):
            equal += 1
            if not equivalent(written, sympy.latex(other)):
                refused.append((written, sympy.latex(other)))
        for other in (expression + 1, 2 * expression, -expression, expression + sympy.Rational(1, 10**6)):
            if sympy.simplify(other - expression) != 0:
                unequal += 1
                if equivalent(written, sympy.latex(other)):
                    accepted.append((written, sympy.latex(other)))
    assert accepted == []
    assert len(refused) <= 0.05 * equal, refused
    assert unequal > 100

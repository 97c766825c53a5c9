"""Plain-text forms of answers that models typeset."""

from __future__ import annotations

import time

import pytest

from rlcsd.tasks.answer_forms import answer_forms


@pytest.mark.parametrize(
    ("typeset", "plain"),
    [
        (r"2 \times 433", "2 × 433"),
        (r"2 \cdot 433", "2 × 433"),
        (r"2 \times 433", "2 * 433"),
        (r"-14{,}282", "-14282"),
        (r"14\,282.5", "14282.5"),
        ("14,282", "14282"),
        ("−3", "-3"),
        (r"1 & 2 \\ 3 & 4", "1 & 2\n3 & 4"),
        (r"1 2 \\ 3 4", "1 2\n3 4"),
        (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", "1 2\n3 4"),
        (r"\begin{array}{c|c} 1 & 2 \\[2pt] 3 & 4 \end{array}", "1 2\n3 4"),
        ("| 1 | 2 |\n|---|---|\n| 3 | 4 |", "1 2\n3 4"),
        ("1. up\n2. down", "up\ndown"),
        ("- up\n- down", "up\ndown"),
        (r"P \lor \neg Q", "P ∨ ¬ Q"),
        (r"A \to B", "A → B"),
        (r"A \to B", "A -> B"),
        ("**42**.", "42"),
        ("**42.**", "42"),
        ("`yes`", "yes"),
        ("```json\n[1]\n```", "[1]"),
        (r"\(x\)", "x"),
        (r"$$\text{Yes.}$$", "Yes"),
        (r"\color{red}{\mathbf{7}}", "7"),
        (r"\{\text{a}\}", "{a}"),
        (r"snake\_case", "snake_case"),
        ('"word"', "word"),
        (r"\frac{242}{311}", "242/311"),
        (r"\frac12", "1/2"),
        (r"x^{2} - 3x", "x**(2) - 3*x"),
        (r"\frac{3 x^{4}}{2} + C", "(3*x**(4))/2 + C"),
        (r"2 \left(x + 1\right)^{3}", "2*(x + 1)**(3)"),
        (r"\cos^{3}{\left(3 x - 10 \right)}", "cos((3*x - 10 ))**3"),
        (r"\sqrt[3]{x} + \sqrt{2}", "(x)**(1/3) + sqrt(2)"),
        (r"\ln{\left(x \right)}", "log((x ))"),
        (r"e^{2x}", "E**(2*x)"),
        (r"\arcsin{\left(x \right)} e^{x}", "asin((x ))*E**(x)"),
        (r"90^\circ", "90°"),
    ],
)
def test_a_typeset_answer_has_its_plain_form(typeset, plain):
    squeezed = [form.replace(" )", ")") for form in answer_forms(typeset)]
    assert plain.replace(" )", ")") in squeezed or plain in answer_forms(typeset), answer_forms(typeset)


@pytest.mark.parametrize("answer", ["42", '{"a": [1]}', "#A A#", "[['x']]", "a, b", "_ Q _", "Mr. Smith went."])
def test_an_answer_comes_first_as_it_is(answer):
    assert answer_forms(answer)[0] == answer
    assert len(answer_forms(answer)) <= 6


@pytest.mark.parametrize(
    ("answer", "never"),
    [
        ("[12,345]", "[12345]"),
        ("1,2", "12"),
        ("5!", "5"),
        ("-3", "3"),
        ("- 3", "3"),
        ("3 4", "3*4"),
        ("3 4", "34"),
        ("x = 4", "4"),
        ("{1}", "[1]"),
        (r"\frac{1}{2}", "2"),
        (r"3 \quad 4", "34"),
    ],
)
def test_another_answer_is_no_form(answer, never):
    assert never not in answer_forms(answer)


@pytest.mark.parametrize("piece", [r"\frac{", r"\text{", r"\sqrt", "$", "*", "{", "cos^{2}(", r"\ ", "1{,}", "("])
def test_whatever_a_model_writes_takes_little_time(piece):
    begun = time.process_time()
    assert len(answer_forms(piece * (9_000 // len(piece)))) < 40
    assert time.process_time() - begun < 5

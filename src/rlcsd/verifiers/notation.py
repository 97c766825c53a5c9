"""How answers are written: one spelling for each, exact numbers, lists and brackets."""

from __future__ import annotations

import re
from fractions import Fraction

_SPACING = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad\b|~|\\displaystyle\b|\\limits\b")
_FENCES = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?=[\s()\[\]{}|.\\])")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_LETTER_UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|textrm|mathrm)\s*\{\s*([a-zA-Z])\s*\}")
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "½": r"\frac{1}{2}",
    "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "∅": r"\emptyset ", r"\varnothing": r"\emptyset", r"\{\}": r"\emptyset",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\leq": r"\le",
    r"\geq": r"\ge", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\degree": "°", r"{,}": "",
}  # fmt: skip
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\s*\bdegrees?\b")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?(?![\d,])")
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({NUMBER})(?:[eE]([-+]?\d{{1,3}})|(?:\\times|\\cdot)10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d)))?")
_FRACTION = re.compile(r"([-+]?)(?:\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|\\frac(\d)(\d)|(\d+)/(\d+))")
_OPENING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}"}
_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]")


def clean(text: str) -> str:
    """One spelling for what is merely typeset differently: fences, spacing, fractions, text boxes, degrees, signs."""
    text = text.strip().removeprefix("$").removesuffix("$").strip().removesuffix(".").strip()
    for before, after in (("\\(", "\\)"), ("\\[", "\\]")):
        text = text.removeprefix(before).removesuffix(after)
    for symbol, plain in _SYMBOLS.items():
        text = text.replace(symbol, plain)
    text = _FENCES.sub("", _SPACING.sub(" ", text))
    text = _LETTER_UNIT.sub(r" \1-unit", text)  # 5 m is no product if m stands in a text box
    while (plain := _TEXT.sub(r" \1 ", text)) != text:
        text = plain
    text = re.sub(r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text)
    text = _DEGREES.sub("°", text).replace(r"\%", "%").replace(r"\$", "")
    if _THOUSANDS.match(text):
        text = _THOUSANDS.sub(lambda found: re.sub("[, ]", "", found[0]), text, count=1)
    return re.sub(r"\s+", " ", text).strip()


def closed(text: str) -> str:
    """Without spaces, but for those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def number(text: str) -> Fraction | None:
    """The exact value of an integer, decimal, scientific number or simple fraction; None for anything else."""
    text = closed(text)
    if found := _DECIMAL.fullmatch(text):
        return Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3] or found[4] or 0)
    if found := _FRACTION.fullmatch(text):
        above, below = (int(part) for part in found.groups()[1:] if part is not None)
        return Fraction(above, below) * (-1 if found[1] == "-" else 1) if below else None
    return None


def parts(text: str, separator: str = ",") -> list[str]:
    """`text` cut at each separator that stands outside all brackets (interval brackets need not match in kind)."""
    found, depth, start = [], 0, 0
    for token in re.finditer(rf"{_BRACKETS.pattern}|{separator}", text):
        if _BRACKETS.fullmatch(token[0]):
            depth += 1 if token[0] in _OPENING else -1
        elif depth == 0:
            found.append(text[start : token.start()])
            start = token.end()
    return [part.strip() for part in (*found, text[start:])]


def bracketed(text: str) -> tuple[str, str] | None:
    """The kind of outermost brackets, as `(]`, and what they hold; None if they do not hold all of the text."""
    opening = next((o for o in (r"\{", "(", "[") if text.startswith(o)), None)
    closing = next((c for c in (r"\}", ")", "]") if text.endswith(c)), None)
    if opening is None or closing is None or len(text) < len(opening) + len(closing):
        return None
    inner = text[len(opening) : -len(closing)]
    depth = 0
    for token in _BRACKETS.finditer(inner):
        depth += 1 if token[0] in _OPENING else -1
        if depth < 0:
            return None
    return (opening + closing).replace("\\", ""), inner

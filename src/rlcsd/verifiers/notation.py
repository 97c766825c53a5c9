"""How answers are written: one spelling for each, exact numbers, lists and brackets."""

from __future__ import annotations

import re
from fractions import Fraction

_SPACING = re.compile(r"(?<!\\)\\[,;:! ]|\\q?quad\b|~|\\displaystyle\b|\\limits\b")
_FENCES = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?=[\s()\[\]{}|.\\])")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|underline|mbox|operatorname)\s*\{([^{}]*)\}"
)
_LETTER_UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|textrm|mathrm)\s*\{\s*([a-zA-Z])\s*\}")
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "½": r"\frac{1}{2}",
    "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "∅": r"\emptyset ", r"\varnothing": r"\emptyset", r"\{\}": r"\emptyset",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\leq": r"\le",
    r"\geq": r"\ge", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\degree": "°", r"{,}": "", r"\tbinom": r"\binom", r"\dbinom": r"\binom",
    r"\langle": "(", r"\rangle": ")", r"\varphi": r"\phi", r"\backslash": r"\setminus", r"\prime": "'",
}  # fmt: skip
_ARGUMENT = r"(\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z0-9])"
_UNBRACED = (re.compile(rf"\\(frac|binom)\s*{_ARGUMENT}\s*{_ARGUMENT}"), re.compile(rf"\\(sqrt)\s*{_ARGUMENT}"))
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\s*\bdegrees?\b")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?(?![\d,])")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_NUMBER})(?:[eE]([-+]?\d{{1,3}})|(?:\\times|\\cdot)10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d)))?")
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_FRACTION = re.compile(r"([-+]?)(?:\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|\\frac(\d)(\d)|(\d+)/(\d+))")
_OPENING = ("(", "[", r"\{", "{")
_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]")


def _braced(command: re.Match[str]) -> str:
    name, *arguments = command.groups()
    return f"\\{name}" + "".join(each if each.startswith("{") else f"{{{each}}}" for each in arguments)


def clean(text: str, thousands: bool = True) -> str:
    """One spelling for what is merely typeset differently: fences, spacing, fractions, text boxes, degrees, signs.

    `thousands` reads 101,102 as one number; else it is a list of two.
    """
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
    for pattern in _UNBRACED:
        text = pattern.sub(_braced, text)
    text = _DEGREES.sub("°", text).replace(r"\%", "%").replace(r"\$", "")
    if thousands and _THOUSANDS.match(text):
        text = _THOUSANDS.sub(lambda found: re.sub("[, ]", "", found[0]), text, count=1)
    return re.sub(r"\s+", " ", text).strip()


def closed(text: str) -> str:
    """Without spaces, but for those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def number(text: str) -> Fraction | None:
    """The exact value of an integer, (repeating) decimal, scientific number or simple fraction; None for anything
    else."""
    text = closed(text)
    if found := _DECIMAL.fullmatch(text):
        return Fraction(found[1]) * Fraction(10) ** int(found[2] or found[3] or found[4] or 0)
    if found := _REPEATING.fullmatch(text):
        whole, begun, again = found[2] or "0", found[3], found[4]
        value = Fraction(int(whole + begun + again) - int(whole + begun), 10 ** len(begun) * (10 ** len(again) - 1))
        return -value if found[1] == "-" else value
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

"""How answers are written: what math-verify misreads is spelled as it reads it, plain numbers get their exact value."""

from __future__ import annotations

import re
from fractions import Fraction

_WRAPPED = re.compile(r"\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_PRICE = re.compile(r"\A\$\s*(?=[\d.,]+\Z)")  # $25
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|boldsymbol|bm|mbox|underline)\s*\{([^{}]*)\}")
_FUNCTIONS = (
    "arcsin|arccos|arctan|arccot|arcsec|arccsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|max|min"
)
_OPERATOR = re.compile(r"\\operatorname\*?\s*\{\s*([a-zA-Z]+)\s*\}")
_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "½": r"\frac{1}{2}", "√": r"\sqrt ",
    "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "²": "^2", "³": "^3", "°": r"^\circ ",
    r"\varnothing": r"\emptyset ", r"\{\}": r"\emptyset ", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\langle": "(", r"\rangle": ")",
    r"\backslash": r"\setminus ", r"\tbinom": r"\binom", r"\dbinom": r"\binom", r"\varphi": r"\phi", r"\degree": r"^\circ ",
    r"\$": "", r"\!": "", r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", "{,}": ",",
}  # fmt: skip
_SPACING = re.compile(
    r"(?<!\\)\\[,;: ]|\\q?quad\b|~|\\displaystyle\b|\\(?:left|right|[bB]igg?[lrm]?)(?=[\s()\[\]{}|.\\])"
)
_REWRITTEN = (
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=[\s({{\\^0-9]|$)"), r"\\\1"),  # arctan(2), ln 2
    (re.compile(r"(?<![\\a-zA-Z])(pi|infty|infinity|sqrt)(?![a-zA-Z])"), lambda found: {"pi": r"\pi ", "sqrt": r"\sqrt"}.get(found[1], r"\infty ")),
    (re.compile(r"(?<=[\w)}])\s*\*\s*(?=[\w(\\])"), r"\\cdot "),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\log_\{?e\}?"), r"\\ln "),
    (re.compile(r"\^\s*(-\s*\d+)"), r"^{\1}"),  # 10^-5
    (re.compile(r"\^\s*\((-?\w+)\)"), r"^{\1}"),
    (re.compile(r"(?<![\d.])(\d+)\s+(\d+)/(\d+)(?!\d)"), r"\1\\frac{\2}{\3}"),  # 1 1/2
    (re.compile(r"\s*\\?%|\s*\b(?:percent(?:age)?|per cent|pct)\b"), r"\\%"),
    (re.compile(r"(?<=[^,\s])\s*,?\s*(?<![a-zA-Z\\])(?:or|and)(?![a-zA-Z])\s*"), ", "),
)  # fmt: skip
_ARGUMENT = r"(\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z0-9])"
_UNBRACED = (re.compile(rf"\\(frac|binom)\s*{_ARGUMENT}\s*{_ARGUMENT}"), re.compile(rf"\\(sqrt)\s*{_ARGUMENT}"))
_COLUMN = re.compile(r"\\begin\{([pbv]?)matrix\}([^&]*?)(?:\\\\\s*)?\\end\{\1matrix\}", re.DOTALL)
_SET = re.compile(r"\{([^{}\\]*,[^{}\\]*)\}")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_NUMBER})(?:[eE]([-+]?\d{{1,3}})|(?:\\times|\\cdot)10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d)))?")
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_FRACTION = re.compile(r"([-+]?)(?:\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|\\frac(\d)(\d)|(\d+)/(\d+))")


def _braced(command: re.Match[str]) -> str:
    name, *arguments = command.groups()
    return f"\\{name}" + "".join(each if each.startswith("{") else f"{{{each}}}" for each in arguments)


def spelled(text: str) -> str | None:
    """An answer in the spelling that math-verify reads; None if a dollar sign inside splits it into several texts."""
    text = text.strip()
    while found := _WRAPPED.fullmatch(text):
        text = next(inner for inner in found.groups() if inner is not None).strip()
    for symbol, plain in _SYMBOLS.items():
        text = text.replace(symbol, plain)
    text = _PRICE.sub("", text)
    if "$" in text:
        return None
    text = _OPERATOR.sub(r"\\\1 ", _SPACING.sub(" ", text))
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    for pattern in _UNBRACED:
        text = pattern.sub(_braced, text)
    if found := _SET.fullmatch(text.strip()):
        text = found[1]  # braces without backslashes: a list, a set or a tuple
    return re.sub(r"\s+", " ", text).strip().removesuffix(".").strip()


def unwrapped(text: str) -> str:
    """What stands in text boxes, without the boxes."""
    while (plain := _TEXT.sub(r" \1 ", text)) != text:
        text = plain
    return re.sub(r"\s+", " ", text).strip()


def as_tuple(text: str) -> str:
    r"""A column vector as a tuple, `(1, 2)` for \begin{pmatrix}1\\2\end{pmatrix}; anything else as it is."""
    found = _COLUMN.fullmatch(text)
    return f"({', '.join(found[2].strip().split(chr(92) * 2))})" if found else text


def closed(text: str) -> str:
    """Without spaces, but for those between two digits, with or without a comma: 1, 234 is a list and 1,234 is not."""
    return re.sub(r"(?<!\d)(?<!\d,) | (?!\d)", "", text)


def decimal_point(text: str, other: str) -> str:
    """A decimal comma as a point, if the other answer has the same digits with a point."""
    pointed = text.replace(",", ".")
    return pointed if text.count(",") == 1 and closed(other) == pointed and not _THOUSANDS.fullmatch(text) else text


def listed(text: str, other: str) -> str:
    """101,102 as a list of two, if the other answer has brackets around its members."""
    return text.replace(",", ", ") if other.startswith(("(", "[", r"\{")) and _THOUSANDS.fullmatch(text) else text


def number(text: str) -> Fraction | None:
    """The exact value of an integer, (repeating) decimal, scientific number or simple fraction, else None."""
    text = closed(text)
    if _THOUSANDS.fullmatch(text):
        text = re.sub("[, ]", "", text)
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


# ------------------------------------------------------------------ units
# Units of measurement that may stand behind a number. A word that is not in this list is part of the answer.

_NAMES = """
    mm cm dm km millimet(?:er|re)s? centimet(?:er|re)s? kilomet(?:er|re)s? met(?:er|re)s? in inch(?:es)? ft foot feet
    yd yards? mi miles? mg kg milligrams? kilograms? grams? tons? tonnes? lbs? pounds? oz ounces? ml mL liters? litres?
    milliliters? gallons? quarts? pints? ms sec secs seconds? min mins minutes? hrs? hours? days? weeks? months? years?
    mph kmh kph Hz hertz volts? watts? amperes? ohms? joules? newtons? pascals? kelvins? celsius fahrenheit
    units? degrees? radians? rad deg cents? dollars? euros? rupees? yuan yen
"""
_WORDS = re.sub(r"\s+", "|", _NAMES.strip())
_LETTERS = "m|g|s|h|L|l|N|J|W|V|A|K|C"  # only in a text box: a bare letter is a variable
_SHAPE = r"(?:(?:square|cubic|sq|cu)\.? )?"
_POWER = r"(?: ?\^ ?\{?[-+]?\d\}?)?"
_ONE = rf"(?:{_SHAPE}(?:{_WORDS}){_POWER})"
_BOXED = re.compile(rf"(?<=[\d}})/])\s*\\(?:text|textrm|mathrm)\s*\{{\s*({_LETTERS})(?:\s*/\s*({_LETTERS}))?\s*\}}")
_MARKED = rf"(?:unit-(?:{_LETTERS}){_POWER})"
_ANY = rf"(?:{_ONE}|{_MARKED})"
_FURTHER = rf"(?: ?(?:(?:/|per|\\cdot)? ?{_ANY}|/ ?(?:{_LETTERS}){_POWER}))*"
_UNIT = re.compile(rf"(.*(?:[\d}})]|\\pi))\s*((?<![a-zA-Z])(?:{_ANY}){_FURTHER})\.?", re.DOTALL)
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")


def marked(text: str) -> str:
    """A one-letter unit in a text box is marked, so that it is told from a variable once the boxes are gone."""
    return _BOXED.sub(lambda found: "/".join(f" unit-{letter} " for letter in found.groups() if letter), text)


def without_unit(text: str) -> tuple[str, str]:
    """An answer without the unit behind it, and the unit in the singular ("" if there is none)."""
    found = _UNIT.fullmatch(text)
    if not found:
        return text, ""
    unit = re.sub(r"[\s{}.]+", "", found[2]).replace("unit-", "")
    return found[1].strip(), unit if len(unit) < 3 else unit.lower().removesuffix("s")


def without_degrees(text: str) -> str:
    """`90^\\circ` as 90, which is how most answers are written."""
    return _DEGREES.sub("", text).strip()

"""How answers are written: markup around an answer, LaTeX notation, units, and plain numbers with their exact value.

All of it is text to text and takes no algebra, so that verifiers that do not need math-verify can use it too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

_LONGEST = 2000  # characters; what is longer is no short answer, and is left as it is

# Full-width forms, and hyphens that are no ASCII; dashes stand apart, for they may be a minus or only separate.
PLAIN_SIGNS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("、\u3000‐‑", ", --")
DASHES = "–—―－−"
_MINUS = PLAIN_SIGNS | str.maketrans(dict.fromkeys(DASHES, "-"))

# ------------------------------------------------------------------ markup around an answer

_EDGES = re.compile(r"\A(?:\s|~|\\[,;:! ]|\\q?quad(?![a-zA-Z]))+|(?:\s|~|(?<!\\)\\[,;:!]|\\q?quad|\\(?=\s*\Z))+\Z")
_SIZES = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|tiny|small|normalsize|[lL]arge|LARGE|huge|Huge|bf|it|rm|sf|tt|bfseries|"
    r"itshape|boldmath|centering)(?![a-zA-Z])\s*"
)
_COLOR = re.compile(r"\\(?:text|page)?color\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}\s*(?:\{([^{}]*)\})?")
_COLOR_BOX = re.compile(r"\\colorbox\s*\{[^{}]*\}|\\fcolorbox\s*\{[^{}]*\}\s*\{[^{}]*\}")
_TAG = re.compile(  # a<b \text{ and } b>c has none
    r"</?(?:b|i|u|em|strong|span|font|mark|code|p|div|center|big)(?:\s+[\w-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[\w#%.-]+))*\s*>|"
    r"<br\s*/?>",
    re.IGNORECASE,
)
_BOLD = re.compile(r"(?<![\w)}*])\*\*(?=[^\s*])([^*]+?)(?<=[^\s*])\*\*(?![\w({*])")
_WRAPPERS = (
    re.compile(r"(\${1,2})([^$]*)\1"),
    re.compile(r"(\\\()((?:(?!\\[()]).)*)\\\)", re.DOTALL),
    re.compile(r"(\\\[)((?:(?!\\[\[\]]).)*)\\\]", re.DOTALL),
    re.compile(r"(`{1,3})([^`]*)\1"),
    re.compile(r"(\*{1,3})([^*]*)\1"),
    re.compile(r"(_{1,2})([^_]*)\1"),
    re.compile(r"(\")([^\"]*)\""),
)
_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|textsl|emph|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|"
    r"boldsymbol|bm|mbox|hbox|underline|boxed|fbox|framebox|bbox|ensuremath)\s*(?:\[[^\[\]]*\]\s*)*(?=\{)"
)
_STOP = re.compile(r"(?<![.,;\\])[,;]*(?<!\\right)(?<!\\left)[.,;。]\Z")
_INTRODUCTION = re.compile(
    r"(?P<box>\\text\{\s*)?(?:(?:so|thus|hence),? )?(?:the |my )?(?:final )?answer(?: is|\s*=|:)+\s*:?\s*(?(box)\})(?=\s*\S)",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """An answer without what only dresses it, for every verifier: markdown, colours, sizes, a box or a style around the
    whole, dollar signs, spaces at the ends, "the answer is", and a final full stop."""
    if len(text) > _LONGEST:
        return text.strip()
    text = _TAG.sub(" ", _SIZES.sub(" ", text)) if "\\" in text or "<" in text else text
    if "color" in text:
        text = _COLOR_BOX.sub("", _COLOR.sub(lambda found: f" {found[1] or ''} ", text))
    text = _BOLD.sub(r"\1", text)
    before = None
    while text != before:
        before = text
        text = _EDGES.sub("", text)
        text = _STOP.sub("", text)
        if introduction := _INTRODUCTION.match(text):
            text = text[introduction.end() :]
        for wrapper in _WRAPPERS:
            if (found := wrapper.fullmatch(text)) and found[2].strip():
                text = found[2]
        style = _STYLE.match(text)
        begin = style.end() if style else 0
        if text.startswith("{", begin) and closing(text, begin) == len(text) - 1:
            inner = text[begin + 1 : -1]
            text = inner if style or len(split(inner, (",",))[0]) == 1 else text  # {1,2} may be a set
    return text


def closing(text: str, begin: int) -> int | None:
    """The index of the brace that closes the one at `begin`; None if there is none."""
    depth = 0
    for found in re.finditer(r"\\.|[{}]", text[begin:], re.DOTALL):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0 and found[0] == "}":
            return begin + found.start()
    return None


# ------------------------------------------------------------------ LaTeX notation

_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|emph|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm|mbox|hbox|"
    r"underline)\s*\{([^{}]*)\}"
)
_PRICE = re.compile(r"\A\\?\$\s*([\d.,{}]+)\Z|\A([\d.,{}]+)\s*\\?\$\Z")  # $25
_CURRENCY = re.compile(r"(?<=\d)\s*[€£]\Z|\A[€£]\s*(?=\d)")
_FUNCTIONS = "arcsin|arccos|arctan|arccot|arcsec|arccsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp"
_OPERATOR = re.compile(r"\\operatorname\*?\s*\{\s*([a-zA-Z]+)\s*\}")
_SIGNS = {
    "×": r"\times ", "·": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "°": r"^\circ ", "…": r"\ldots ", "→": r"\to ", "↦": r"\mapsto ",
    "⇒": r"\implies ", "⇔": r"\iff ", "∧": r"\land ", "∨": r"\lor ", "¬": r"\neg ", "∀": r"\forall ", "∃": r"\exists ", "±": r"\pm ",
    "∓": r"\mp ", "∣": r"\mid ", "′": "'", "’": "'", "∖": r"\setminus ", r"\{\}": r"\emptyset ", r"\$": "", r"\!": "", "{,}": ",",
    "<=": r"\le ", ">=": r"\ge ", "...": r"\ldots ",
}  # fmt: skip
_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
_ON_LINE = str.maketrans(_RAISED + _LOWERED, "0123456789+-0123456789")
_SCRIPT = re.compile(f"[{_RAISED}]+|[{_LOWERED}]+")
_SIGN = re.compile("|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)))
_ALIASES = {
    "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge", "geqq": "ge", "neq": "ne", "dfrac": "frac", "tfrac": "frac",
    "cfrac": "frac", "rightarrow": "to", "longrightarrow": "to", "Rightarrow": "implies", "Longrightarrow": "implies",
    "Leftrightarrow": "iff", "Longleftrightarrow": "iff", "leftrightarrow": "iff", "longmapsto": "mapsto", "dots": "ldots",
    "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "hdots": "ldots", "varnothing": "emptyset", "smallsetminus": "setminus",
    "backslash": "setminus", "tbinom": "binom", "dbinom": "binom", "varphi": "phi", "wedge": "land", "vee": "lor", "lnot": "neg",
    "ast": "cdot", "tg": "tan", "ctg": "cot", "arctg": "arctan", "infin": "infty", "divides": "mid",
    "thinspace": " ", "lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]",
    "colon": ":", "degree": r"^\circ ", "div": "/", "lvert": "|", "rvert": "|", "vert": "|", "lg": r"\log_{10} ", "space": " ",
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_THIN = re.compile(r",\s*\\!\s*(?=\d{3}(?!\d))")  # 32,\! 349
_NEGATED = re.compile(r"\\not\s*(=|<|>|\\le(?![a-z])|\\ge(?![a-z])|\\in(?![a-z])|\\equiv(?![a-z])|\\mid(?![a-z]))")
_NEGATION = {"=": r"\ne ", "<": r"\ge ", ">": r"\le ", r"\le": ">", r"\ge": "<", r"\in": r"\notin "}
_SPACING = re.compile(
    r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\\(?:left|right)\s*\.|\\(?:left|right|middle|[bB]igg?[lrm]?)(?=[\s()\[\]{}|.\\/<>]|\Z)|"
    r"\\(?:h|v)space\s*\{[^{}]*\}|\\(?:no)?limits(?![a-zA-Z])"
)
_ARRAY = re.compile(r"([(\[|]|\\\{)?\s*\\begin\{array\}\s*(?:\{[^{}]*\})?(.*?)\\end\{array\}\s*([)\]|])?", re.DOTALL)
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\{(?:([dr]?cases)|(small|[bpvBV]?)matrix|(align(?:ed)?|gather(?:ed)?|split|eqnarray))\*?\}"
)
_BASES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_REWRITTEN = (
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:unit-)?C(?![a-zA-Z])"), " celsius "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:unit-)?F(?![a-zA-Z])"), " fahrenheit "),
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"\\mathcal\s*(?:\{([A-Z])\}|([A-Z]))"), r" \1\2"),
    (re.compile(r"(?<=\s)!="), r"\\ne "),
    (re.compile(r"\A\(([0-9A-Fa-f]+)\)(?=_)"), r"\1"),  # (1011)_2
    (re.compile(rf"_\{{\s*({'|'.join(_BASES)})\s*\}}"), lambda found: f"_{{{_BASES.index(found[1])}}}"),
    (re.compile(r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?=[\s({{\\^_0-9]|$)|(?<![\\a-zA-Z])(gcd|lcm|max|min)(?=\s*[({{\\])"), r"\\\1\2"),  # arctan(2), ln 2
    (re.compile(r"(?<![\\a-zA-Z])(pi|infty|infinity|sqrt)(?![a-zA-Z])"), lambda found: {"pi": r"\pi ", "sqrt": r"\sqrt"}.get(found[1], r"\infty ")),
    (re.compile(r"(?<=[\w)}])\s*\*\s*(?=[\w(\\])"), r"\\cdot "),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\log_\{?e\}?"), r"\\ln "),
    (re.compile(r"\^\s*\(((?:[^(),]|\([^(),]*\))*)\)"), r"^{\1}"),  # 2^(n+1)
    (re.compile(r"(?<![\d.^])(\d+)\s+(\d+)/(\d+)(?!\d)"), r"\1\\frac{\2}{\3}"),  # 1 1/2
    (re.compile(r"(?<!\s)\s*(?:\\?%|\b(?:percent(?:age)?|per cent|pct)\b)"), r"\\%"),
    (re.compile(r"\A(?:all |the )*(?:set of )?(?:all )?real(?: number)?s\Z"), r"\\mathbb{R}"),
    (re.compile(r"\\pmod\s*(\w)(?![\w}])|\\pmod\s*(\d+)"), lambda found: rf"\pmod{{{found[1] or found[2]}}}"),
    (re.compile(r"\(\s*\\?(?:b|p)?mod(?:ulo)?(?![a-z])\s*\{?([^(){}]*)\}?\s*\)"), r"\\pmod{\1}"),
    (re.compile(r"(?<=[^,;\s])\s*[,;]?\s*(?<![a-zA-Z\\])(or|and)(?:(?![a-zA-Z])|(?=[A-Z])),?\s*(?=\S)"), r" \\word\1 "),
)  # fmt: skip
_MODULO = re.compile(r"\\?(?<![a-zA-Z])[bp]?mod(?:ulo)?(?![a-z])\s*(?:\{([^{}]*)\}|([^\s,;(){}]+))")
_ARGUMENT = r"(\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z0-9])"
_DECIMAL_ARGUMENT = r"\d+(?:\.\d+)?"  # 2^10, a_12 and √10 are never meant as LaTeX reads them, 2^{1}0
_UNBRACED = (
    re.compile(rf"\\(frac|binom)\s*{_ARGUMENT}\s*{_ARGUMENT}"),
    re.compile(rf"\\(sqrt)\s*({_DECIMAL_ARGUMENT}|\{{[^{{}}]*\}}|\\[a-zA-Z]+|[a-zA-Z])"),
)
_BASE_AND_ARGUMENT = re.compile(r"\\log_(\d)(\d+)(?=\s*(?:[^\s\w\\({|.]|\Z))")  # \log_23 alone is that of 3
_EXPONENT = re.compile(rf"\^\s*([-+]?\s*{_DECIMAL_ARGUMENT})")
_INDEX = re.compile(r"_\s*(\d+|\w)")
_COLUMN = re.compile(r"\\begin\{([pbv]?)matrix\}([^&]*?)(?:\\\\\s*)?\\end\{\1matrix\}", re.DOTALL)
_SET = re.compile(r"\{([^{}\\]*,[^{}\\]*)\}")


def spelled(text: str) -> str | None:
    """An answer in one spelling of LaTeX; None if a dollar sign inside splits it into several texts.

    The words "and" and "or" between two parts become `\\wordand` and `\\wordor`.
    """
    text = _SCRIPT.sub(_on_line, text.translate(_MINUS))
    text = _THIN.sub(",", unwrapped(marked(clean(text))))
    text = _CURRENCY.sub("", _PRICE.sub(r"\1\2 dollars", text))
    text = _SIGN.sub(lambda found: _SIGNS[found[0]], text)
    if "$" in text:
        return None
    text = _OPERATOR.sub(r"\\\1 ", _SPACING.sub(" ", text))
    text = _COMMAND.sub(_alias, text)
    text = _NEGATED.sub(lambda found: _NEGATION.get(found[1], rf"\not{found[1]}"), text)
    text = _ENVIRONMENT.sub(_environment, _ARRAY.sub(_matrix, text))
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    for pattern in _UNBRACED:
        text = pattern.sub(_braced, text)
    text = _INDEX.sub(r"_{\1}", _BASE_AND_ARGUMENT.sub(r"\\log_{\1} \2", text))
    if r"\equiv" in text:
        text = _MODULO.sub(lambda found: rf"\pmod{{{found[1] or found[2]}}}", text)
    if text.count("|") == 1:
        text = text.replace("|", r"\mid ")
    if found := _SET.fullmatch(text.strip()):
        text = found[1]  # braces without backslashes: a list, a set or a tuple
    text = _EXPONENT.sub(r"^{\1}", text)
    text = re.sub(r"\\\{\s*\\\}", r"\\emptyset ", text)
    return re.sub(r"\s+", " ", text).strip().removesuffix(".").strip()


def _on_line(found: re.Match[str]) -> str:
    return f"{'^' if found[0][0] in _RAISED else '_'}{found[0].translate(_ON_LINE)} "


def _alias(found: re.Match[str]) -> str:
    if found[1] not in _ALIASES:
        return found[0]
    name = _ALIASES[found[1]]
    following = found.string[found.end() : found.end() + 1]
    return name if not name.isalpha() else f"\\{name} " if following.isalpha() else f"\\{name}"


def _matrix(found: re.Match[str]) -> str:
    """An array between brackets is a matrix, one behind a single brace a system of cases."""
    bracket, rows, end = found.groups()
    kind = {"(": "pmatrix", "[": "bmatrix", "|": "vmatrix", r"\{": "cases"}.get(bracket or "", "aligned")
    if bool(end) != (kind.endswith("matrix")):
        return found[0]
    return rf"\begin{{{kind}}}{rows}\end{{{kind}}}"


def _environment(found: re.Match[str]) -> str:
    part, cases, matrix, _ = found.groups()
    kind = "cases" if cases else "aligned" if matrix is None else f"{'v' if matrix == 'v' else 'p'}matrix"
    return rf"\{part}{{{kind}}}"


def _braced(command: re.Match[str]) -> str:
    name, *arguments = command.groups()
    return f"\\{name}" + "".join(each if each.startswith("{") else f"{{{each}}}" for each in arguments)


def unwrapped(text: str) -> str:
    """What stands in text boxes, without the boxes."""
    while (plain := _TEXT.sub(lambda found: f" {found[1].replace('$', '')} ", text)) != text:
        text = plain
    return re.sub(r"\s+", " ", text).strip()


def as_tuple(text: str) -> str:
    r"""A column vector as a tuple, `(1, 2)` for \begin{pmatrix}1\\2\end{pmatrix}; anything else as it is."""
    found = _COLUMN.fullmatch(text)
    return f"({', '.join(found[2].strip().split(chr(92) * 2))})" if found else text


def closed(text: str) -> str:
    """Without spaces, but for those between two digits, with or without a comma: 1, 234 is a list and 1,234 is not."""
    return re.sub(r"(?<!\d)(?<!\d,) | (?!\d)", "", text)


TOKEN = re.compile(r"\\begin\{\w+\}|\\end\{\w+\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|.", re.DOTALL)
_OPENING = ("(", "[", "{", r"\{", r"\lfloor", r"\lceil")
_CLOSING = (")", "]", "}", r"\}", r"\rfloor", r"\rceil")


def split(text: str, signs: Sequence[str] | Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The text cut at each of the signs outside all brackets: its parts, and the signs between them."""
    cut = signs if callable(signs) else signs.__contains__
    parts, found, depth = [""], list[str](), 0
    for token in TOKEN.findall(text):
        depth += (token in _OPENING or token.startswith(r"\begin")) - (token in _CLOSING or token.startswith(r"\end"))
        if depth == 0 and cut(token):
            parts.append("")
            found.append(r"\mid" if token == "|" else token)
        else:
            parts[-1] += token
    return parts, found


# ------------------------------------------------------------------ units

# Units of measurement that may stand behind a number. A word that is not in this list is part of the answer.
_NAMES = r"""
    mm cm dm km millimet(?:er|re)s? centimet(?:er|re)s? kilomet(?:er|re)s? met(?:er|re)s? in inch(?:es)? ft foot feet
    yd yards? mi miles? mg kg milligrams? kilograms? grams? tons? tonnes? lbs? pounds? oz ounces? ml mL liters? litres?
    milliliters? gallons? quarts? pints? ms sec secs seconds? min mins minutes? hrs? hours? days? weeks? months? years?
    mph kmh kph Hz hertz volts? watts? amperes? ohms? joules? newtons? pascals? kelvins? celsius fahrenheit mol moles?
    units? degrees? radians? rad deg cents? dollars? USD euros? EUR rupees? yuan yen [ap]\.?m\.?
"""
_UNIT_SYMBOLS = {
    "millimeter": "mm", "millimetre": "mm", "centimeter": "cm", "centimetre": "cm", "decimeter": "dm", "kilometer": "km", "kilometre": "km",
    "meter": "m", "metre": "m", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "gram": "g",
    "kilogram": "kg", "milligram": "mg", "pound": "lb", "ounce": "oz", "liter": "l", "litre": "l", "milliliter": "ml", "second": "s",
    "sec": "s", "minute": "min", "hour": "h", "hr": "h", "degree": "deg", "radian": "rad", "kmh": "km/h", "kph": "km/h", "L": "l",
    "mL": "ml", "hertz": "Hz", "volt": "V", "watt": "W", "ampere": "A", "joule": "J", "newton": "N", "pascal": "Pa", "kelvin": "K",
    "mole": "mol", "USD": "dollar", "EUR": "euro",
}  # fmt: skip
_UNIT_NAMES = re.sub(r"\s+", "|", _NAMES.strip())
_UNIT_LETTERS = "m|g|s|h|L|l|N|J|W|V|A|K|C|F|T|H"  # only in a text box: a bare letter is a variable
_PREFIXED = rf"[TGMkcdmunp]?(?:{_UNIT_LETTERS}|mol|Hz|Pa|Wb|eV|cal|bar|ohm)"  # of the SI; likewise
_SHAPE = r"(?:(?:square|cubic|sq|cu)\.? )?"
_POWER = r"(?: ?\^ ?\{?[-+]?\d\}?)?"
_ONE_UNIT = rf"(?:{_SHAPE}(?:{_UNIT_NAMES}){_POWER})"
_MARKED_UNIT = rf"(?:unit-[a-zA-Z.]+{_POWER})"
_ANY_UNIT = rf"(?:{_ONE_UNIT}|{_MARKED_UNIT})"
_FURTHER = rf"(?: ?(?:(?:/|per|\\cdot)? ?{_ANY_UNIT}|/ ?(?:{_UNIT_LETTERS}){_POWER}))*"
_UNIT = re.compile(rf"(.*(?:[\d}})]|\\pi))\s*((?<![a-zA-Z])(?:{_ANY_UNIT}){_FURTHER})\.?", re.DOTALL)
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)")
_GAP = r"(?:\s|~|\\[,;: ])"
_BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_BOX = rf"\\(?:text|textrm|textnormal|mathrm|mbox)\s*{_BRACED}"
_BEHIND = re.compile(
    rf"(?:(?<=[\d}})])|(?<=\\pi))(?:{_GAP}*(?={_BOX}|\\frac\s*\{{\s*{_BOX}|\\mu{_GAP}*{_BOX})|{_GAP}*(?!\s){_GAP}(?=\\Omega))"
)
_AS_TEXT = (
    (re.compile(r"\\mu(?![a-zA-Z])\s*|[μµ]"), "u"),
    (re.compile(r"\\Omega(?![a-zA-Z])|[ΩΩ]"), "ohm"),
    (re.compile(_BOX), r"\1"),
    (re.compile(rf"\\frac\s*{_BRACED}\s*{_BRACED}"), r"\1/(\2)"),
    (re.compile(rf"(?:{_GAP}|\\cdot|[·⋅*])+"), " "),
)
_SYMBOL = rf"(?<![a-zA-Z])(?:{_PREFIXED}|{_UNIT_NAMES})(?![a-zA-Z])"
_UNITS = re.compile(rf"(?:(?: |/|per|[()])*{_SYMBOL}{_POWER})+[ )]*")


def marked(text: str) -> str:
    """A unit in text boxes at the end is marked, so that it is told from variables once the boxes are gone."""
    for gap in _BEHIND.finditer(text):
        unit = text[gap.end() :]
        for pattern, plain in _AS_TEXT:
            unit = pattern.sub(plain, unit)
        if unit.count("(") == unit.count(")") and _UNITS.fullmatch(unit):
            return text[: gap.start()] + " " + re.sub(_SYMBOL, r"unit-\g<0>", re.sub("[()]", " ", unit))
    return text


def without_unit(text: str) -> tuple[str, str]:
    """An answer without the unit behind it, and the unit by its symbol ("" if there is none)."""
    found = _UNIT.fullmatch(text)
    if not found:
        return text, ""
    return found[1].strip(), _canonical_unit(found[2])


def _canonical_unit(unit: str) -> str:
    """A unit as powers: `square centimeters` is cm^2, and `m/s^2` m^1 s^-2. All that follows a slash is divided by."""
    words = re.sub(r"\bunit-|[{}]|\\cdot", " ", re.sub(r"\s*(?:/|\bper\b)\s*", " / ", unit.replace(".", "")))
    powers, shape, side = Counter[str](), 1, 1
    for word in re.sub(r"\s*\^\s*", "^", words).split():
        if word in ("square", "sq", "cubic", "cu"):
            shape = 3 if word.startswith("cu") else 2
        elif word == "/":
            side = -1
        else:
            name, _, exponent = word.partition("^")
            singular = name if len(name) < 3 else name.removesuffix("s")
            above, *below = _UNIT_SYMBOLS.get(name, _UNIT_SYMBOLS.get(singular, singular)).split("/")
            power, shape = side * int(exponent or shape), 1
            powers[above] += power
            powers.subtract(dict.fromkeys(below, power))
    if powers.keys() & {"celsiu", "fahrenheit"}:
        del powers["deg"]
    return " ".join(f"{name}^{power}" for name, power in sorted(powers.items()))


def without_degrees(text: str) -> str:
    """`90^\\circ` as 90, which is how most answers are written."""
    return _DEGREES.sub("", text).strip()


# ------------------------------------------------------------------ plain numbers

_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_NUMBER})(?:[eE]([-+]?\d{{1,3}})|(?:\\times|\\cdot)10\^(?:\{{([-+]?\d{{1,3}})\}}|(\d)))?")
_REPEATING = re.compile(r"([-+]?)(\d*)\.(\d*)\\overline\{(\d+)\}")
_FRACTION = re.compile(r"([-+]?)(?:\\frac\{([-+]?\d+)\}\{([-+]?\d+)\}|\\frac(\d)(\d)|(\d+)/(\d+))")


def decimal_point(text: str, other: str) -> str:
    """A decimal comma as a point, if the other answer has the same digits with a point."""
    pointed = text.replace(",", ".")
    return pointed if text.count(",") == 1 and closed(other) == pointed and not _THOUSANDS.fullmatch(text) else text


def listed(text: str, other: str) -> str:
    """101,102 as a list of two, if the other answer has brackets around its members."""
    return text.replace(",", ", ") if other.startswith(("(", "[", r"\{")) and _THOUSANDS.fullmatch(text) else text


def rounded(text: str) -> tuple[Fraction, Fraction] | None:
    """A decimal of at least twelve digits, as a program prints it, and the size of its last digit; else None."""
    found = re.fullmatch(r"[-+]?(\d*)\.(\d+)", text.strip())
    if not found or len((found[1] + found[2]).lstrip("0")) < 12:
        return None
    return Fraction(text.strip()), Fraction(1, 10 ** len(found[2]))


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

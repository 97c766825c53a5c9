"""Do two formulas denote the same value, list, set, tuple or interval?

Plain numbers are compared exactly. For everything else the LaTeX grammar of latex2sympy reads the two texts, each as a
whole or not at all, and math-verify compares what was read. In front of them stand guards against what they overlook,
each of which only ever refuses; an evaluation at a few points refuses most unequal expressions before any algebra.

Matters of taste: a bare list may stand for a set or a tuple, braces without backslashes too, but `\\{1,2\\}` is not the
tuple (1,2). A comma is a decimal point only beside the same digits with a point. 1,234 is one number and 1, 234 a
list. 3:30 is the ratio 1:10. `50 %` may be written 50 or 1/2. A unit may be left out, never exchanged.
`x = 5` answers 5, but `x^2 = 5`, `2x = 5` and `2 + 3 = 5` do not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from .latex import as_tuple, closed, decimal_point, listed, number, rounded, without_degrees, without_unit

_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+")
_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
_PRIMED = re.compile(r"'|\\prime\b|\^\{?(?:T|\\top)\b\}?")
_COEFFICIENT = re.compile(r"[-+]?(?:\d[\d./]*|\\frac\{\d+\}\{\d+\})\s*([a-zA-Z])")
_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{2,}")
_NAME = re.compile(r"(?<![a-zA-Z\\])[A-Z]{2,}(?![a-z])")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\w)")
_ARGUMENT = re.compile(r"(?<=[a-zA-Z])\([\w, ]*\)")
_APPLIED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|ln|log|exp|gcd|lcm|sqrt|binom|sum|prod|int)(?![a-z])")
_ZERO_POWER = re.compile(r"(?<![\d.])0\s*\^\s*\{?\s*0\s*\}?(?![\d.])")


def same_value(given: str, reference: str) -> bool:
    """True if two formulas in one spelling (`latex.spelled`) denote the same."""
    (given, unit), (reference, other_unit) = without_unit(given), without_unit(reference)
    if unit and other_unit and unit != other_unit:
        return False
    given, reference = decimal_point(given, reference), decimal_point(reference, given)
    exact = _same_number(given, reference)
    if exact is not None:
        return exact
    assigned = _assigned(given), _assigned(reference)
    if assigned[0] or assigned[1]:
        return _same_assignments(assigned, (given, reference))
    equations = _equations(given), _equations(reference)
    if equations == (1, 1):
        (name, _, value), (other, _, other_value) = given.partition("="), reference.partition("=")
        if closed(name) == closed(other):
            return same_value(value.strip(), other_value.strip())
    elif 0 in equations and equations != (0, 0):
        named = given if equations[0] else reference
        if not names_value(named):
            return False
        if max(equations) == 1:
            return same_value(*(text.rpartition("=")[2].strip() for text in (given, reference)))
    if _told_apart(given, reference):
        return False
    return _same_formulas(listed(given, reference), listed(reference, given))


def _same_number(given: str, reference: str) -> bool | None:
    """Exact comparison of two plain numbers, percentages among them; None if either is something else."""
    if (r"\circ" in given and r"\circ" in reference) or r"\pi" not in given + reference:
        given, reference = without_degrees(given), without_degrees(reference)
    percent = [text.endswith("%") for text in (given, reference)]
    a, b = (number(text.removesuffix("%").rstrip("\\ ")) for text in (given, reference))
    if a is None or b is None:
        return None
    if percent[0] != percent[1]:  # "what percentage" may be answered 50, 50 % or 0.5
        return a == b or (a / 100 == b if percent[0] else a == b / 100)
    for text, value, other in ((given, a, b), (reference, b, a)):
        if (printed := rounded(text)) and rounded(reference if text is given else given) is None:
            return abs(value - other) <= printed[1]
    return a == b


def _told_apart(given: str, reference: str) -> bool:
    """Whether two formulas differ in something that the comparison overlooks."""
    for names in (_COMMAND.findall, _letters):  # x and X, \pi and \Pi
        ours, theirs = set(names(given)), set(names(reference))
        if ours != theirs and {name.lower() for name in ours} == {name.lower() for name in theirs}:
            return True
    if _words(given) != _words(reference) and set(_letters(given)) != set(_letters(reference)):
        return True  # 5 trillion and 5, 0 mod n and 0
    named = [set(_NAME.findall(_COMMAND.sub(" ", text))) for text in (given, reference)]
    if all(named) and named[0] != named[1]:
        return True  # the angles ABC and BAC
    if bool(_ZERO_POWER.search(given)) != bool(_ZERO_POWER.search(reference)):
        return True
    if len(_PRIMED.findall(given)) != len(_PRIMED.findall(reference)):
        return True  # f' and f, the transpose of A and A
    for one, other in ((given, reference), (reference, given)):
        bracketed = other.startswith(("(", "[")) and len(members(other)) == 1 and "," in other
        if bracketed and one.startswith(r"\{") and r"\cup" not in other and _COMMAND.search(one) is None:
            return True  # the set of 1 and 2 and the pair (1,2)
        based = _BASE.fullmatch(one)
        if based and (found := _BASE.fullmatch(other)) and based.groups() != found.groups():
            return True
        if based and not _BASE.fullmatch(other) and based[1].isdigit():
            return True  # 12 in base 5 and 12
        imaginary = r"\sqrt" in other and one.endswith("i")
        if (found := _COEFFICIENT.fullmatch(one)) and found[1] not in other and not imaginary:
            return True  # 2x and 2
    if max(given.count(":"), reference.count(":")) > 1 and given.count(":") != reference.count(":"):
        return True  # 1:2:3 is no fraction
    counts = [Counter(map(closed, members(text))) for text in (given, reference)]
    return counts[0] != counts[1] and any(max(count.values()) > 1 for count in counts)  # 1,1,2 and 2,2,1


def _assigned(text: str) -> dict[str, str] | None:
    """Value by name, if the text is several names, each with its value: x = 3, y = -2."""
    pairs = [part.split("=") for part in members(text.replace(";", ","))]
    if len(pairs) < 2 or any(len(pair) != 2 for pair in pairs):
        return None
    found = {closed(name.strip()): value.strip() for name, value in pairs}
    return found if len(found) == len(pairs) and all(names_value(f"{name}=") for name in found) else None


def _same_assignments(assigned: tuple[dict[str, str] | None, dict[str, str] | None], texts: tuple[str, str]) -> bool:
    ours, theirs = assigned
    if ours and theirs:
        return ours.keys() == theirs.keys() and all(same_value(value, theirs[name]) for name, value in ours.items())
    named, values = (ours, texts[1]) if ours else (theirs, texts[0])
    assert named is not None
    values = values.rpartition("=")[2].strip()  # (x, y) = (3, -2)
    inner = re.fullmatch(r"\((.*)\)", values)
    listed_values = members(inner[1] if inner else values)
    in_order = [[value for _, value in sorted(named.items())], list(named.values())]
    return any(
        len(order) == len(listed_values) and all(map(same_value, order, map(str.strip, listed_values)))
        for order in (in_order if inner else in_order[1:])
    )


def _equations(text: str) -> int:
    """How many `=` stand outside all brackets."""
    found = depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        found += character == "=" and depth == 0
    return found


def members(text: str) -> list[str]:
    """The members of a bare list: cut at each comma outside all brackets."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


def _letters(text: str) -> list[str]:
    return re.findall("[a-zA-Z]", _COMMAND.sub(" ", text))


def _words(text: str) -> set[str]:
    """Words that are no product of a few variables: they have a vowel and at least two letters."""
    found = _WORD.findall(_COMMAND.sub(lambda name: f" {name[0]} ", text))
    return {word.casefold() for word in found if re.search("[aeiou]", word) and not word.isupper()} | (
        {"mod"} if re.search(r"\\[bp]?mod\b", text) else set()
    )


def names_value(text: str) -> bool:
    """Whether all that stands before the last `=` is the name of a value: x, f(2), S_1:S_2, |AB|, (x, y)."""
    names = text[: text.rfind("=")].replace("=", ",").replace(r"\text", "")
    names = _ARGUMENT.sub("", _SUBSCRIPT.sub("", names))
    if _APPLIED.search(names):
        return False  # sin x = 1 says nothing about one value
    for piece in re.split(r"[,;]", names):
        if re.search(r"[\d^+]|-", piece) and not re.fullmatch(r"\s*\\?\W*[-+]?[\d.]+(?:/\d+)?\W*", piece):
            return False
        if re.search(r"(?<![a-zA-Z\\])[a-z]{2}", piece):
            return False  # xy = 6 says nothing about one value
    first = re.split(r"[,;]", names)[0]
    return re.search(r"[a-zA-Z]", first) is not None


# ------------------------------------------------------------------ what the grammar reads

# A symbol of an answer stands for a positive number unless an absolute value says that its sign matters:
# \sqrt{1/n} is 1/\sqrt{n}, and \ln x^2 is 2\ln x, but |x| is not x.
POSITIVE_SYMBOLS = True

_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\))?\s*\^\s*\{?\s*\\circ\s*\}?")
_IMAGINARY = re.compile(r"(?<![a-zA-Z\\_{])\\?i(?![a-zA-Z=])|\\mathbb\{C\}|\\(?:re|im|Re|Im|arg|imath)(?![a-z])|e\^\{i")
_ANGLES = re.compile(r"\\pi|\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_MIXED = re.compile(r"(?<![\d.^_])(\d+)\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\}")
_SPACED = re.compile(r"(?<!\d)\d{1,3}(?: \d{3})+(?!\d)")
_REPEATING = re.compile(r"\d*\.\d*\\overline\s*\{\d+\}")
_PREPARED = (
    (re.compile(r"\\word(?:and|or)"), ", "),
    (re.compile(r"(\d+(?:\.\d+)?)\s*\\%"), r"\\frac{\1}{100}"),
    (re.compile(r"(?<=\d)[eE](?=[-+]?\d)([-+]?\d+)"), r"\\cdot 10^{\1}"),
    (re.compile(r"(\\[a-zA-Z]+)\s+(?=\{)"), r"\1"),
    (re.compile(r"(?<![\w.])(\w|\(\w+\))!\s*\^"), r"(\1!)^"),
    (re.compile(r"([_^])\s*([a-zA-Z0-9])"), r"\1{\2}"),
    (re.compile(r"(\\mathbb\{[A-Z]\}|[)\]])\s*-\s*(?=\\\{)"), r"\1\\setminus "),
    (re.compile(r"(?<![\\\w}\])^_])\{([^{}]*)\}"), r"(\1)"),
    # two numbers side by side are a product, which latex2sympy takes for a mixed number
    (re.compile(r"(\\frac\{-?\d+\}\{\d+\})\s*(?=[\d(]|\\frac|\\sqrt)"), r"\1\\cdot "),
    (re.compile(r"(?<![\w{}\\.])(\d+(?:\.\d+)?)\s*(?=\()|(?<=\d\))\s*()(?=[(\d])"), r"\1\\cdot "),
)
# What the grammar drops or misreads (5!! is no factorial of 120), and factorials whose digits take minutes.
_DROPPED = re.compile(
    r"!\s*!|\d\d!\s*\)\s*!|\d{5}\s*!|\\phantom|\\boxed|\d\s+\d|(?<![a-zA-Z\d_])\d+\s*_|\\approx|\\equiv|\\(?:gcd|lcm)\s*\((?![\d\s,]*\))"
)


def readable(text: str) -> str | None:
    """The text as the grammar needs it; None for what the grammar would drop or misread."""
    text = _SPACED.sub(lambda found: found[0].replace(" ", ""), text)
    text = _REPEATING.sub(lambda found: str(number(found[0])) if number(found[0]) is not None else found[0], text)
    text = _MIXED.sub(_product_or_mixed, text)
    for pattern, replacement in _PREPARED:
        text = pattern.sub(replacement, text)
    return None if _DROPPED.search(text) else text.replace(r"\le ", r"\leq ").replace(r"\ge ", r"\geq ")


def _product_or_mixed(found: re.Match[str]) -> str:
    whole, above, below = map(int, found.groups())
    if 0 < above < below:
        return rf"\frac{{{whole * below + above}}}{{{below}}}"
    return rf"{whole}\cdot\frac{{{above}}}{{{below}}}"


@lru_cache(maxsize=64)
def parsed(text: str, imaginary: bool = False) -> Any | None:
    """The whole text as a sympy object; None if the grammar does not read all of it."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
    from sympy import Basic, I, MatrixBase

    prepared = readable(text)
    if prepared is None:
        return None
    try:
        found = latex2sympy(
            prepared,
            is_real=None if imaginary else True,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except Exception:  # of many kinds: the grammar's, or a symbolic step that the text does not allow
        return None
    if not isinstance(found, Basic | MatrixBase):
        return None
    return found.subs({s: I for s in found.free_symbols if s.name == "i"}) if imaginary else found


def _same_formulas(given: str, reference: str) -> bool:
    from math_verify import verify

    both = given + reference
    if r"\circ" in both:
        angles = _ANGLES.search(both)
        given, reference = (_DEGREES.sub(_radians if angles else r"\1", text) for text in (given, reference))
    if r"\ln" in both:  # a plain log beside a natural one is natural too
        given, reference = (re.sub(r"\\log(?![_a-z])", r"\\ln", text) for text in (given, reference))
    if "matrix" not in given or "matrix" not in reference:
        given, reference = as_tuple(given), as_tuple(reference)
    imaginary = bool(_IMAGINARY.search(both))
    ours, theirs = parsed(given, imaginary), parsed(reference, imaginary)
    if ours is None or theirs is None or _differ_somewhere(ours, theirs):
        return False
    equations = [_equation_list(found) for found in (ours, theirs)]
    if equations[0] or equations[1]:
        return matched(equations[0], equations[1], lambda a, b: same_relation((a.lhs, a.rhs), (b.lhs, b.rhs)))
    same = verify(theirs, ours, float_rounding=12, timeout_seconds=None, allow_set_relation_comp=True)
    return bool(same and _exactly(ours, theirs)) or (POSITIVE_SYMBOLS and _same_for_every_sign(ours, theirs))


def _equation_list(found: Any) -> list[Any]:
    """The equations that a formula is or lists, if it is nothing else."""
    from sympy import Eq, FiniteSet

    members = list(found.args) if isinstance(found, FiniteSet) else [found]
    return members if all(isinstance(member, Eq) for member in members) else []


def matched(ours: Sequence[Any], theirs: Sequence[Any], alike: Callable[[Any, Any], bool]) -> bool:
    """Whether the two lists pair off, in any order."""
    left = list(theirs)
    for one in ours:
        index = next((i for i, other in enumerate(left) if alike(one, other)), None)
        if index is None:
            return False
        del left[index]
    return not left


def same_relation(ours: tuple[Any, Any], theirs: tuple[Any, Any], positive: bool = False) -> bool:
    """Whether two relations, each between two expressions, are one multiplied by a number, or by a positive number."""
    from sympy import Expr, expand, simplify

    if not all(isinstance(side, Expr) for side in (*ours, *theirs)):
        return bool(ours == theirs)
    one, other = expand(ours[0] - ours[1]), expand(theirs[0] - theirs[1])
    if not one.free_symbols or not other.free_symbols:
        return False  # 0 = 1 says nothing
    ratio = simplify(one / other)
    return bool(ratio.is_number and ratio.is_finite and ratio != 0 and (not positive or ratio > 0))


def _radians(found: re.Match[str]) -> str:
    value = found[1] or ""
    return rf"\frac{{{value}\pi}}{{180}}" if value[:1].isdigit() else rf"{value}\cdot\frac{{\pi}}{{180}}"


def _differ_somewhere(ours: Any, theirs: Any) -> bool:
    """Whether two expressions clearly differ where their symbols are certain positive whole numbers."""
    from sympy import Expr, Integral, Limit, Product, Sum, prime

    if not (isinstance(ours, Expr) and isinstance(theirs, Expr)) or any(
        each.has(Sum, Integral, Limit, Product) for each in (ours, theirs)
    ):
        return False
    symbols = sorted(ours.free_symbols | theirs.free_symbols, key=str)
    for first in (3, 5) if symbols else (3,):
        values = {symbol: prime(first + index) for index, symbol in enumerate(symbols)}
        try:
            a, b = (complex(each.subs(values).evalf(20)) for each in (ours, theirs))
            if abs(a - b) > 1e-8 * max(abs(a), abs(b)):
                return True
        except (TypeError, ValueError, ArithmeticError):
            return False
    return False


def _same_for_every_sign(ours: Any, theirs: Any) -> bool:
    """Whether two expressions are equal where their symbols are positive, or also where they are negative if either
    has an absolute value."""
    from itertools import product

    from sympy import Abs, Expr, Symbol, expand_log, simplify

    symbols = sorted(ours.free_symbols | theirs.free_symbols, key=str)
    if not (isinstance(ours, Expr) and isinstance(theirs, Expr)) or not 1 <= len(symbols) <= 6:
        return False
    signs = (1, -1) if ours.has(Abs) or theirs.has(Abs) else (1,)
    for choice in product(signs, repeat=len(symbols)):
        values = {s: sign * Symbol(s.name, positive=True) for s, sign in zip(symbols, choice, strict=True)}
        difference = (ours - theirs).subs(values).doit()
        if difference != 0 and simplify(expand_log(difference)) != 0:
            return False
    return True


def _exactly(ours: Any, theirs: Any) -> bool:
    """Whether two numbers that agree to a few digits agree to all of them; True for anything but numbers."""
    if not (getattr(ours, "is_number", False) and getattr(theirs, "is_number", False)):
        return True
    if ours.is_infinite or theirs.is_infinite:
        return bool(ours == theirs)
    from sympy import Float

    rounded = ours.has(Float) or theirs.has(Float)
    difference = abs((ours - theirs).evalf(20, maxn=1000))
    size = max(abs(ours.evalf(20)), abs(theirs.evalf(20)))
    return bool(difference <= size * (1e-9 if rounded else Float("1e-300")))

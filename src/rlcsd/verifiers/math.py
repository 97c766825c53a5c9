"""Do two short mathematical answers say the same?

math-verify decides. In front of it stands one spelling for what it misreads (`notation.py`) and exact arithmetic for
plain numbers; behind it stand guards against what it overlooks, each of which only ever refuses. It runs in a worker
process (`pool.py`), since symbolic work knows no time limit of its own.

Matters of taste: a bare list may stand for a set or a tuple, braces without backslashes too, but `\{1,2\}` is not the
tuple (1,2). A comma is a decimal point only beside the same digits with a point. 1,234 is one number and 1, 234 a
list. 3:30 is the ratio 1:10. `50 %` may be written 50 or 1/2. A unit may be left out, never exchanged.
`x = 5` answers 5, but `x^2 = 5`, `2x = 5` and `2 + 3 = 5` do not.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import MissingError
from .boxed import last_boxed
from .latex import (
    as_tuple,
    closed,
    decimal_point,
    listed,
    marked,
    number,
    spelled,
    unwrapped,
    without_degrees,
    without_unit,
)
from .pool import WorkerPool

_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+")
_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
_MARKED = re.compile(r"'|\\prime\b|\^\{?(?:T|\\top)\b\}?")
_COEFFICIENT = re.compile(r"[-+]?(?:\d[\d./]*|\\frac\{\d+\}\{\d+\})\s*([a-zA-Z])")
_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{2,}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_LETTER = re.compile(r"\(?([A-Z])\)?[.)]?")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\w)")
_ARGUMENT = re.compile(r"(?<=[a-zA-Z])\([\w, ]*\)")
_ZERO_POWER = re.compile(r"(?<![\d.])0\s*\^\s*\{?\s*0\s*\}?(?![\d.])")


def equivalent(given: str, reference: str) -> bool:
    """True if the two answers denote the same value, list, set, tuple, interval, statement or word."""
    plain, plainly = (spelled(unwrapped(marked(text))) for text in (given, reference))
    if not plain or not plainly:
        return False
    if closed(plain) == closed(plainly):
        return True
    words = _same_words(plain, plainly)
    if words is not None:
        return words
    (plain, unit), (plainly, other_unit) = without_unit(plain), without_unit(plainly)
    if unit and other_unit and unit != other_unit:
        return False
    plain, plainly = decimal_point(plain, plainly), decimal_point(plainly, plain)
    exact = _same_number(plain, plainly)
    if exact is not None:
        return exact
    if ("=" in plain) != ("=" in plainly):
        named = plain if "=" in plain else plainly
        if not _names_value(named):
            return False
        if named.count("=") == 1:
            plain, plainly = (text.rpartition("=")[2].strip() for text in (plain, plainly))
    if _told_apart(plain, plainly):
        return False
    return equivalent_formulas(listed(plain, plainly), listed(plainly, plain))


def _same_words(given: str, reference: str) -> bool | None:
    """The verdict on two answers in words or by the letter of a choice; None if either is a formula."""
    letters = _LETTER.fullmatch(given), _LETTER.fullmatch(reference)
    if letters[0] and letters[1]:
        return letters[0][1] == letters[1][1]
    if not (_WORDS.fullmatch(given) and _WORDS.fullmatch(reference)):
        return None
    if max(len(given), len(reference)) > 2:
        return given.casefold() == reference.casefold()
    return given == reference if given.isupper() and reference.isupper() else None


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
    return a == b


def _told_apart(given: str, reference: str) -> bool:
    """Whether two formulas differ in something that math-verify overlooks."""
    for names in (_COMMAND.findall, _letters):  # x and X, \pi and \Pi
        ours, theirs = set(names(given)), set(names(reference))
        if ours != theirs and {name.lower() for name in ours} == {name.lower() for name in theirs}:
            return True
    if _words(given) != _words(reference) and set(_letters(given)) != set(_letters(reference)):
        return True  # 5 trillion and 5, 0 mod n and 0
    if bool(_ZERO_POWER.search(given)) != bool(_ZERO_POWER.search(reference)):
        return True
    if len(_MARKED.findall(given)) != len(_MARKED.findall(reference)):
        return True  # f' and f, the transpose of A and A
    for one, other in ((given, reference), (reference, given)):
        if one.startswith(r"\{") and other.startswith(("(", "[")) and other.endswith((")", "]")) and "," in other:
            return r"\cup" not in other and _COMMAND.search(one) is None
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
    counts = [Counter(map(closed, _members(text))) for text in (given, reference)]
    return counts[0] != counts[1] and any(max(count.values()) > 1 for count in counts)  # 1,1,2 and 2,2,1


def _members(text: str) -> list[str]:
    """The members of a bare list: cut at each comma outside all brackets."""
    members, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            members.append("")
        else:
            members[-1] += character
    return members


def _letters(text: str) -> list[str]:
    return re.findall("[a-zA-Z]", _COMMAND.sub(" ", text))


def _words(text: str) -> set[str]:
    """Words that are no product of a few variables: they have a vowel and at least two letters."""
    found = _WORD.findall(_COMMAND.sub(lambda name: f" {name[0]} ", text))
    return {word.casefold() for word in found if re.search("[aeiou]", word) and not word.isupper()} | (
        {"mod"} if re.search(r"\\[bp]?mod\b", text) else set()
    )


def _names_value(text: str) -> bool:
    """Whether all that stands before the last `=` is the name of a value: x, f(2), S_1:S_2, |AB|, (x, y)."""
    names = text[: text.rfind("=")].replace("=", ",").replace(r"\text", "")
    names = _ARGUMENT.sub("", _SUBSCRIPT.sub("", names))
    for piece in re.split(r"[,;]", names):
        if re.search(r"[\d^+]|-", piece) and not re.fullmatch(r"\s*\\?\W*[-+]?[\d.]+(?:/\d+)?\W*", piece):
            return False
        if re.search(r"(?<![a-zA-Z\\])[a-z]{2}", piece):
            return False  # xy = 6 says nothing about one value
    first = re.split(r"[,;]", names)[0]
    return re.search(r"[a-zA-Z]", first) is not None


def _parsed(text: str) -> list[Any]:
    from math_verify import parse
    from sympy import Basic, I

    found = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return [
        item.subs({s: I for s in item.free_symbols if s.name == "i"}) if isinstance(item, Basic) else item
        for item in found
    ]


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


def equivalent_formulas(given: str, reference: str) -> bool:
    """The verdict of math-verify, with exact arithmetic where both are numbers."""
    from math_verify import verify

    if r"\pi" in given + reference:
        given, reference = (
            re.sub(r"\^\s*\{?\s*\\circ\s*\}?", r"\\cdot\\frac{\\pi}{180}", text) for text in (given, reference)
        )
    if r"\ln" in given + reference:  # a plain log beside a natural one is natural too
        given, reference = (re.sub(r"\\log(?![_a-z])", r"\\ln", text) for text in (given, reference))
    if "matrix" not in given or "matrix" not in reference:
        given, reference = as_tuple(given), as_tuple(reference)
    ours, theirs = _parsed(given), _parsed(reference)
    if not ours or not theirs:
        return False
    same = verify(theirs, ours, float_rounding=12, timeout_seconds=None, allow_set_relation_comp=True)
    return bool(same) and _exactly(ours[0], theirs[0])


# ------------------------------------------------------------------ math
# Is the last boxed answer mathematically the reference answer?

# Beyond these an answer is right only if it is the reference itself: it is an essay, or made to keep a parser busy.
LONGEST = 1000  # characters
DEEPEST = 12  # brackets inside brackets, for which parsing takes exponential time


class MathVerifier:
    """math-verify, in worker processes, with guards; see `equivalence.py`.

    `seconds` is the hard limit of one comparison; what takes longer counts as wrong.

    Raises:
        MissingError: math-verify is not installed.
    """

    def __init__(self, seconds: float = 5.0, processes: int | None = None) -> None:
        if find_spec("math_verify") is None:
            raise MissingError("verifier=math: comparing answers needs math-verify; pip install 'rlcsd[data]'")
        self.pool = WorkerPool(processes or min(8, os.cpu_count() or 1), seconds)

    def __call__(self, response: str, answer: Any) -> bool:
        """True if the last box of `response` says the same as `answer`, itself boxed or not.

        Raises:
            ValueError: `answer` is empty.
        """
        return self.batch([response], [answer])[0]

    def batch(self, responses: Sequence[str], answers: Sequence[Any]) -> list[bool]:
        """As a call, for many responses side by side."""
        verdicts: list[bool | None] = []
        undecided = []
        for response, answer in zip(responses, answers, strict=True):
            boxed = last_boxed(str(answer))
            reference = str(answer).strip() if boxed is None else boxed
            if not reference:
                raise ValueError("the reference answer is empty")
            given = last_boxed(response)
            verdicts.append(_at_once(given, reference))
            if verdicts[-1] is None:
                undecided.append((given or "", reference))
        found = iter(self.pool.equivalent(undecided) if undecided else [])
        return [next(found) if verdict is None else verdict for verdict in verdicts]


def _at_once(given: str | None, reference: str) -> bool | None:
    """The verdict where it needs no algebra, else None."""
    if not given:
        return False
    if given == reference:
        return True
    return False if any(len(text) > LONGEST or _depth(text) > DEEPEST for text in (given, reference)) else None


def _depth(text: str) -> int:
    """How deeply brackets are nested, whether or not they are closed."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest

"""Do two short mathematical answers say the same?

Structure first (lists, sets, tuples, intervals, unions), then the parts: exact rational numbers, units, words, and
for everything else symbolic equivalence by math-verify. Runs in a worker process (`pool.py`), since symbolic
work knows no time limit of its own.
"""

from __future__ import annotations

import re
from typing import Any

from .notation import bracketed, clean, closed, number, parts

# A short unit is known by name, a long one by the space before it; a bare single letter is a variable.
_POWER = r"(?:\s*\^\{?-?\d\}?)?"
_NO_UNIT = r"(?:hundred|thousand|[mb]illion|dozen|squared|cubed|factorial|log|ln|sin|cos|tan|exp|mod|pi)\b"
_LONG = rf"(?<=\s)(?!{_NO_UNIT})(?=\w*[aeiou])[a-zA-Z]{{3,}}|(?<=\s)[a-zA-Z]-unit"
_FIRST = rf"(?:[kcmn]m|[km]g|m[lL]|hr|min|sec|in|ft|yd|mi|lbs?|oz|mph|°|{_LONG}){_POWER}"
_UNIT = re.compile(rf"(.*[\d}})])\s*({_FIRST}(?:[\s/]+[a-zA-Z/ -]+{_POWER})?)", re.DOTALL)
_ASSIGNED = re.compile(
    r"(?:[a-zA-Z](?:_\{?\w+\}?)?(?:\([a-zA-Z0-9]+\))?|\([a-zA-Z](?:, ?[a-zA-Z])*\))\s*(?:=|\\in\b)(.+)", re.DOTALL
)
_PLAIN_LOG = re.compile(r"\\log(?![_a-z])")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
_MARKED = re.compile(r"'|\^\{?(?:T|\\top)\b\}?")
_COEFFICIENT = re.compile(r"[-+]?(?:\d[\d./]*|\\frac\{\d+\}\{\d+\})\s*([a-zA-Z])")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]")
_LETTERS = re.compile(r"\(?([A-Z])\)?[.)]?")


def _items(text: str) -> list[str]:
    """The members of a list, `±` written out."""
    items = parts(re.sub(r"\s(?:or|and)\s", ",", text).replace(",,", ","))
    return [
        sign
        for item in items
        for sign in ([item.replace(r"\pm", s, 1) for s in ("+", "-")] if r"\pm" in item else [item])
    ]


def _same_members(given: list[str], reference: list[str]) -> bool:
    """Equal as sets: each member has its own counterpart, repetitions aside."""
    return all(any(equivalent(a, b) for b in reference) for a in given) and all(
        any(equivalent(a, b) for a in given) for b in reference
    )


def _same_list(given: list[str], reference: list[str]) -> bool:
    """Equal in any order, each member as often as the other has it."""
    left = list(reference)
    for item in given:
        match = next((place for place, other in enumerate(left) if equivalent(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


def _without_unit(text: str) -> tuple[str, str]:
    if text.endswith("%"):
        return text[:-1].strip(), "%"
    found = _UNIT.fullmatch(text)
    return (found[1].strip(), re.sub(r"\s+", "", found[2]).lower().removesuffix("s")) if found else (text, "")


def _value(text: str) -> str:
    """The right side of `x = …`."""
    found = _ASSIGNED.fullmatch(text)
    return found[1].strip() if found else text


def _same_number(given: str, reference: str) -> bool | None:
    """Exact comparison of two numbers with or without units; None if either is no plain number."""
    (ours, our_unit), (theirs, their_unit) = _without_unit(given), _without_unit(reference)
    a, b = number(ours), number(theirs)
    if a is None or b is None:
        return None
    if our_unit and their_unit:
        return a == b and our_unit == their_unit
    if "%" in (our_unit, their_unit):  # "what percentage" may be answered 50, 50 % or 0.5
        return a == b or (a / 100 == b if our_unit else a == b / 100)
    return a == b


def _parsed(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr, I

    found = parse(
        f"${text}$", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
    )
    return [
        item.subs({s: I for s in item.free_symbols if s.name == "i"}) if isinstance(item, Expr) else item
        for item in found
    ]


def _told_apart(given: str, reference: str) -> bool:
    """What math-verify would overlook: letters' case, primes and transposes, number bases, a letter taken for a unit,
    `=`."""
    for names in (_COMMAND.findall, lambda text: re.findall("[a-zA-Z]", _COMMAND.sub(" ", text))):
        ours, theirs = set(names(given)), set(names(reference))
        if ours != theirs and {name.lower() for name in ours} == {name.lower() for name in theirs}:
            return True
    if len(_MARKED.findall(given)) != len(_MARKED.findall(reference)) or ("=" in given) != ("=" in reference):
        return True
    if _BASE.fullmatch(given) or _BASE.fullmatch(reference):
        written = [found.groups() if (found := _BASE.fullmatch(text)) else None for text in (given, reference)]
        return written[0] != written[1]
    return any(
        (found := _COEFFICIENT.fullmatch(a)) and found[1] not in b for a, b in ((given, reference), (reference, given))
    )


def _close(ours: Any, theirs: Any) -> bool:
    """Relative comparison of two numbers, since math-verify's is absolute; True for anything else."""
    if not (getattr(ours, "is_number", False) and getattr(theirs, "is_number", False)):
        return True
    a, b = complex(ours.evalf(30)), complex(theirs.evalf(30))
    return a == b or abs(a - b) <= 1e-9 * max(abs(a), abs(b))


def _symbolic(given: str, reference: str) -> bool:
    from math_verify import verify

    both = given + reference
    radians = r"\cdot\frac{\pi}{180}" if r"\pi" in both else ""
    given, reference = (text.replace("°", radians).replace("-unit", "") for text in (given, reference))
    if r"\ln" in both:  # a plain log beside a natural one is natural too
        given, reference = _PLAIN_LOG.sub(r"\\ln", given), _PLAIN_LOG.sub(r"\\ln", reference)
    ours, theirs = _parsed(given), _parsed(reference)
    same = ours and theirs and verify(theirs, ours, float_rounding=12, timeout_seconds=None)
    return bool(same) and _close(ours[0], theirs[0])


def _same_scalar(given: str, reference: str) -> bool:
    exact = _same_number(given, reference)
    if exact is not None:
        return exact
    letters = _LETTERS.fullmatch(given), _LETTERS.fullmatch(reference)
    if letters[0] and letters[1]:
        return letters[0][1] == letters[1][1]
    if _WORDS.fullmatch(given) and _WORDS.fullmatch(reference):
        if max(len(given), len(reference)) > 2:
            return given.casefold() == reference.casefold()
        if given.isupper() and reference.isupper():
            return given == reference
    return not _told_apart(given, reference) and _symbolic(given, reference)


def _collection(text: str) -> tuple[str, list[str]] | None:
    """The brackets (none for a bare list) and members of a list, set, tuple or interval; None for a single thing."""
    brackets = bracketed(text)
    if brackets is not None:
        members = _items(brackets[1])
        if len(members) > 1 or brackets[0] == "{}":
            return brackets[0], members
    members = _items(text)
    return ("", members) if len(members) > 1 else None


def equivalent(given: str, reference: str) -> bool:
    """True if the two answers denote the same value, list, set, tuple, interval, union or word.

    A bare list may stand for a set or a tuple; brackets, where both have them, must be of one kind.
    """
    merged = clean(given), clean(reference)
    listed = clean(given, thousands=False), clean(reference, thousands=False)
    return _equivalent(*merged) or (listed != merged and _equivalent(*listed))


def _equivalent(given: str, reference: str) -> bool:
    """`equivalent` for cleaned texts."""
    if closed(given) == closed(reference):
        return bool(reference)
    if not given or not reference:
        return False
    if ("=" in given or r"\in" in given) != ("=" in reference or r"\in" in reference):
        given, reference = _value(given), _value(reference)
    if r"\cup" in given or r"\cup" in reference:
        return _same_members(parts(given, r"\\cup\b"), parts(reference, r"\\cup\b"))
    ours, theirs = _collection(given), _collection(reference)
    if ours is None and theirs is None:
        return _same_ratio(given, reference) if ":" in given + reference else _same_scalar(given, reference)
    (our_kind, a), (their_kind, b) = ours or ("", [given]), theirs or ("", [reference])
    kinds = {our_kind, their_kind} - {""}
    if len(kinds) > 1:
        return False
    if not kinds:
        return _same_list(a, b)
    if kinds == {"{}"}:
        return _same_members(a, b)
    return len(a) == len(b) and all(equivalent(x, y) for x, y in zip(a, b, strict=True))


def _same_ratio(given: str, reference: str) -> bool:
    """3:30 and 1:2:3 part by part; 2:3 may be written as a fraction."""
    ours, theirs = parts(given, ":"), parts(reference, ":")
    if len(ours) == len(theirs):
        return all(equivalent(a, b) for a, b in zip(ours, theirs, strict=True))
    pair, other = (ours, theirs) if len(ours) > len(theirs) else (theirs, ours)
    a, b, c = number(pair[0]), number(pair[-1]), number(other[0])
    return (
        len(pair) == 2
        and "/" in other[0].replace(r"\frac", "/")
        and a is not None
        and b is not None
        and c is not None
        and a == b * c
    )

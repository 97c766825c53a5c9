"""Answers that state a condition on an unknown, or give all members of an arithmetic progression.

`read` in `statements.py` tries these readings; each compares itself with another of its kind, or with a plain formula.
A reading that a text clearly asks for and that fails is "", so that the text is compared sign by sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .formulas import matched, parsed, same_relation, same_value
from .latex import closed, number, split


class Reading:
    """What an answer that is more than a value says."""

    def same(self, other: Any) -> bool:
        raise NotImplementedError

    def same_as_value(self, value: str) -> bool:
        """Whether a plain formula says the same."""
        return False


def renamed(text: str, names: Sequence[str], others: Sequence[str]) -> str:
    """The text with each variable of `names` called as in `others`."""
    table = dict(zip(names, others, strict=True))
    return re.sub(
        r"\\[a-zA-Z]+|[a-zA-Z]", lambda found: table.get(found[0], found[0]) + " " * (found[0] in table), text
    )


def _same_side(given: str, reference: str) -> bool:
    return closed(given) == closed(reference) or same_value(given, reference)


# ------------------------------------------------------------------ conditions

_RELATIONS = ("<", ">", "=", r"\le", r"\ge", r"\ne", r"\in", r"\notin")
_REVERSED = {">": "<", r"\ge": r"\le"}


@dataclass
class Condition(Reading):
    """Relations between formulas: one of `alternatives` holds, each a list of relations that hold together."""

    alternatives: list[list[tuple[str, str, str]]]  # (left, relation, right)
    listed: bool = False  # joined by commas, which may mean either
    bound: bool = False  # of a set by a condition, in which the name of the variable says nothing

    def same(self, other: Condition) -> bool:
        ours, theirs = self.solved(), other.solved()
        if ours is not None and theirs is not None:
            named_alike = ours[0] == theirs[0] or self.bound or other.bound
            return named_alike and _same_set(ours[1], theirs[1])
        if (ours is None) != (theirs is None):
            return False
        return matched(self.alternatives, other.alternatives, lambda a, b: matched(a, b, _same_relation))

    def same_as_value(self, value: str) -> bool:
        solved, found = self.solved(), parsed(value)
        from sympy import Set

        return solved is not None and isinstance(found, Set) and _same_set(solved[1], found)

    def solved(self) -> tuple[str, Any] | None:
        """The name of the only unknown and the set of its real values; None if that cannot be told."""
        try:
            return _solved(self)
        except Exception:  # sympy's of many kinds, for a condition that it cannot solve
            return None


def condition(text: str) -> Condition | str | None:
    """The condition that a text states, None if it states none, "" if it is a part of one."""
    parts, signs = split(text, (*_RELATIONS, ",", ";", r"\wordand", r"\wordor", r"\land", r"\lor"))
    if not any(sign in _RELATIONS and sign != "=" for sign in signs):
        return None
    alternatives: list[list[tuple[str, str, str]]] = [[]]
    operands: list[str] = []
    comma = False
    for part, sign in zip(parts, (*signs, ";"), strict=True):
        operands.append(part.strip())
        if sign in _RELATIONS:
            operands.append(sign)
            continue
        if len(operands) == 1 and operands[0] and alternatives[-1] and alternatives[-1][-1][1] in ("=", r"\ne"):
            operands = [*alternatives[-1][-1][:2], operands[0]]  # x \ne 2, 3
        if len(operands) < 3 or "" in operands:
            return ""
        for left, relation, right in zip(operands[::2], operands[1::2], operands[2::2], strict=False):
            alternatives[-1].append((left, relation, right))
        operands = []
        comma = comma or sign == ","
        if sign in (r"\wordor", r"\lor"):
            alternatives.append([])
    return Condition(alternatives, comma and len(alternatives) == 1)


_BUILDER = re.compile(r"(?:[a-zA-Z]\s*=\s*)?\\\{(.*)\\\}", re.DOTALL)


def set_by_condition(text: str) -> Reading | str | None:
    r"""\{x \mid condition\}, \{x \in D : condition\} and \{value \mid k \in \mathbb{Z}\}."""
    found = _BUILDER.fullmatch(text)
    if not found:
        return None
    for bar in (r"\mid", ":", "|"):
        parts, signs = split(found[1], (bar,))
        if len(signs) == 1 and "" not in (parts[0].strip(), parts[1].strip()):
            break
    else:
        return None
    head, text = (part.strip() for part in parts)
    member = re.fullmatch(r"([a-zA-Z])\s*(?:\\in(.*))?", head, re.DOTALL)
    if not member:
        return progressions(f"{head}, {text}") or ""
    found_condition = condition(text)
    if not isinstance(found_condition, Condition):
        return ""
    if member[2]:
        for alternative in found_condition.alternatives:
            alternative.append((member[1], r"\in", member[2].strip()))
    found_condition.bound = True
    return found_condition


def _solved(stated: Condition) -> tuple[str, Any] | None:
    from sympy import EmptySet, FiniteSet, Intersection, Range, S, Symbol, Union
    from sympy.core.function import AppliedUndef

    unknowns: set[Any] = set()

    def formula(text: str) -> Any:
        found = parsed(text)
        if found is None:
            raise ValueError(text)
        for function in found.atoms(AppliedUndef):
            found = found.subs(function, Symbol(str(function), real=True))
        unknowns.update(found.free_symbols)
        return found

    sets = [
        [_values(formula(left), relation, formula(right)) for left, relation, right in alternative]
        for alternative in stated.alternatives
    ]
    if len(unknowns) != 1:
        return None
    found = Union(*(Intersection(S.Reals, *each) for each in sets))
    if stated.listed and found is EmptySet:
        found = Union(*sets[0])
    if isinstance(found, Range) and found.size.is_finite and found.size < 1000:
        found = FiniteSet(*found)
    return str(unknowns.pop()), found


def _values(a: Any, relation: str, b: Any) -> Any:
    """The real values of the only unknown for which a relation between two formulas holds."""
    from sympy import Complement, Eq, Interval, S, Set, oo

    if relation in (r"\in", r"\notin"):
        if not (a.is_Symbol and isinstance(b, Set)):
            raise ValueError(f"{a} is no unknown, or {b} no set")
        return b if relation == r"\in" else Complement(S.Reals, b)
    if relation in ("=", r"\ne"):
        roots = Eq(a, b).as_set()
        return roots if relation == "=" else Complement(S.Reals, roots)
    if not (a - b).free_symbols:
        raise ValueError(f"{a} and {b} hold no unknown")
    if b.is_Symbol and a.is_number:
        a, b, relation = b, a, {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[relation]
    if a.is_Symbol and b.is_number:  # without sympy's solver, which is slow
        low, high = (-oo, b) if relation in ("<", r"\le") else (b, oo)
        return Interval(low, high, left_open=relation == ">", right_open=relation == "<")
    return {"<": a < b, ">": a > b, r"\le": a <= b, r"\ge": a >= b}[relation].as_set()


def _same_set(ours: Any, theirs: Any) -> bool:
    from math_verify import verify
    from sympy import FiniteSet, Union

    ours, theirs = ours.doit(), theirs.doit()
    if ours == theirs:
        return True
    if ours.is_empty or theirs.is_empty:
        return False
    try:
        pieces = [
            sorted(found.args if isinstance(found, Union) else (found,), key=lambda piece: float(piece.inf.evalf()))
            for found in (ours, theirs)
        ]
    except (NotImplementedError, TypeError):
        return False
    if len(pieces[0]) == len(pieces[1]) and all(
        (isinstance(a, FiniteSet) == isinstance(b, FiniteSet)) and verify(b, a, float_rounding=12, timeout_seconds=None)
        for a, b in zip(*pieces, strict=True)
    ):
        return True
    difference = ours.symmetric_difference(theirs)
    return difference.is_empty is True


def _same_relation(ours: tuple[str, str, str], theirs: tuple[str, str, str]) -> bool:
    (left, relation, right), (other_left, other, other_right) = (
        (each[2], _REVERSED[each[1]], each[0]) if each[1] in _REVERSED else each for each in (ours, theirs)
    )
    if relation != other:
        return False
    if _same_side(left, other_left) and _same_side(right, other_right):
        return True
    if relation in ("=", r"\ne") and _same_side(left, other_right) and _same_side(right, other_left):
        return True
    if relation in (r"\in", r"\notin"):
        return False
    sides = [parsed(text) for text in (left, right, other_left, other_right)]
    return None not in sides and same_relation(
        (sides[0], sides[1]), (sides[2], sides[3]), positive=relation not in ("=", r"\ne")
    )


# ------------------------------------------------------------------ arithmetic progressions

_DOMAIN = re.compile(
    r"(.*?)[\s,;(]*(?:(?:where|for|with|and|\\wordand|\\forall|any|all|each|some|every)\s*)*(?<![a-zA-Z\\])([a-zA-Z])\s*"
    r"(?:\\in\s*(\\mathbb\{[A-Z]\}[\w^{}+*]*)|(?:is|are)\s+(?:an?|any)\s+(?:arbitrary\s+)?(integer)|\s(integer))[\s)]*",
    re.DOTALL,
)
_CONGRUENCE = re.compile(r"(?:(.+?)\\equiv)?(.+?)\s*\\(?:p|b)?mod\s*\{?([^{}]*)\}?\s*", re.DOTALL)


@dataclass
class Progressions(Reading):
    """offset + step · k for all whole numbers k, for each of `terms`; `name` is the unknown, if it is named."""

    name: str
    terms: list[tuple[Any, Any]]
    text: str  # what stands before the domain

    def same(self, other: Progressions) -> bool:
        if self.name and other.name and self.name != other.name:
            return False
        steps = [step for _, step in self.terms + other.terms]
        ratios = [ratio for step in steps if (ratio := _rational(step / steps[0])) is not None]
        if len(ratios) < len(steps):
            return False
        from sympy import ilcm

        above = ilcm(1, *(ratio.p for ratio in ratios))
        period = steps[0] * above  # a multiple of every step
        ours, theirs = (each.within(period) for each in (self, other))
        if ours is None or theirs is None:
            return False
        return all(any(_whole((a - b) / period) for b in theirs) for a in ours) and all(
            any(_whole((a - b) / period) for a in ours) for b in theirs
        )

    def within(self, period: Any) -> list[Any] | None:
        """Every value in one period; None if they are too many."""
        found: list[Any] = []
        for offset, step in self.terms:
            count = _rational(period / step)
            if count is None or abs(count) > 500 or len(found) > 1000:
                return None
            found += [offset + index * step for index in range(abs(int(count)))]
        return found

    def same_as_value(self, value: str) -> bool:
        """Without its domain, a family is right by the same formula."""
        return bool(self.text) and same_value(self.text, value)


@dataclass
class Family(Reading):
    """A formula with a parameter from some domain, if it is no progression."""

    value: str
    parameter: str
    domain: str

    def same(self, other: Family) -> bool:
        return self.domain == other.domain and _same_side(
            self.value, renamed(other.value, [other.parameter], [self.parameter])
        )


def progressions(text: str) -> Reading | str | None:
    if r"\pmod" in text or (r"\equiv" in text and "mod" in text):
        return _congruence(text)
    found = _DOMAIN.fullmatch(text)
    if not found or not found[1].strip(" ,;"):
        return None
    value, parameter = found[1].strip(" ,;"), found[2]
    if not re.search(rf"(?<![a-zA-Z\\]){parameter}(?![a-zA-Z])|\d{parameter}|{parameter}\\", value):
        return None
    if re.search(r"[<>]|\\(?:ne|le|ge|in)(?![a-z])", value):
        return None
    domain = closed(found[3] or r"\mathbb{Z}")
    name, terms = "", list[tuple[Any, Any]]()
    if domain == r"\mathbb{Z}":
        parts = [part.strip() for part in split(value, (",", ";", r"\wordand", r"\wordor"))[0]]
        names = {part.partition("=")[0].strip() if "=" in part else "" for part in parts}
        if len(names - {""}) <= 1:
            name = closed(next(iter(names - {""}), ""))
            found_terms = [_linear(part.rpartition("=")[2], parameter) for part in parts]
            terms = [term for some in found_terms for term in some or ()] if None not in found_terms else []
    if terms:
        return Progressions(name, terms, value)
    return Family(value, parameter, domain)


def _linear(text: str, parameter: str) -> list[tuple[Any, Any]] | None:
    """(offset, step) of each value of a formula that is linear in the parameter, None if it is not."""
    from sympy import Expr, FiniteSet, Symbol, expand

    found = parsed(text.strip())
    terms = []
    for value in found.args if isinstance(found, FiniteSet) else (found,):
        if not isinstance(value, Expr):
            return None
        symbols = [symbol for symbol in value.free_symbols if symbol.name == parameter]
        whole = Symbol(parameter, integer=True)
        value = expand(value.subs(dict.fromkeys(symbols, whole)))
        step = value.coeff(whole, 1)
        offset = value - step * whole
        if expand(offset).has(whole) or step == 0 or step.free_symbols or offset.free_symbols:
            return None
        terms.append((offset, step))
    return terms


def _congruence(text: str) -> Reading | str | None:
    terms, names = [], set()
    for part in split(text, (r"\wordor", r"\wordand", r"\lor"))[0]:
        found = _CONGRUENCE.fullmatch(part.strip())
        if not found:
            return ""
        modulus = number(found[3])
        residues = [number(residue) for member in split(found[2], (",",))[0] for residue in _signed(member)]
        if modulus is None or modulus.denominator != 1 or modulus < 1 or None in residues:
            return ""
        names.add(closed(found[1] or ""))
        terms += [(residue, modulus) for residue in residues if residue is not None]
    if len(names) != 1 or r"\equiv" in "".join(names):
        return ""
    from sympy import Rational

    whole = [(Rational(a.numerator, a.denominator), Rational(step.numerator, step.denominator)) for a, step in terms]
    return Progressions(names.pop(), whole, "")


def _signed(text: str) -> list[str]:
    found = re.fullmatch(r"\s*\\(?:pm|mp)\s*(.+)", text)
    return [found[1], f"-{found[1]}"] if found else [text.strip()]


def _rational(value: Any) -> Any | None:
    from sympy import nsimplify, simplify

    found = simplify(value)
    return found if found.is_Rational else (nsimplify(found) if found.is_number and found.is_rational else None)


def _whole(value: Any) -> bool:
    from sympy import simplify

    near = round(float(value.evalf()))
    return abs(float(value.evalf()) - near) < 1e-9 and simplify(value - near) == 0

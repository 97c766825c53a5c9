r"""Do two answers say the same, where an answer may be more than a value?

An answer is read as one of

    a value or a list of values      `formulas.same_value`
    words                            the same words
    a system or cases                \begin{cases} … \end{cases}
    a condition                      x<1 \text{ or } x>3,  x \ne 2,  \{x \mid x<5\},  x \in (1,2)
    progressions                     x = 2 + 3k, k \in \mathbb{Z},  n \equiv 1 \pmod 4
    a function                       x \mapsto x^2+1,  f(x) = x^2+1

and everything else (quantifiers, implications, divisibility, ellipses …) is compared as text, sign by sign, with
values between the signs. An answer that cannot be read as a whole is never right by a part of it. Two answers of one
normalised text are the same whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .conditions import Reading, condition, progressions, renamed, set_by_condition
from .formulas import matched, names_value, parsed, same_value
from .latex import TOKEN, closed, number, spelled, split

_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_CHOICE = re.compile(r"\(?([A-Z])\)?[.)]?")
_JOINED = re.compile(r"(?<!\s)\s*(?:,|\\word(?:and|or))\s*")


def equivalent(given: str, reference: str) -> bool:
    """True if the two answers denote the same value, list, set, condition, family, function, statement or words."""
    ours, theirs = spelled(given), spelled(reference)
    return same(ours, theirs) if ours and theirs else False


def same(given: str, reference: str) -> bool:
    """`equivalent` for two answers in one spelling (`latex.spelled`)."""
    given, reference = given.strip(), reference.strip()
    if closed(given) == closed(reference):
        return True
    words = _same_words(given, reference)
    if words is not None:
        return words
    ours, theirs = read(given), read(reference)
    if ours is None or theirs is None:
        return _same_signs(given, reference)
    if isinstance(ours, str):
        if isinstance(theirs, Reading):
            return theirs.same_as_value(ours)
        return same_value(ours, theirs) or (_has_signs(given) and _same_signs(given, reference))
    if isinstance(theirs, str):
        return ours.same_as_value(theirs)
    return type(ours) is type(theirs) and ours.same(theirs)


def _same_words(given: str, reference: str) -> bool | None:
    """The verdict on two answers in words or by the letter of a choice; None if either is a formula."""
    letters = _CHOICE.fullmatch(given), _CHOICE.fullmatch(reference)
    if letters[0] and letters[1]:
        return letters[0][1] == letters[1][1]
    ours, theirs = ([part for part in _JOINED.split(text) if part] for text in (given, reference))
    if not all(_WORDS.fullmatch(word) for word in (*ours, *theirs)):
        return None
    if len(ours) != 1 or len(theirs) != 1:
        alternatives = [r"\wordor" in text for text in (given, reference)]
        return alternatives[0] == alternatives[1] and _plain_words(ours) == _plain_words(theirs)
    if max(len(given), len(reference)) > 2:
        return _plain_word(given) == _plain_word(reference)
    if given.casefold() == reference.casefold() == "no":
        return True
    return given == reference if given.isupper() and reference.isupper() else None


def _plain_words(texts: Sequence[str]) -> list[str]:
    return sorted(text if len(text) == 1 else _plain_word(text) for text in texts)


def _plain_word(text: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", text.casefold().strip())


# ------------------------------------------------------------------ readings


def read(text: str) -> Reading | str | None:
    """The reading of an answer: a formula as its text, None for what can only be compared sign by sign."""
    if r"\begin{cases}" in text or r"\begin{aligned}" in text:
        return _cases(text)
    for attempt in (_function, set_by_condition, progressions, _approximation, condition):
        found = attempt(text)
        if found is not None:
            return found if found != "" else None
    return _untangled(_both_signs(_expanded(_chain(text))))


@dataclass
class Cases(Reading):
    """A function by cases: (value, condition) for each row, in any order; `name` is what stands before the brace."""

    name: str
    rows: list[tuple[str, str]]

    def same(self, other: Cases) -> bool:
        if self.name and other.name and not same(self.name, other.name):
            return False
        return matched(self.rows, other.rows, lambda a, b: same(a[0], b[0]) and same(a[1], b[1]))


_CASES = re.compile(r"(?:(.*?)=\s*)?\\begin\{(?:cases|aligned)\}(.*)\\end\{(?:cases|aligned)\}", re.DOTALL)
_IF = re.compile(r"\A\s*(?:,\s*)?(?:if|when|for|where)?\s+|[,.;\s]+\Z")
_OTHERWISE = re.compile(r"(?:otherwise|else)\b.*", re.DOTALL)


def _cases(text: str) -> Reading | str | None:
    found = _CASES.fullmatch(text.removesuffix(r"\}").removeprefix(r"\{").strip())
    if not found or r"\begin" in found[2] or (found[1] is not None and not names_value(f"{found[1]}=")):
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in found[2].split(r"\\") if row.strip()]
    if all(len(row) == 1 or row[1].startswith(("=", "<", ">", r"\le", r"\ge", r"\ne", r"\equiv")) for row in rows):
        joined = ", ".join(" ".join(row).strip(" ,;.") for row in rows)  # a system of equations
        return None if found[1] else read(joined)
    if any(len(row) < 2 for row in rows):
        return None
    return Cases((found[1] or "").strip(), [(row[0].strip(" ,;"), _case(" ".join(row[1:]))) for row in rows])


def _case(condition: str) -> str:
    plain = _IF.sub("", f" {condition}").strip()
    return "otherwise" if _OTHERWISE.fullmatch(plain) else re.sub(r"\b(?:is|are|an?)\b\s*", "", plain)


@dataclass
class Function(Reading):
    r"""x \mapsto value, or name(x) = value."""

    name: str
    parameters: tuple[str, ...]
    value: str

    def same(self, other: Function) -> bool:
        if (self.name and other.name and self.name != other.name) or len(self.parameters) != len(other.parameters):
            return False
        return same(self.value, renamed(other.value, other.parameters, self.parameters))

    def same_as_value(self, value: str) -> bool:
        if found := re.fullmatch(r"y\s*=(?![^=]*=)(.*)", value):
            value = found[1]
        uses_parameter = self.name or renamed(self.value, self.parameters, ["?"] * len(self.parameters)) != self.value
        return bool(uses_parameter) and "=" not in value and same(self.value, value)


_MAPSTO = re.compile(
    r"(?:([a-zA-Z])\s*:\s*)?\(?\s*([a-zA-Z](?:\s*,\s*[a-zA-Z])*)\s*\)?\s*\\mapsto(?![a-z])(.+)", re.DOTALL
)
_DEFINITION = re.compile(r"([a-zA-Z](?:_\{?\w+\}?)?)\s*\(\s*([a-z](?:\s*,\s*[a-z])*)\s*\)\s*=([^=<>]+)", re.DOTALL)


def _function(text: str) -> Function | None:
    found = _MAPSTO.fullmatch(text) or _DEFINITION.fullmatch(text)
    if not found or _signs(found[3], with_commas=True):
        return None
    return Function(found[1] or "", tuple(re.split(r"\s*,\s*", found[2].strip())), found[3].strip())


# ------------------------------------------------------------------ values in other dress


def _approximation(text: str) -> Reading | str | None:
    r"""A value with its approximation is the value, if the one approximates the other: 2\sqrt3 \approx 3.46."""
    parts, signs = split(text, (r"\approx",))
    if not signs:
        return None
    before, after = parts[0].strip(), parts[1].strip()
    if len(signs) > 1 or not after:
        return ""
    if not before:
        return read(after)
    if names_value(f"{before}=") and "=" not in before and number(after) is not None:
        return read(f"{before}={after}")
    exact, rounded = parsed(before.rpartition("=")[2]), number(after)
    if rounded is None or exact is None or not getattr(exact, "is_number", False):
        return ""
    decimals = len(after.partition(".")[2].strip())
    value = float(exact.evalf())
    near = abs(value - float(rounded)) <= (10.0**-decimals if decimals else min(0.5, 0.1 * abs(value)))
    return read(before) if near else ""


_DOTS = re.compile(r"(-?\d+(?:,\s*-?\d+)*),?\s*\\ldots\s*,\s*(-?\d+)(?=\s*(?:,|\\\}|\Z))")


def _expanded(text: str) -> str:
    r"""1, 2, \ldots, 10 with all its members, if they are whole numbers at equal distances."""

    def members(found: re.Match[str]) -> str:
        begun, last = [int(each) for each in found[1].split(",")], int(found[2])
        step = begun[1] - begun[0] if len(begun) > 1 else 1
        whole = list(range(begun[0], last + (1 if step > 0 else -1), step)) if step else []
        if len(begun) < 2 or len(whole) > 1000 or whole[: len(begun)] != begun or whole[-1:] != [last]:
            return found[0]
        return ", ".join(map(str, whole))

    return _DOTS.sub(members, text) if r"\ldots" in text else text


def _chain(text: str) -> str:
    r"""The end of a chain of values with a name before it: x = \frac64 = \frac32 says x = \frac32."""
    parts, signs = split(text, ("=",))
    name, *values = (part.strip() for part in parts)
    if len(signs) < 2 or re.search(r"[,;]|\\word", text) or not names_value(f"{name}="):
        return text
    return f"{name}={values[-1]}" if all(parsed(value) is not None for value in values) else text


def _both_signs(text: str) -> str:
    r"""Each member with one \pm as two members: \frac{1 \pm \sqrt5}{2} is \frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2}."""
    if r"\pm" not in text and r"\mp" not in text:
        return text
    if (found := re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL)) and len(split(text, (",",))[0]) == 1:
        return rf"\{{{_both_signs(found[1])}\}}"
    members = []
    for member in split(re.sub(r"\\word(?:and|or)", ",", text), (",", ";"))[0]:
        if len(re.findall(r"\\pm(?![a-z])", member)) > 1 or len(re.findall(r"\\mp(?![a-z])", member)) > 1:
            return text
        for plus, minus in (("+", "-"), ("-", "+")) if r"\pm" in member or r"\mp" in member else (("", ""),):
            signed = re.sub(r"\\pm(?![a-z])", plus, member)
            members.append(re.sub(r"\\mp(?![a-z])", minus, signed).strip())
    return ", ".join(members)


def _untangled(text: str) -> str:
    """Named values without their names where the names say nothing more: x=1, x=2 are 1, 2 of x, and p=5, q=2 or p=7,
    q=2 are the pairs (5,2), (7,2)."""
    parts, _ = split(text, (",", ";", r"\wordand", r"\wordor"))
    text = re.sub(r"\s*\\word(?:and|or)\s*", ", ", text)
    if len(parts) < 2 or not all(part.count("=") == 1 for part in parts):
        return text
    pairs = [tuple(side.strip() for side in part.split("=")) for part in parts]
    names = [closed(name) for name, _ in pairs]
    if not all(re.fullmatch(r"[a-zA-Z](?:_\{?\w+\}?)?|[a-zA-Z]\([a-z]\)", name) for name in names):
        return text
    if len(set(names)) == 1:
        name = names[0].partition("(")[0]
        return f"{name}={', '.join(value for _, value in pairs)}"
    cycle = names.index(names[0], 1) if names[0] in names[1:] else 0
    if not cycle or len(pairs) % cycle or any(names[i] != names[i % cycle] for i in range(len(names))):
        return text
    rows = [sorted(pairs[i : i + cycle]) for i in range(0, len(pairs), cycle)]
    return ", ".join(f"({', '.join(value for _, value in row)})" for row in rows)


# ------------------------------------------------------------------ sign by sign

# Commands that are a part of a value; every other command is a sign.
_VALUES = """
    frac sqrt binom cdot times pi infty sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh
    ln log exp gcd lcm max min alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi rho
    sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega overline hat vec bar
    tilde dot emptyset mathbb mathcal circ prime ell degree pm mp cup cap setminus lfloor rfloor lceil rceil sum prod
    int lim det
"""
_VALUE_COMMANDS = frozenset(re.findall(r"\w+", _VALUES))
_SIGNS = ("<", ">", "=", "|", ":", "?")


def _signs(text: str, with_commas: bool = False) -> list[str]:
    return [sign for sign in split(text, _is_sign)[1] if with_commas or sign not in (",", ";")]


def _has_signs(text: str) -> bool:
    return any(_is_sign(token) and token not in (",", ";", "=") for token in TOKEN.findall(text))


def _is_sign(token: str) -> bool:
    if token.startswith("\\") and token[1:].isalpha():
        return token[1:] not in _VALUE_COMMANDS
    return token in _SIGNS or token in (",", ";")


def _same_signs(given: str, reference: str) -> bool:
    """Whether two texts have the same signs, with values that are the same between them."""
    (ours, signs), (theirs, others) = split(given, _is_sign), split(reference, _is_sign)
    if signs != others:
        return False
    if signs:
        pairs = zip(ours, theirs, strict=True)
        return all(closed(a) == closed(b) or bool(a.strip() and b.strip() and same(a, b)) for a, b in pairs)
    brackets = [re.fullmatch(r"(\\?[(\[{])(.*?)(\\?[)\]}])", text.strip(), re.DOTALL) for text in (given, reference)]
    if not (brackets[0] and brackets[1] and brackets[0].group(1, 3) == brackets[1].group(1, 3)):
        return False
    inner = [found[2] if found else "" for found in brackets]
    if brackets[0][1] == r"\{":  # \{x : condition\} and \{x \mid condition\}
        inner = [re.sub(r"\A([^:|]*):", r"\1\\mid ", text) for text in inner]
    return _same_signs(*inner)

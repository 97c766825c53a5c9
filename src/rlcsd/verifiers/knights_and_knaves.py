r"""Is a boxed assignment of knights and knaves exactly the right one?

The text is cut into words and signs once and then read from left to right, so the work is linear in its length. Roles
may stand behind names (`Ann is a knight`, `Ann: knight`, `Ann \to knight`, `Ann (knight)`, `Ann and Bo are knights`),
before them (`Knights: Ann, Cy; Knaves: Bo`), and in the rows of a table or of a LaTeX environment. Everything in the
box must be read: words that are no part of an assignment make it wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .boxed import last_boxed
from .latex import DASHES, PLAIN_SIGNS, clean

# What says nothing about who is what: a wrapper's command, its braces, emphasis, LaTeX spaces, tables and quotes.
_ENVIRONMENT = (
    r"\\(?:begin|end)\s*\{(?:array|tabular|aligned|align|gathered|gather|cases|matrix|[pbvBV]matrix|split)\*?\}"
    r"(?:\s*\[\w\])?(?:\s*\{[lcr|@{}\s]*\})?"
)
_SILENT = re.compile(
    rf"{_ENVIRONMENT}|\\(?:text|math)[a-z]*(?![a-zA-Z])|\\(?:q?quad|newline|emph|left|right|[hv]line|bullet|item)(?![a-zA-Z])\.?|"
    r"\\\\(?:\[\w+\])?|\\[,;:! {}]|[{}*`~$\"\[\]]|(?<!\w)'|'(?!\w)"
)
_COMMANDS = (
    (re.compile(r"\\(?:(?:long)?rightarrow|(?:Longr|R)ightarrow|(?:long)?mapsto|implies|to)(?![a-zA-Z])"), " -> "),
    (re.compile(r"\\colon(?![a-zA-Z])"), " : "),
    (re.compile(r"\\(?:land|wedge)(?![a-zA-Z])|\\&"), " and "),
    (re.compile(r"\\(?:neg|lnot)(?![a-zA-Z])"), " not "),
    (re.compile(r"\\(?:emptyset|varnothing)(?![a-zA-Z])|∅"), " none "),
    (re.compile(r"\\(?:mid|vert)(?![a-zA-Z])"), " | "),
    (re.compile(r"&\s*([:=])|([:=])\s*&"), r" \1\2 "),  # the columns of an alignment
)
_HEADING = re.compile(
    r"(?:\|\s*)?(?:name|person|people|character|inhabitant|islander)s?\s*[|&]\s*(?:role|type|identity|status|kind)\s*(?:\||\\\\|\n)",
    re.IGNORECASE,
)
_RULE = re.compile(r"\|(?:\s*:?-{2,}:?\s*\|)+")
_TOKEN = re.compile(r"[^\W\d_][\w'-]*(?:\.(?=\w)[\w'-]*)*|\d+|->|=>|-{1,3}|\S")
_ROLES = {"knight": True, "knights": True, "knave": False, "knaves": False}
_NOT_NAMES = {
    *_ROLES,
    *("is", "are", "isn't", "aren't", "not", "and", "or", "if", "a", "an", "the", "both", "all", "either", "neither"),
    *("nor", "but", "while", "whereas", "none", "nobody"),
}
_SIGNS = {":", "=", "->", "=>", "→", "↦", "⇒", "&", "|", "-", "--", "---", "("}
_BETWEEN = {"and", "but", "while", "whereas", ",", ";", ".", "&", "|", "•", "-", "--", "---"}
_PLAIN_SIGNS = PLAIN_SIGNS | str.maketrans({"’": "'", "。": ".", **dict.fromkeys(DASHES, " - ")})


def _tokens(text: str) -> list[str]:
    """Words in lower case, numbers and signs, without emphasis and wrappers."""
    text = text.translate(_PLAIN_SIGNS)
    if "|" in text or "&" in text:
        text = _RULE.sub(" | ", _HEADING.sub(" ", text))
    for pattern, plain in _COMMANDS:
        text = pattern.sub(plain, text)
    return [
        token
        for word in _TOKEN.findall(_SILENT.sub(" ", text))
        if (token := word.lower().strip("_") if len(word) > 1 else word.lower()) != "_"
    ]


class _Reader:
    """Reads claims from tokens; every method moves forward only."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.index = tokens, 0

    def peek(self, ahead: int = 0) -> str:
        index = self.index + ahead
        return self.tokens[index] if index < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """Move past the next token if it is one of `words`."""
        if self.peek() not in words:
            return False
        self.index += 1
        return True

    def skip_between(self) -> None:
        """Past separators and numbering: `,` `and` `(1)` `(1):` `2.` `3)`."""
        while self.index < len(self.tokens):
            numbered = 1 if self.peek().isdigit() else 2 if self.peek() == "(" and self.peek(1).isdigit() else 0
            if numbered == 1 and self.peek(1) in (".", ")", ":"):
                self.index += 2
            elif numbered == 2 and self.peek(2) == ")":
                self.index += 3
                self.take(":")
            elif not self.take(*_BETWEEN):
                return

    def at_name(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        if token == "a":  # somebody called A, or the article
            return self.peek(ahead + 1) not in _ROLES
        return token[:1].isalpha() and token not in _NOT_NAMES

    def names(self) -> list[str]:
        """One name, or several with commas and "and" between them; none if there is no name."""
        names: list[str] = []
        while self.at_name():
            names.append(self.peek())
            self.index += 1
            separators = 0 if self.peek() not in (",", "&", "and") else 2 if self.peek(1) == "and" else 1
            if not separators or not self.at_name(separators):
                break
            self.index += separators
        return names

    def claims(self) -> list[tuple[str, bool]]:
        """(name, is a knight) for each subject of the next claim; nothing if the tokens are no claim."""
        heading = 1 if self.peek() == "the" else 0
        if self.peek(heading) in _ROLES and self.peek(heading + 1) in (":", "=", "is", "are", "->", "→"):
            self.index += heading
            return list(self._heading())
        return list(self._claim())

    def _heading(self) -> Iterator[tuple[str, bool]]:
        """`Knights: Ann, Cy`, `the knave is Bo`, `Knaves: none`."""
        role = self.peek()
        sign = self.peek(1)
        self.index += 2
        if sign in ("is", "are") and (sign == "are") != role.endswith("s"):
            return
        if role.endswith("s") and self.take("none", "nobody"):
            yield "", True  # nobody has this role
            return
        names = self.names()
        if len(names) == 1 or role.endswith("s"):
            for name in names:
                yield name, _ROLES[role]

    def _claim(self) -> Iterator[tuple[str, bool]]:
        """`Ann is a knight`, `Ann (knight)`, `Ann and Bo are knaves`."""
        names = self.names()
        verb = self.peek()
        if len(names) == 1 and names[0].endswith("'s") and verb in ("a", "an", "the", "not"):
            names, plural, negated, verb = [names[0][:-2]], False, False, ""  # Alice's a knight
        else:
            plural, negated = verb in ("are", "aren't"), verb.endswith("n't")
            if not names or verb not in (*_SIGNS, "is", "are", "isn't", "aren't"):
                return
            if verb not in _SIGNS and plural != (len(names) > 1):
                return
            self.index += 1
        if plural:
            self.take("both", "all")
        if self.take("not"):
            if negated:
                return  # "isn't not": nobody knows what is meant
            negated = True
        self.take("a", "an", "the")
        word = self.peek()
        if word not in _ROLES or (verb in _SIGNS and word.endswith("s") != (len(names) > 1)):
            return
        self.index += 1
        if verb == "(" and not self.take(")"):
            return
        for name in names:
            yield name, _ROLES[word] != negated


def parse_assignment(text: str) -> dict[str, bool] | None:
    """Lower-cased name → True for a knight; None if the text is anything but claims, or contradicts itself.

    A name may be repeated with the same role. Numbering, commas, "and" between claims, emphasis and text wrappers are
    ignored; any other words mean that the text says more than an assignment.
    """
    reader, roles = _Reader(_tokens(clean(text))), dict[str, bool]()
    reader.skip_between()
    while reader.index < len(reader.tokens):
        claims = reader.claims()
        if not claims or any(roles.setdefault(name, knight) != knight for name, knight in claims if name):
            return None
        reader.skip_between()
    return roles or None


def _expected(answer: Any) -> dict[str, bool] | None:
    if isinstance(answer, Mapping):
        return {
            str(name).lower(): bool(role)
            if isinstance(role, int)
            else str(role).strip().lower() in ("knight", "a knight", "true")
            for name, role in answer.items()
        }
    return parse_assignment(last_boxed(str(answer)) or str(answer))


def verify(response: str, answer: Any, unfinished_thoughts: bool = False) -> bool:
    """True if the last box of `response` assigns to everybody in `answer`, and to nobody else, the right role.

    `answer` reads like a box's content ("(1) Alice is a knight (2) Bob is a knave") or maps names to roles.

    Raises:
        ValueError: `answer` itself is no assignment.
    """
    expected = _expected(answer)
    if expected is None:
        raise ValueError(f"the reference answer {answer!r} is not an assignment of knights and knaves")
    boxed = last_boxed(response, unfinished_thoughts)
    return boxed is not None and parse_assignment(boxed) == expected

"""Is a boxed assignment of knights and knaves exactly the right one?

The text is cut into words and signs once and then read from left to right, so the work is linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .boxed import last_boxed

# A wrapper's command, its braces, emphasis and LaTeX spaces say nothing about who is what.
_SILENT = re.compile(r"\\(?:text|math)[a-z]*(?![a-zA-Z])|\\(?:q?quad|newline|emph)(?![a-zA-Z])|\\\\|\\[,;:! ]|[{}*`~$]")
_TOKEN = re.compile(r"[^\W\d_][\w'-]*(?:\.(?=\w)[\w'-]*)*|\d+|->|=>|\S")
_ROLES = {"knight": True, "knights": True, "knave": False, "knaves": False}
_NOT_NAMES = {
    *_ROLES,
    "is",
    "are",
    "isn't",
    "aren't",
    "not",
    "and",
    "or",
    "if",
    "a",
    "an",
    "the",
    "both",
    "all",
    "either",
    "neither",
    "nor",
}
_SIGNS = {":", "=", "->", "=>", "→"}
_BETWEEN = {"and", ",", ";", ".", "&", "•", "-", "–", "—"}


def _tokens(text: str) -> list[str]:
    """Words in lower case, numbers and signs, without emphasis and wrappers."""
    plain = _SILENT.sub(" ", text.replace("’", "'"))
    return [
        token
        for word in _TOKEN.findall(plain)
        if (token := word.lower().strip("_") if len(word) > 1 else word.lower()) != "_"
    ]


class _Reader:
    """Reads claims from tokens; every method moves forward only."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place = tokens, 0

    def peek(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """Move past the next token if it is one of `words`."""
        if self.peek() not in words:
            return False
        self.place += 1
        return True

    def skip_between(self) -> None:
        """Past separators and numbering: `,` `and` `(1)` `(1):` `2.` `3)`."""
        while self.place < len(self.tokens):
            numbered = 1 if self.peek().isdigit() else 2 if self.peek() == "(" and self.peek(1).isdigit() else 0
            if numbered == 1 and self.peek(1) in (".", ")", ":"):
                self.place += 2
            elif numbered == 2 and self.peek(2) == ")":
                self.place += 3
                self.take(":")
            elif not self.take(*_BETWEEN):
                return

    def at_name(self, ahead: int = 0) -> bool:
        return self.peek(ahead)[:1].isalpha() and self.peek(ahead) not in _NOT_NAMES

    def names(self) -> list[str]:
        """One name, or several with commas and "and" between them; none if there is no name."""
        names: list[str] = []
        while self.at_name():
            names.append(self.peek())
            self.place += 1
            separators = 0 if self.peek() not in (",", "&", "and") else 2 if self.peek(1) == "and" else 1
            if not separators or not self.at_name(separators):
                break
            self.place += separators
        return names

    def claim(self) -> Iterator[tuple[str, bool]]:
        """(name, is a knight) for each subject of the next claim; nothing if the tokens are no claim."""
        names = self.names()
        if len(names) == 1 and names[0].endswith("'s") and self.peek() in ("a", "an", "the", "not"):
            names, plural, negated = [names[0][:-2]], False, False  # Alice's a knight
        else:
            verb = self.peek()
            plural, negated = verb in ("are", "aren't"), verb.endswith("n't")
            if verb not in (*_SIGNS, "is", "are", "isn't", "aren't") or plural != (len(names) > 1):
                return
            self.place += 1
        if plural:
            self.take("both", "all")
        if self.take("not"):
            if negated:
                return  # "isn't not": nobody knows what is meant
            negated = True
        self.take("a", "an", "the")
        role = _ROLES.get(self.peek())
        if role is None:
            return
        self.place += 1
        for name in names:
            yield name, role != negated


def parse_assignment(text: str) -> dict[str, bool] | None:
    """Lower-cased name → True for a knight; None if the text is anything but claims, or contradicts itself.

    A name may be repeated with the same role. Numbering, commas, "and" between claims, emphasis and text wrappers are
    ignored; any other words mean that the text says more than an assignment.
    """
    reader, roles = _Reader(_tokens(text)), dict[str, bool]()
    reader.skip_between()
    while reader.place < len(reader.tokens):
        claims = list(reader.claim())
        if not claims or any(roles.setdefault(name, knight) != knight for name, knight in claims):
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


def verify(response: str, answer: Any) -> bool:
    """True if the last box of `response` assigns to everybody in `answer`, and to nobody else, the right role.

    `answer` reads like a box's content ("(1) Alice is a knight (2) Bob is a knave") or maps names to roles.

    Raises:
        ValueError: `answer` itself is no assignment.
    """
    expected = _expected(answer)
    if expected is None:
        raise ValueError(f"the reference answer {answer!r} is not an assignment of knights and knaves")
    boxed = last_boxed(response)
    return boxed is not None and parse_assignment(boxed) == expected

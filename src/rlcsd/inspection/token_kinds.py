"""The kinds of tokens: conclusion, verdict, task and style.

The paper separates *style* tokens ("Wait", "Therefore", newlines and the like) from *task* tokens
(numbers, operators, mathematical symbols) and finds the plain hinted gap mostly on style (RLCSD,
arXiv 2606.11709, section 2). Puzzles have no numbers; there the claims and verdicts are the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

KINDS = ("conclusion", "verdict", "task", "style", "other")

_VERDICT = re.compile(r"^\W*(?:true|false|fine|contradiction|correct|wrong|consistent|impossible)\W*$", re.IGNORECASE)
_TASK = re.compile(
    r"\d|[=<>≤≥≠±×÷√∑∫π^]|\\(?:frac|sqrt|times|cdot|pi|pm|sum|int)|kn(?:ight|ave)|^\W*(?:and|or|not|if and only if)\W*$"
)
_STYLE = re.compile(
    r"^\W*(?:wait|hmm+|okay|ok|alright|well|so|hence|thus|therefore|then|now|let|us|me|see|try|suppose|assume|first|next|"
    r"maybe|perhaps|actually|indeed|finally|because|since|but|however|let us try|let me see|now assume)\W*$|^\s*\n\s*$",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Za-z]+")


def _is_style(token: str) -> bool:
    """True if the token, or every word of a token of several words, is a word of style."""
    if _STYLE.match(token):
        return True
    words = _WORDS.findall(token)
    return len(words) > 1 and all(_STYLE.match(word) for word in words)


def kinds_of(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The kind of each token of a response, given as (start, end) in its text; `conclusion` is inside the last box."""
    opening, closing = _last_box(text)
    return [_kind(text[start:end], opening <= start < closing) for start, end in offsets]


def _last_box(text: str) -> tuple[int, int]:
    """Where the content of the last box begins and ends; an empty range without one."""
    begin = text.rfind("\\boxed")
    if begin >= 0:
        opening, closing = text.find("{", begin), text.rfind("}")
        if 0 <= opening < closing:
            return opening + 1, closing
    return -1, -1


def _kind(token: str, boxed: bool) -> str:
    if boxed and re.search(r"\w", token):
        return "conclusion"
    if _VERDICT.match(token):
        return "verdict"
    if _TASK.search(token):
        return "task"
    return "style" if _is_style(token) else "other"

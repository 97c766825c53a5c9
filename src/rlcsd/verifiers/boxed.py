r"""Finding the final answer: the content of the last box of a response, and its text without passages of thought.

A box is `\boxed{…}`, `\fbox{…}`, `\framebox{…}` or `\bbox{…}`, with or without options in square brackets, or
`\boxed` before a bare number, word or formula (`\boxed 42`).
"""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|bbox)(?![a-zA-Z])\s*(?:\[[^\[\]{}]{0,80}\]\s*){0,2}(\{)?")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_IN_MATH = re.compile(r"[^$\n]*?(?=\$|\\\)|\\\]|\n|\Z)")
_BARE = re.compile(r"[-+(]?(?:\\[a-zA-Z]+(?:\s*\{[^{}]*\})*|\d[^\s\\${}]*|[A-Z](?![a-zA-Z]))+\)?")
_SPACE = re.compile(
    r"(?:\s|~|\\[,;:! ]|\\q?quad(?![a-zA-Z])|\\hspace\{[^{}]*\}|[.…?_]|\\[lcv]?dots(?![a-zA-Z])|\\underline\{|[{}$])*"
)
_PLACEHOLDER = re.compile(
    r"(?:\\text\{)?\s*(?:insert |put )?(?:your |the |my )?(?:final )?answer(?: here)?[\s}.]*", re.IGNORECASE
)
_MARK = re.compile(r"(</?think>)")


def last_boxed(text: str, unfinished_thoughts: bool = False) -> str | None:
    r"""The content of the last box, stripped; None if there is none.

    A box that never closes is none, and neither is one without content (`\boxed{}`, `\boxed{\ldots}`,
    `\boxed{\text{your answer}}`), such as an instruction that is repeated; but a last box that is cut off voids those
    before it. A box within a box belongs to the outer one. The work is linear in the length of the text.

    Args:
        text: a response.
        unfinished_thoughts: whether a box counts that stands in a thought (`<think>`) which never ends.
    """
    if not unfinished_thoughts:
        text = _finished(text)
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    closing = _closing_braces(text) if any(start[1] for start in starts) else {}
    content, end = None, -1
    for start in starts:
        if start.start() < end:
            continue
        if start[1]:
            closed = closing.get(start.start(1))
            found = None if closed is None else text[start.end() : closed]
            end = start.end() if closed is None else closed
        else:
            found = _bare(text, start.end())
            end = start.end() + len(found)
        if found is None:
            content = None
        elif not _empty(found):
            content = found.strip()
    return content


def _closing_braces(text: str) -> dict[int, int]:
    """The index of the closing brace for each opening one that has one."""
    found, opened = {}, list[int]()
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            found[opened.pop()] = brace.start()
    return found


def _bare(text: str, begin: int) -> str:
    """What `\\boxed` without braces holds: the rest of the formula it stands in, or a number, command or letter."""
    before = text[max(0, begin - 500) : begin].rpartition("\n\n")[2]
    in_math = before.count("$") % 2 or any(
        before.rfind(o) > before.rfind(c) for o, c in ((r"\(", r"\)"), (r"\[", r"\]"))
    )
    found = (_BARE_IN_MATH if in_math else _BARE).match(text, begin)
    return found[0].rstrip(" .,;:") if found else ""


def _empty(content: str) -> bool:
    if len(content) > 100:
        return False
    return _SPACE.fullmatch(content) is not None or _PLACEHOLDER.fullmatch(content) is not None


def _finished(text: str) -> str:
    """The text up to a thought that never ends."""
    depth, begin, position = 0, len(text), 0
    for part in _MARK.split(text):
        if part == "<think>":
            if depth == 0:
                begin = position
            depth += 1
        elif part == "</think>":
            depth = max(0, depth - 1)
        position += len(part)
    return text[:begin] if depth else text


def without_thinking(text: str) -> str:
    """The text without its `<think>…</think>` passages, nested ones too.

    A closing mark without an opening one ends a passage that began in the prompt; a passage that never ends goes on to
    the end of the text.
    """
    kept: list[str] = []
    depth = 0
    for part in _MARK.split(text):
        if part == "<think>":
            depth += 1
        elif part == "</think>":
            if depth == 0:
                kept.clear()
            depth = max(0, depth - 1)
        elif depth == 0:
            kept.append(part)
    return "".join(kept).strip()

"""Finding the final answer: the content of the last `\\boxed{…}`, braces nested to any depth."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\f?boxed\s*\{")
_MARK = re.compile(r"(</?think>)")


def last_boxed(text: str) -> str | None:
    """The content of the last closed box, stripped; None if there is none (an unclosed last box counts as none)."""
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    begin = starts[-1].end()
    depth = 1
    position = begin
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2  # an escaped brace is text, not structure
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[begin:position].strip()
        position += 1
    return None


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

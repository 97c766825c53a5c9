"""From token ids back to text: which characters each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_LONGEST_CHARACTER = 16  # tokens; a sequence of bytes that is still broken then will stay so


def token_offsets(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of all tokens, special ones included, and each token's (start, end) in it, in characters.

    Tokens are decoded a few at a time: a piece is complete once it does not end in the replacement character that
    stands for an unfinished one. The tokens of one piece share its span.
    """
    text, offsets = "", []
    # ids[context:begin] is decoded again in front of the piece: some tokenizers drop a first space.
    context, begin = 0, 0
    before = ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[context:end], clean_up_tokenization_spaces=False)
        unfinished = whole.endswith("�") and end < len(ids) and end - begin < _LONGEST_CHARACTER
        if unfinished:
            continue
        piece = whole[len(before) :]
        offsets += [(len(text), len(text) + len(piece))] * (end - begin)
        text += piece
        context, begin = begin, end
        before = tokenizer.decode(ids[context:begin], clean_up_tokenization_spaces=False)
    return text, offsets

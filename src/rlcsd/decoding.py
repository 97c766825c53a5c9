"""From token ids back to text: the text of a response, and the characters that each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_MAX_CHARACTER_TOKENS = 16  # a sequence of bytes that is still incomplete then stays so
_THINKING_MARKS = ("<think>", "</think>")
_LAST_TOKENS = 16  # of a prompt, which hold the mark that it ends in, one character each if need be


def response_text(tokenizer: Any, ids: Sequence[int], prompt: Sequence[int]) -> str:
    """The text of a response without its special tokens, except the marks of thinking.

    Some vocabularies have `<think>` and `</think>` as special tokens. A verifier must still see where a thought ends,
    and that it does not end: if the prompt ends in `<think>`, as some chat templates have it, and the response has no
    `</think>`, its text begins with `<think>`.
    """
    dropped = _dropped(tokenizer, len(tokenizer))
    if dropped is None:
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
    else:
        text = str(tokenizer.decode([token for token in ids if token not in dropped], skip_special_tokens=False))
    opening, end = _THINKING_MARKS
    if end in text or not str(tokenizer.decode(prompt[-_LAST_TOKENS:])).rstrip().endswith(opening):
        return text
    return opening + text


@lru_cache(maxsize=32)
def _dropped(tokenizer: Any, size: int) -> set[int] | None:
    """Special tokens other than the marks of thinking; None if these marks are no special tokens.

    `size` is a key of the cache, since a vocabulary may grow.
    """
    special = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    marks = {index for index, content in special.items() if content in _THINKING_MARKS}
    return (special.keys() | set(tokenizer.all_special_ids)) - marks if marks else None


def token_offsets(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text of all tokens, special ones included, and each token's (start, end) in it, in characters.

    Tokens are decoded a few at a time: a piece is complete if it does not end in the replacement character, which
    stands for incomplete bytes. The tokens of one piece share its span.
    """
    text, offsets = "", []
    # ids[context:begin] is decoded again in front of the piece: some tokenizers drop a first space.
    context, begin = 0, 0
    before = ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[context:end], clean_up_tokenization_spaces=False)
        unfinished = whole.endswith("�") and end < len(ids) and end - begin < _MAX_CHARACTER_TOKENS
        if unfinished:
            continue
        piece = whole[len(before) :]
        offsets += [(len(text), len(text) + len(piece))] * (end - begin)
        text += piece
        context, begin = begin, end
        before = tokenizer.decode(ids[context:begin], clean_up_tokenization_spaces=False)
    return text, offsets

"""The text of a response, and tokens that line up with its characters, whatever the tokenizer does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlcsd.decoding import response_text, token_offsets
from rlcsd.verifiers import without_thinking


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: every symbol beyond ASCII is split."""
    vocabulary = {symbol: place for place, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's way: a leading space is dropped in decoding, unknown characters fall back to bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b", "ab"]
    model = models.BPE(
        vocab={p: i for i, p in enumerate(pieces)},
        merges=[("▁", "a"), ("▁", "b"), ("a", "b")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("make", [bytes_tokenizer, pieces_tokenizer])
@given(text=st.text(st.sampled_from("ab ∑π≤é漢😀\n"), max_size=25))
def test_spans_cover_the_text_in_order(make, text):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    found, offsets = token_offsets(tokenizer, ids)
    assert found == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert len(offsets) == len(ids)
    assert "�" not in found
    pieces = list(dict.fromkeys(span for span in offsets if span[0] < span[1]))
    assert "".join(found[start:end] for start, end in pieces) == found
    assert all(a[1] <= b[0] for a, b in pairwise(pieces))


def test_each_byte_of_a_symbol_belongs_to_the_symbol():
    tokenizer = bytes_tokenizer()
    ids = tokenizer("a∑ π", add_special_tokens=False).input_ids
    text, offsets = token_offsets(tokenizer, ids)
    assert [text[start:end] for start, end in offsets] == ["a", "∑", "∑", "∑", " ", "π", "π"]


def test_a_response_cut_off_within_a_symbol_still_lines_up():
    tokenizer = bytes_tokenizer()
    ids = tokenizer("ab∑", add_special_tokens=False).input_ids[:-1]
    text, offsets = token_offsets(tokenizer, ids)
    assert len(offsets) == 4
    assert text.startswith("ab")
    assert offsets[-1][1] == len(text)


def test_nonsense_bytes_do_not_hold_everything_up():
    tokenizer = bytes_tokenizer()
    broken = tokenizer("é", add_special_tokens=False).input_ids[1]
    ids = [broken] * 50 + tokenizer("ab", add_special_tokens=False).input_ids
    text, offsets = token_offsets(tokenizer, ids)
    assert len(offsets) == 52
    assert text.endswith("ab")
    assert text[slice(*offsets[-1])] == "b"  # the broken bytes right before "a" share its piece
    assert len(text[slice(*offsets[-2])]) <= 16


@pytest.mark.parametrize("special", [True, False])
def test_the_marks_of_thinking_stay_and_other_special_tokens_go(special):
    tokenizer = bytes_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|end|>", "pad_token": "<|pad|>"})
    tokenizer.add_tokens([AddedToken("<think>", special=special), AddedToken("</think>", special=special)])
    ids = tokenizer("<think> 2 </think> it is 3<|end|><|pad|>", add_special_tokens=False).input_ids
    text = response_text(tokenizer, ids, [])
    assert text == "<think> 2 </think> it is 3"
    assert without_thinking(text) == "it is 3"


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(
    ("prompt", "response", "text"),
    [
        ("Who?<think>\n", "\\boxed{2}, or", "<think>\\boxed{2}, or"),
        ("Who?<think>\n", "2</think> it is 3", "2</think> it is 3"),
        ("Who?<think>\n\n</think>\n\n", "it is 3", "it is 3"),
        ("What is <think> for? assistant:", "it is 3", "it is 3"),
        ("", "it is 3", "it is 3"),
    ],
)
def test_a_thought_that_the_prompt_opens_and_nothing_ends_is_in_the_text(prompt, response, text, added):
    tokenizer = bytes_tokenizer()
    if added:
        tokenizer.add_tokens([AddedToken("<think>", special=True), AddedToken("</think>", special=True)])
    prompt_ids, ids = (tokenizer(part, add_special_tokens=False).input_ids for part in (prompt, response))
    assert response_text(tokenizer, ids, prompt_ids) == text

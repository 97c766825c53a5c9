"""A small vocabulary in which one claim is one token.

Byte-level BPE, trained on the puzzles' own text, over pre-tokens that keep a claim ("Alice is a knave")
whole and let other words of a phrase merge across spaces. Any other text still encodes, byte by byte if it
must, so the tiny model accepts every template and every task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_CLAIM = r"\w+ (?:is (?:not )?a kn(?:ight|ave)|says)"
PRE_TOKEN = rf" ?{_CLAIM}|[^\w\s]?(?: ?(?!{_CLAIM})\w+)+|[^\w\s]+|\s"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocab_size` entries, with a ChatML template; deterministic in `texts`."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD, padding_side="left")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def add_claims(model: Any, tokenizer: Any, texts: Iterable[str]) -> int:
    """Make each claim in `texts` one token, also about people that the tokenizer has not met; returns how many are new.

    The embedding of a new claim is drawn around those of the same claim about others.
    """
    claims = {match.group() for text in texts for match in re.finditer(f" {_CLAIM}", text)}
    new = sorted(claim for claim in claims if len(tokenizer(claim, add_special_tokens=False).input_ids) > 1)
    known = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    tokenizer.add_tokens([AddedToken(claim, normalized=False) for claim in new])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = model.get_input_embeddings().weight.data
    for token, claim in enumerate(new, len(known)):
        rest = claim.split(" ", 2)[2]
        like = embeddings[[place for place, text in enumerate(known) if re.fullmatch(rf" \w+ {rest}", text)]]
        embeddings[token] = like.mean(dim=0) + like.std(dim=0) * torch.randn(like.shape[1])
    return len(new)

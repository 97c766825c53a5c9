"""New people in an old vocabulary: one token for each claim, and nothing else changes."""

from __future__ import annotations

import torch

from rlcsd.config.schema import ModelConfig
from rlcsd.engine.local.network import load_network, load_tokenizer
from rlcsd.warmstart.tokenizer import add_claims


def test_a_claim_about_a_new_person_becomes_one_token_like_those_about_others():
    config = ModelConfig(path="tiny_roll_call")
    network, tokenizer = load_network(config, torch.device("cpu")), load_tokenizer(config)
    old = "Suppose Alice is a knight. Bob says Alice is not a knave: false."
    ids = tokenizer(old).input_ids
    with torch.no_grad():
        before = network.model(torch.tensor([ids])).logits
    text = "Suppose Zoey is a knight. Zoey says Zoey is not a knave. Bob says Alice is a knight."
    size = len(tokenizer)
    assert add_claims(network.model, tokenizer, [text]) == 3
    assert add_claims(network.model, tokenizer, [text]) == 0
    assert tokenizer(old).input_ids == ids
    new = tokenizer(text).input_ids
    assert tokenizer.decode(new) == text
    assert [tokenizer.decode([token]) for token in new if token >= size] == [
        " Zoey is a knight",
        " Zoey says",
        " Zoey is not a knave",
    ]
    with torch.no_grad():
        after = network.model(torch.tensor([ids])).logits
    torch.testing.assert_close(after[..., :size], before)
    assert after.shape[-1] == size + 3  # the head has them too, and their embeddings are those of such a claim
    rows = network.model.get_input_embeddings().weight.detach()
    knight, says = (tokenizer(f" Zoey {words}").input_ids[0] for words in ("is a knight", "says"))
    likes = {
        token: torch.stack(
            [rows[tokenizer(f" {name} {words}").input_ids[0]] for name in ("Alice", "Bob", "Emma")]
        ).mean(0)
        for token, words in ((knight, "is a knight"), (says, "says"))
    }
    for token, other in ((knight, says), (says, knight)):
        assert (rows[token] - likes[token]).norm() < (rows[token] - likes[other]).norm()

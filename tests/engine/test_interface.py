"""A server's room for prompt and response together is never exceeded in silence."""

from __future__ import annotations

import pytest

from rlcsd.config.load import load
from rlcsd.engine.interface import check_room
from rlcsd.errors import InputError
from rlcsd.records import Sampling


@pytest.mark.parametrize(("prompt", "asked", "least"), [(10, 40, None), (30, 20, None), (11, 40, 11), (31, 20, 11)])
def test_a_prompt_that_leaves_too_little_room_is_refused_with_the_least_that_would_do(prompt, asked, least):
    def config(most: int):
        return load([f"max_prompt_tokens={most}", "sampling.max_tokens=20", "evaluation.sampling.max_tokens=40"])

    prompts = [[1] * 3, [1] * prompt]
    if least is None:
        check_room(config(10), prompts, Sampling(max_tokens=asked))
        return
    words = rf"^max_prompt_tokens=10: a prompt of {prompt} tokens .* response of {asked}; use at least {least}$"
    with pytest.raises(InputError, match=words):
        check_room(config(10), prompts, Sampling(max_tokens=asked))
    check_room(config(least), prompts, Sampling(max_tokens=asked))

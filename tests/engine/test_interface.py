"""Token limits of a run, and the refusal of what would exceed them without a message."""

from __future__ import annotations

import pytest

from rlcsd.config.load import load
from rlcsd.engine.interface import TokenLimits, check_engine, checked_sampling, keeps_sampling_mask
from rlcsd.errors import InputError
from rlcsd.records import Sampling


def limits(context: int = 1000, prompt: int = 10) -> TokenLimits:
    lengths = [f"max_prompt_tokens={prompt}", "sampling.max_tokens=20", "evaluation.sampling.max_tokens=40"]
    return TokenLimits.of(load(lengths), context)


def test_limits_come_from_the_config_and_never_exceed_the_context():
    assert limits() == TokenLimits(context=1000, prompt=10, response=40, sequence=50)
    assert limits(45).sequence == 45


@pytest.mark.parametrize(("prompt", "asked", "least"), [(10, 40, None), (30, 20, None), (11, 40, 11), (31, 20, 11)])
def test_a_prompt_that_leaves_a_server_too_little_room_is_refused_with_the_least_that_would_do(prompt, asked, least):
    prompts, sampling = [[1] * 3, [1] * prompt], Sampling(max_tokens=asked)
    if least is None:
        limits().check_server(prompts, sampling)
        return
    words = rf"^max_prompt_tokens=10: a prompt of {prompt} tokens .* response of {asked}; use at least {least}$"
    with pytest.raises(InputError, match=words):
        limits().check_server(prompts, sampling)
    limits(prompt=least).check_server(prompts, sampling)


def test_a_training_prompt_and_its_response_must_fit_the_context():
    limits(30).check_context(10, Sampling(max_tokens=20))
    with pytest.raises(InputError, match=r"^sampling\.max_tokens=20: .* 11 tokens .* context of 30 .* at most 19$"):
        limits(30).check_context(11, Sampling(max_tokens=20))


@pytest.mark.parametrize(
    ("wanted", "sampling", "kept"),
    [
        ("true", ["sampling.top_p=0.9", "sampling.top_k=20"], True),
        ("null", ["sampling.top_p=0.9", "sampling.top_k=20"], True),
        ("false", ["sampling.top_p=0.9", "sampling.top_k=20"], False),
        ("true", ["sampling.top_p=1", "sampling.top_k=20"], True),
        ("true", ["sampling.top_p=1", "sampling.top_k=0"], False),  # nothing is cut off
        ("null", ["sampling.top_p=0.9", "sampling.top_k=0"], False),  # the masks would have no bound
        ("true", ["sampling.temperature=0", "sampling.top_k=20"], False),  # there is nothing to sample
    ],
)
def test_masks_are_kept_where_sampling_is_truncated(wanted, sampling, kept):
    assert keeps_sampling_mask(load([f"sampling_mask={wanted}", *sampling])) == kept


def test_samples_that_are_compared_have_masks_where_the_runs_have_them():
    truncated = load(
        [
            "sampling_mask=true",
            "sampling.top_p=0.9",
            "sampling.top_k=20",
            "sampling.temperature=0.7",
            "sampling.max_tokens=9",
        ]
    )
    assert checked_sampling(truncated) == Sampling(1.0, 0.9, 20, 9, keep_mask=True)
    assert checked_sampling(load(["sampling_mask=false", "sampling.top_k=20", "sampling.max_tokens=9"])) == Sampling(
        max_tokens=9
    )


def test_masks_that_cannot_be_kept_are_refused_with_the_key():
    config = load(["sampling_mask=true", "sampling.top_p=0.9", "sampling.top_k=0"])
    with pytest.raises(
        InputError, match=r"^sampling_mask=true: sampling\.top_k=0 puts no bound .*sampling_mask=false$"
    ):
        check_engine(config)

"""What the driver decides without verl and Ray: which rank computes which rows, and what servers are asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcsd.config.load import load
from rlcsd.engine.verl.messages import Rows
from rlcsd.engine.verl.verl_engine import (
    assign_by_context,
    assign_by_length,
    assign_to_owners,
    requests,
    sample_of,
)
from rlcsd.errors import InputError
from rlcsd.records import Pair, SamplingMask

IDS = st.lists(st.integers(0, 9), min_size=1, max_size=8).map(tuple)
PAIRS = st.lists(st.builds(Pair, IDS, IDS), max_size=20)
RANKS = st.integers(1, 5)


@given(PAIRS, RANKS)
def test_every_row_is_computed_once_and_a_context_on_one_rank(pairs, ranks):
    assigned = assign_by_context(pairs, ranks)
    assert len(assigned) == ranks
    assert sorted(row for mine in assigned for row in mine) == list(range(len(pairs)))
    assert all(mine == sorted(mine) for mine in assigned)
    where: dict[tuple[int, ...], set[int]] = {}
    for rank, mine in enumerate(assigned):
        for row in mine:
            where.setdefault(pairs[row].context, set()).add(rank)
    assert all(len(ranks) == 1 for ranks in where.values())


def test_hints_of_one_question_stay_together_and_loads_are_even():
    questions = [tuple(range(100 * q, 100 * q + 50)) for q in range(8)]
    pairs = [Pair((*q, 7, hint), (1,) * 10) for q in questions for hint in (1, 2, 3) for _ in range(4)]
    assigned = assign_by_context(pairs, 4)
    questions_of = [{pairs[row].context[:50] for row in mine} for mine in assigned]
    assert [len(some) for some in questions_of] == [2, 2, 2, 2]
    assert len(set.union(*questions_of)) == 8


def test_one_question_alone_is_spread_over_the_ranks_by_its_hints():
    pairs = [Pair((*range(50), hint), (1,) * 10) for hint in range(8)]
    assert [len(mine) for mine in assign_by_context(pairs, 4)] == [2, 2, 2, 2]


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 3)), max_size=20))
def test_rows_with_an_owner_go_there(rows):
    lengths, owners = [length for length, _ in rows], [owner for _, owner in rows]
    assigned = assign_by_length(lengths, owners, 4)
    assert sorted(row for mine in assigned for row in mine) == list(range(len(rows)))
    assert all(owners[row] in (None, rank) for rank, mine in enumerate(assigned) for row in mine)


def test_rows_without_an_owner_even_the_loads_out():
    assert assign_by_length([10, 1, 1, 1, 9], [0, None, None, None, None], 2) == [[0, 2], [1, 3, 4]]
    assert assign_to_owners([1, 0, 1], 2) == [[1], [0, 2]]


@given(PAIRS)
def test_rows_are_read_back_as_they_were_sent(pairs):
    assert Rows.of(pairs).pairs() == pairs


def test_sampling_masks_are_read_back_as_they_were_sent():
    mask = SamplingMask(torch.tensor([5, 7, 3], dtype=torch.int32), torch.tensor([2, 0, 1], dtype=torch.int32))
    first, second = Rows.of([Pair((1,), (5, 6, 3), mask), Pair((2, 3), (4,))]).pairs()
    assert (first.sampling_mask.ids.tolist(), first.sampling_mask.counts.tolist()) == ([5, 7, 3], [2, 0, 1])
    assert (second.sampling_mask.ids.tolist(), second.sampling_mask.counts.tolist()) == ([], [0])
    assert Rows.of([second, Pair((1,), (2,))]).kept is not None and Rows.of([Pair((1,), (2,))]).kept is None


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("training", {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "max_tokens": 16384}),
        ("evaluation", {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 38912}),
    ],
)
def test_requests_have_the_published_sampling_parameters(which, expected):
    config = load(["model=qwen3_8b", "task=logic_kk", "method=rlcsd", "engine=verl"])
    received: list[dict[str, Any]] = []

    class Client:
        async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
            received.append({"id": request_id, "prompt": prompt_ids, **sampling_params})
            return SimpleNamespace(token_ids=[5, 7], log_probs=[-0.1, -0.2])

    sampling = config.sampling if which == "training" else config.evaluation.sampling
    made = requests(Client(), [(1, 2), (3,)], 8, sampling.settings(), [7], seed=2**62)

    async def answers() -> list[Any]:
        return await asyncio.gather(*made)

    outputs = asyncio.run(answers())
    assert len(outputs) == 16 and all(sample_of(output, [7]).finished for output in outputs)
    assert [one["prompt"] for one in received] == [[1, 2]] * 8 + [[3]] * 8
    assert all(one.items() >= {**expected, "logprobs": True, "stop_token_ids": [7]}.items() for one in received)
    assert len({one["seed"] for one in received}) == len({one["id"] for one in received}) == 16
    assert all(0 <= one["seed"] < 2**31 for one in received)


def test_a_greedy_token_was_certain():
    """As in the local engine: log-probs of a sample are those of the distribution that was drawn from."""
    output = SimpleNamespace(token_ids=[5, 7], log_probs=[-0.1, -0.2])
    assert sample_of(output, [7], greedy=True).sampled_log_probs.tolist() == [0.0, 0.0]
    assert sample_of(output, [7]).sampled_log_probs.tolist() == pytest.approx([-0.1, -0.2])


@pytest.mark.parametrize("output", [([], []), ([5, 7], None), ([5, 7], [-0.1])])
def test_a_server_that_answers_without_log_probs_is_named(output):
    with pytest.raises(InputError, match="a rollout server gave no tokens, or tokens without log-probs"):
        sample_of(SimpleNamespace(token_ids=output[0], log_probs=output[1]), [7])

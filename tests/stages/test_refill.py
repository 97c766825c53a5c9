"""Dynamic sampling: which groups are replaced, in which places, and how many prompts it takes."""

from __future__ import annotations

import torch

from rlcsd.engine.local import LocalEngine
from rlcsd.metrics import combined
from rlcsd.prepare import prepare
from rlcsd.records import Group, Problem, Rollout, Sample, Verdict
from rlcsd.stages.refill import refilled
from rlcsd.trainer import Trainer


def group(name: str, correct: int, size: int = 4, reward: float | None = None) -> Group:
    """A group of which `correct` rollouts are right; `reward` is a shaped one that differs from rollout to rollout."""
    rollouts = []
    for index in range(size):
        right = index < correct
        verdict = Verdict(right, float(right) if reward is None else reward * index)
        rollouts.append(Rollout(Sample((1,), None, torch.zeros(1), True), "", verdict, None))
    return Group(Problem(name, "1"), (1,), tuple(rollouts), (0.0,) * size)


def names(groups: list[Group]) -> str:
    return "".join(each.problem.question for each in groups)


def batches(*given: list[Group]):
    """Further batches in order; each call's number and count is noted."""
    asked = []

    def more(batch, count):
        asked.append((batch, count))
        return given[batch - 1]

    return more, asked


def test_groups_without_both_outcomes_are_replaced_in_their_places():
    first = [group("A", 2), group("b", 0), group("C", 1), group("d", 4)]
    more, asked = batches([group("e", 0), group("F", 3), group("g", 4), group("h", 0)], [group("I", 1), group("J", 2)])
    result = refilled(first, more, max_batches=5)
    assert names(result.groups) == "AFCI" and names(result.sampled) == "AbCdeFghIJ"
    # Two are missing and half of four were usable: four prompts. Then one, at 3 of 8: ceil(8 / 3) = 3.
    assert asked == [(1, 4), (2, 3)]
    figures = combined([result.metrics()])
    assert figures == {
        "refill/batches": 2,
        "refill/groups_dropped": 5,  # b, d, e, g, h
        "refill/groups_surplus": 1,  # J
        "refill/groups_missing": 0,
    }


def test_places_that_no_batch_fills_keep_their_groups():
    more, asked = batches([group("c", 0), group("d", 0)], [group("E", 1), group("f", 4)])
    result = refilled([group("a", 4), group("b", 0)], more, max_batches=2)
    assert names(result.groups) == "Eb" and asked == [(1, 2), (2, 2)]
    assert combined([result.metrics()])["refill/groups_missing"] == 1


def test_the_verdict_decides_and_not_the_reward():
    """A length penalty makes rewards differ in a group that is all wrong: its advantages are not 0, yet it is replaced."""
    more, _ = batches([group("B", 2)])
    assert names(refilled([group("a", 0, reward=-0.1)], more, 1).groups) == "B"


def test_nothing_more_is_sampled_without_need_or_leave():
    more, asked = batches()
    assert refilled([group("A", 2)], more, 5).batches == 0 and refilled([group("a", 0)], more, 0).batches == 0
    assert not asked


def test_the_data_goes_on_behind_the_problems_that_refills_drew(tiny_config, monkeypatch):
    """Whole steps of the trainer: no problem is skipped, and none comes twice before the pass is over."""
    config = tiny_config(
        "refill_batches=2", "task.train_per_size=64", "sampling.max_tokens=24", "engine.self_check=false",
        "method=grpo",
    )  # fmt: skip
    prepared = prepare(config)
    trainer = Trainer(prepared, LocalEngine(config, prepared.method))
    order = [trainer._prompt(problem) for problem in trainer.problems(1, 0, 64)]
    drawn, real = [], trainer.engine.sample
    monkeypatch.setattr(trainer.engine, "sample", lambda prompts, *more: drawn.extend(prompts) or real(prompts, *more))
    results = [trainer.step(number) for number in (1, 2)]
    assert drawn == order[: len(drawn)] and len(drawn) == 8 + trainer.extra_problems
    assert [result.metrics["refill/batches"] for result in results] == [2, 2]  # 24 tokens hold no answer: all are wrong
    assert trainer.extra_problems == 2 * 8 and results[0].metrics["refill/groups_missing"] == 4
    assert results[0].metrics["rollout/tokens"] == 12 * 4 * 24  # of all that was sampled

"""Learning-rate schedules are those of transformers, as a function of the step."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

import rlcsd
from rlcsd.config.load import load
from rlcsd.prepare import learning_rate_schedule, too_late, with_whole_steps


def rates(steps: int, *overrides: str) -> list[float]:
    config = load(["learning_rate=1e-3", *overrides])
    schedule = learning_rate_schedule(config, steps)
    return [config.learning_rate * schedule(number) for number in range(1, steps + 1)]


def test_constant_with_warm_up_is_the_default():
    assert rates(5, "warmup_steps=4") == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert rates(2, "warmup_steps=0") == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("name", "extra"),
    [("linear", {}), ("cosine", {}), ("cosine_with_restarts", {"num_cycles": 2}), ("polynomial", {"power": 2.0}),
     ("inverse_sqrt", {}), ("cosine_with_min_lr", {"min_lr_rate": 0.1}), ("cosine_with_min_lr", {"min_lr": 1e-4})],
)  # fmt: skip
def test_every_schedule_is_the_librarys(name, extra):
    """The library's scheduler, stepped as its users step it, has at each step the rate that ours has."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    scheduler = get_scheduler(name, optimizer, 3, 21, extra)
    expected = []
    for _ in range(20):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    given = "{" + ",".join(f"{key}: {value}" for key, value in extra.items()) + "}"
    ours = rates(20, f"lr_scheduler_type={name}", "warmup_steps=3", f"lr_scheduler_kwargs={given}")
    assert ours == pytest.approx(expected)
    assert all(rate > 0 for rate in ours), "no step is wasted"


def test_warmup_stable_decay_decays_in_its_last_fifth():
    ours = rates(20, "lr_scheduler_type=warmup_stable_decay", "warmup_steps=0")
    assert ours[:16] == [1e-3] * 16
    assert 0 < ours[-1] < 2e-4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lr_scheduler_type=cosine", "warmup_steps=20"], "warmup_steps=20"),
        (["lr_scheduler_type=cosine", "warmup_steps=1", "lr_scheduler_kwargs={cycles: 2}"], "cycles"),
        (["lr_scheduler_type=cosine_with_min_lr", "warmup_steps=1"], "min_lr"),
        (["lr_scheduler_kwargs={power: 2}"], "takes no arguments"),
        (["lr_scheduler_type=cosin"], "lr_scheduler_type"),
        (["lr_scheduler_type=polynomial", "warmup_steps=1", "lr_scheduler_kwargs={power: x}"], "power"),
    ],
)
def test_what_a_schedule_cannot_take_is_one_sentence(overrides, words):
    with pytest.raises(rlcsd.InputError, match=words):
        rates(20, *overrides)


@pytest.mark.parametrize(("steps", "whole"), [(100, (10, 25, 25)), (7, (1, 2, 2)), (1, (1, 1, 1))])
def test_shares_of_a_run_become_steps(steps, whole):
    config = with_whole_steps(load(["task=own"]), steps)
    assert (config.warmup_steps, config.save_every, config.evaluation.every) == whole
    assert too_late(config, steps) == ()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["warmup_steps=50"], ["the warm-up covers all 40 steps, so learning_rate=0.0001 is never reached"]),
        (["warmup_steps=40"], ["is first reached at the end"]),
        (["save_every=40"], ["no checkpoint comes before the end of 40 steps"]),
        (["save_every=0", "warmup_steps=39"], []),  # asked for
    ],
)
def test_what_comes_after_the_end_is_said(overrides, said):
    found = too_late(load(overrides), 40)
    assert len(found) == len(said) and all(words in sentence for words, sentence in zip(said, found, strict=True))

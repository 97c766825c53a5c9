"""Learning-rate schedules are those of transformers, as a function of the step; what a run hands to its engine."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

import rlcsd
from rlcsd.config.load import build_method, load
from rlcsd.engine.interface import build_engine
from rlcsd.engine.local.model import load_tokenizer
from rlcsd.errors import InputError
from rlcsd.prepare import learning_rate_schedule, prepare, too_late, with_whole_steps
from rlcsd.run.run import Run


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


def test_an_engine_gets_the_runs_tokenizer_and_three_of_its_prompts(monkeypatch, tmp_path):
    def build(config, method, tokenizer, prompts):
        built.append((tokenizer, prompts))
        raise InputError("far enough")

    built = []
    monkeypatch.setattr("rlcsd.run.run.build_engine", build)
    task = ["task.train_per_size=6", "task.eval_per_size=1", "prompts_per_step=4", "prompts_per_update=2"]
    config = load([*task, f"output_dir={tmp_path}", "engine.threads=1"])
    with pytest.raises(InputError, match="far enough"):
        Run(config)
    [(tokenizer, prompts)] = built
    assert len(prompts) == 3 and len({len(prompt) for prompt in prompts}) > 1
    texts = [tokenizer.decode(prompt) for prompt in prompts]
    problems = prepare(config).problems
    assert all(any(problem.question in text for problem in problems) for text in texts)


def test_the_self_check_takes_the_prompts_it_is_given(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "rlcsd.engine.local.local_engine.self_check", lambda network, prompts, pad, **_: seen.append(prompts)
    )
    config, prompts = load(["method=grpo"]), [(5, 6, 7), (8, 9), (10,)]
    tokenizer = load_tokenizer(config.model)
    engine = build_engine(config, build_method(config), tokenizer, prompts)
    assert seen == [prompts] and engine.tokenizer is tokenizer

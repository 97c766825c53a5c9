"""Studies: arms compose, each oracle labels what it says, and tables are those of a computation by hand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlcsd.config.load import load
from rlcsd.decoding import token_offsets
from rlcsd.engine.interface import build_engine
from rlcsd.experiments.decision_labels import token_labels
from rlcsd.experiments.roll_call import parse_question
from rlcsd.prepare import prepare

FOLDER = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(FOLDER))

import oracle  # noqa: E402
import tables  # noqa: E402
from studies import STUDIES  # noqa: E402


@pytest.mark.slow
def test_the_signal_of_hints_is_what_the_command_prints(capsys):
    from rlcsd.cli import main

    assert main(["inspect", "--problems", "64"]) == 0
    printed = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("| conclusion |", "| style |"))
    ]
    assert set(printed[:4]) <= set((FOLDER / "study.md").read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_composes_and_no_two_are_the_same(name):
    study = STUDIES[name]
    seen = set()
    for arm in study.arms:
        if arm.severity:  # the config of another arm
            assert replace(arm, name=arm.name.rpartition("-")[0], severity=None) in study.arms
            continue
        method, _, rate = arm.name.partition("@")
        if rate and study.arm(f"{method}@3e-5") is not arm:  # the config of another arm at another rate
            assert arm.overrides == (*study.arm(f"{method}@3e-5").overrides[:-1], f"learning_rate={rate}")
            continue
        config = load([*study.common, *arm.overrides])
        key = (config.model_dump_json(), arm.oracle)
        assert key not in seen, arm.name
        seen.add(key)
    assert len({arm.name for arm in study.arms}) == len(study.arms)


@pytest.fixture(scope="module")
def step():
    """One step of each kind of oracle on the same rollouts, with the labels of each updated token."""
    config = load([
        "task=roll_call", "method=rlcsd", "steps=1", "prompts_per_step=4", "prompts_per_update=4", "group_size=6", "seed=3",
        "task.train_per_size=8", "task.eval_per_size=2", "engine.threads=1", "engine.self_check=false",
    ])  # fmt: skip
    prepared = prepare(config)
    found = {}
    for kind in oracle.KINDS:
        trainer = oracle.OracleTrainer(prepared, build_engine(config, prepared.method), kind=kind)
        result = trainer.step(1)
        labels = []
        for row in result.examples[0]:
            text, offsets = token_offsets(trainer.engine.tokenizer, row.rollout.sample.ids)
            question = result.groups[row.group].problem.question
            labels += token_labels(parse_question(question), text, offsets)
        found[kind] = (result, torch.tensor(labels))
    return found


def test_the_whole_oracle_selects_the_labelled_tokens_and_moves_them_as_labelled(step):
    result, labels = step["whole"]
    (batch,) = result.token_batches
    assert torch.equal(batch.selected, labels != 0)
    assert len(result.examples[0]) == 24
    for sign in (1, -1):
        anchored = (batch.advantage + 0.5 * sign).clamp(min=0)
        down = (batch.advantage + 0.5 * sign).clamp(max=0)
        expected = torch.where(batch.advantage > 0, anchored, torch.where(batch.advantage < 0, down, 0.0))
        chosen = labels == sign
        torch.testing.assert_close(batch.credit[chosen], expected[chosen])
    assert torch.equal(batch.credit[labels == 0], batch.advantage[labels == 0])


def test_each_degraded_oracle_lacks_one_thing(step):
    whole = step["whole"][1]
    result, labels = step["unspared"]
    (batch,) = result.token_batches
    hidden = (labels > 0) & ~batch.is_correct
    assert bool(hidden.any())
    assert torch.equal(batch.selected, (labels != 0) & ~hidden)
    (noisy,) = step["noisy"][0].token_batches
    others = noisy.selected[whole == 0].float().mean()
    assert 0.1 < float(others) < 0.3
    assert bool(noisy.selected[whole != 0].all())
    dropped = step["dropped"][0]
    assert 0 < len(dropped.examples[0]) < 24
    for row in dropped.examples[0]:
        siblings = [r for index, r in enumerate(dropped.groups[row.group].rollouts) if index != row.index]
        assert any(r.is_correct for r in siblings) and any(not r.is_correct for r in siblings)


def record(arm: str, seed: int, accuracy: float) -> dict:
    curves = dict.fromkeys(("entropy", "length", "worked", "interjections", "right verdicts"), [0.5] * 10)
    return {
        "arm": arm,
        "seed": seed,
        "curves": {"accuracy": [accuracy] * 10, **curves},
        "means": {},
        "test": {"seen_sizes": accuracy},
    }


def test_differences_are_paired_by_seed_and_corrected():
    gains = {"a": (0.02, 0.04, 0.03), "b": (0.5, -0.5, 0.0)}
    base = {seed: record("grpo", seed, 0.1 * seed) for seed in (1, 2, 3)}
    runs = {"grpo": base} | {
        arm: {seed: record(arm, seed, 0.1 * seed + gain) for seed, gain in zip((1, 2, 3), values, strict=True)}
        for arm, values in gains.items()
    }
    made = tables.paired_tables(
        {
            "first": tables.against({arm: runs[arm] for arm in ("grpo", "a")}, "grpo", {"area": tables.area}),
            "second": tables.against({arm: runs[arm] for arm in ("grpo", "b")}, "grpo", {"area": tables.area}),
        }
    )
    # mean 0.03, standard error 0.01 / √3, t(2) = 4.303: ± 0.0248; p = 0.0351 (t = 5.196), doubled by Holm for the two
    # tests of the study
    assert made["first"].splitlines()[2] == "| a | 3 | +0.030 [+0.005, +0.055], p 0.070 |"
    assert made["second"].splitlines()[2].endswith("p 1.000 |")
    assert tables.means(runs, {"area": tables.area}).splitlines()[2].startswith("| grpo | 3 | 0.200 ±")


def test_the_page_has_every_table_as_the_records_give_it():
    page = (FOLDER / "study.md").read_text(encoding="utf-8")
    for name, text in tables.tables().items():
        assert f"<!-- {name} -->\n{text}\n<!-- end -->" in page, name

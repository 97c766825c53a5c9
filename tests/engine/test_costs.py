"""The cost model counts what the engine computes: against real draws of hints, real passes, and by hand."""

from __future__ import annotations

import random
from statistics import mean

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlcsd.config.load import build_method, load
from rlcsd.engine import costs
from rlcsd.engine.costs import (
    DEVICES,
    Batch,
    Work,
    flops,
    hint_counts,
    scoring_work,
    step_seconds,
    step_work,
    update_work,
)
from rlcsd.engine.local.memory import load_shape, shape_of
from rlcsd.engine.local.model import Network
from rlcsd.engine.local.scoring import score
from rlcsd.records import Group, Pair, Problem, Rollout, Sample, Verdict
from rlcsd.run.plan import plan
from rlcsd.stages.hint import draw_hints
from tests.conftest import random_model

METHODS = ["grpo", "opsd", "sdpo", "srpo", "rlsd", "rlcsd", "opsd_ectr", "rlsd_ectr"]


def method(name: str, *overrides: str):
    return build_method(load([f"method={name}", *overrides]))


def group(correct: int, size: int) -> Group:
    blank = torch.zeros(1)
    rollouts = tuple(
        Rollout(Sample((1,), blank, blank, True), "x", Verdict(i < correct, float(i < correct)), "1")
        for i in range(size)
    )
    return Group(Problem("q", "1", "s"), (1,), rollouts, (1.0,) * size)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method.k_max=1",),
        ("method=rlcsd_extended", "method.k_correct=3"),
        ("method.hint_source=gt_cot",),
        ("method.hint_source=answer_pair",),
        ("method.hint_source=answer_pair", "method.exclude_self=false", "method.k_max=1"),
    ],
)
@pytest.mark.parametrize("correct", [0, 1, 3, 7, 8])
def test_rows_pairs_and_contexts_are_those_of_real_draws(correct, overrides):
    chosen, size = method("rlcsd", *overrides), 8
    rng, found = random.Random(0), []
    for _ in range(400):
        draws = [d.hints for d in draw_hints(group(correct, size), chosen.config, True, rng) if d.hints is not None]
        shown = {
            (hint.index, kind)
            for d in draws
            for kind, hints in (("c", [d.correct, *d.extra_correct]), ("w", d.wrong))
            for hint in hints
        }
        found.append((len(draws), sum(1 + len(d.extra_correct) + len(d.wrong) for d in draws), len(shown)))
    expected = hint_counts(correct, size, chosen)
    rows, pairs, contexts = (mean(column) for column in zip(*found, strict=True))
    assert (expected.rows, expected.pairs) == (rows, pairs)
    assert expected.siblings + expected.solutions == pytest.approx(contexts, rel=0.03)


def test_a_step_after_the_decay_of_lambda_has_no_teacher():
    chosen, batch = method("cepo"), Batch(4, 8, 10, 100, 100)
    config = load(["method=cepo", "kl_coefficient=0", "engine.sampler=local"])
    assert step_work(batch, chosen, config, 25)["score"].tokens > 0
    assert step_work(batch, chosen, config, 26)["score"] == Work()


def test_scoring_flops_are_those_of_the_passes():
    network = Network(random_model("qwen3", vocab=512))
    question, hints, responses = (
        tuple(range(3, 43)),
        [range(50, 90), range(100, 140)],
        [range(200, 260), range(300, 360)],
    )
    pairs = [Pair((*question, *hint), tuple(response)) for hint in hints for response in responses]
    with FlopCounterMode(display=False) as counter:
        score(network, pairs, pad_id=0)
    work = costs.after(0, 40) + costs.after(40, 40) * 2 + costs.after(80, 60, head=True) * 4
    shape = shape_of(network.core.config, network.core)
    linear = flops(shape, Work(work.tokens, 0, work.head))
    counted = sum(n for name, n in counter.get_flop_counts()["Global"].items() if "attention" not in str(name))
    assert counted == pytest.approx(
        linear, rel=0.03
    )  # norms are weights without a product; last tokens go with responses
    assert flops(shape, work) > linear


def test_a_group_by_hand():
    batch = Batch(1, 4, prompt=10, response=100, longest=100, template=5, correct=(0, 0, 1, 0, 0))
    # Two correct and two wrong: each row has one correct hint; the correct rows see both wrong ones, the wrong rows one.
    work = scoring_work(batch, method("rlcsd"))
    assert work.head == (2 * 3 + 2 * 2) * 100
    contexts = 2 + 2  # each correct one is always shown to the other, each wrong one to the correct ones
    assert work.tokens == 10 + contexts * 105 + 1000
    assert update_work(batch, method("grpo")).tokens == 10 + 400
    assert update_work(batch, method("grpo"), shared=False).tokens == 440


def test_groups_that_are_alike_cost_a_credit_method_only_their_rollouts():
    batch = Batch(4, 8, 10, 100, 100, correct=(0.5, *[0.0] * 7, 0.5))
    config = load(["method=rlcsd", "kl_coefficient=0", "engine.sampler=local"])
    work = step_work(batch, build_method(config), config)
    assert work["decode"].tokens == 4 * 8 * 100
    assert work["score"] == Work() and work["update"] == Work()
    assert update_work(batch, method("opsd")).head == 3200


def test_the_update_counts_what_it_computes_twice():
    shape, work = load_shape(load([]).model), Work(1000, 0, 400)
    head = flops(shape, Work(head=400))

    def passes(*overrides):
        return (costs.update_flops(shape, work, load(list(overrides))) - 3 * flops(shape, work)) / head

    assert passes("engine.micro_batch_tokens=16384", "engine.head_chunk=4096") == pytest.approx(1)
    assert passes("engine.micro_batch_tokens=4096", "engine.head_chunk=4096") == pytest.approx(0)
    assert passes("model.gradient_checkpointing=true") == pytest.approx(flops(shape, work) / head)


@pytest.mark.parametrize("name", METHODS)
def test_more_of_anything_takes_longer_and_more_devices_less(name):
    shape, config = load_shape(load([]).model), load([f"method={name}"])

    def seconds(devices=1, device="H100", **sizes):
        batch = Batch(**{"prompts": 8, "group_size": 8, "prompt": 50, "response": 200, "longest": 400} | sizes)
        return sum(step_seconds(shape, batch, build_method(config), config, DEVICES[device], devices).values())

    assert seconds() > 0
    assert seconds(response=300) > seconds() < seconds(prompts=16)
    assert seconds(2) < seconds() < seconds(device="H20")


def test_the_plan_says_that_its_hours_are_an_estimate():
    line = next(line for line in plan(load(["method=rlcsd"])).splitlines() if line.startswith("hours"))
    assert "estimated on 1 × A100" in line and "B200" in line
    assert "with 3 evaluations of 300 problems, on H100 under 0.1 hours of it" in line
    assert "not estimated" in costs.hours_line(load(["model.path=owner/nowhere"]), method("grpo"), 10)


def test_the_hours_include_every_evaluation_a_run_makes():
    def counted(steps, *overrides):
        return costs.evaluations(load([*overrides]), steps)

    assert counted(100, "evaluation.every=50") == 3  # before, 50, 100
    assert counted(99, "evaluation.every=50") == 3  # before, 50, the last step
    assert counted(99, "evaluation.every=0", "evaluation.before=false") == 1
    assert counted(120, "evaluation.every=30", "evaluation.before=false") == 4


def test_one_call_for_all_problems_waits_once_for_the_longest_response():
    """12 batches read the weights for 12 responses of full length, and one call about as often as its caches fill."""
    sizes = ["model=qwen3_4b", "task=logic_kk", "engine=verl", "evaluation.samples=1"]
    batches, once, h100 = load([*sizes, "evaluation.batch=128"]), load(sizes), DEVICES["H100"]
    shape = load_shape(once.model)

    def seconds(config, problems=1536):
        return costs.evaluation_seconds(shape, problems, config, h100, 8)

    assert seconds(batches) == pytest.approx(12 * seconds(batches, 128))
    reads = 2.0 * shape.parameters * 38912 / (0.5 * h100.bandwidth)  # each decoding step reads the weights once
    assert seconds(batches) - seconds(once) > 5 * reads
    assert seconds(once, 0) == 0

"""Memory, hours and the plan of a dry run on a cluster, without verl and without weights."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.engine.costs import DEVICES, hours_line, planned_batch, step_seconds, step_work
from rlcsd.engine.interface import engine_line, memory_line
from rlcsd.engine.local.memory import Shape, load_shape
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.errors import InputError
from rlcsd.run.plan import plan
from tests.config.test_experiments import ALL, MODELS

SHAPES = {path: load_shape(load([f"model={name}"]).model) for name, (path, _) in MODELS.items()}


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    """Each model is counted once and not for each experiment."""
    for module in ("rlcsd.engine.costs.load_shape", "rlcsd.engine.local.memory.load_shape"):
        monkeypatch.setattr(module, lambda model: SHAPES.get(model.path) or load_shape(model))


def published(model: str, task: str, method: str, *overrides: str):
    return load([f"model={model}", f"task={task}", f"method={method}", "engine=verl", *overrides])


@pytest.mark.parametrize(("model", "task", "method"), ALL)
def test_each_experiment_has_a_plan_that_fits_eight_gpus_of_80_gb(model, task, method):
    config = published(model, task, method)
    made = build_method(config)
    assert engine_line(config) == "verl on 1 × 8 GPUs"
    memory = memory_line(config, made)
    assert re.match(r"about \d+\.\d\d GiB on each GPU for training \(scoring \d", memory), memory
    assert memory.endswith("; fits GPUs of 80 GB")
    found = re.findall(r"(A100|H100|H200|H20|B200) ([\d.,]+)", hours_line(config, made, 500))
    hours = {name: float(value.replace(",", "")) for name, value in found}
    assert hours.keys() == DEVICES.keys() and hours["B200"] < hours["H200"] < hours["H100"] < hours["A100"]

    def seconds(step: int) -> float:
        shape, batch = SHAPES[config.model.path], planned_batch(config)
        return sum(step_seconds(shape, batch, made, config, DEVICES["H20"], 8, step=step).values())

    # λ of these two is 0 after 50 steps, and then no teacher is asked
    asked = 50 if method in ("rlsd", "rlsd_ectr") else 500
    assert hours["H20"] == pytest.approx((asked * seconds(1) + (500 - asked) * seconds(500)) / 3600, abs=0.6)


SMALL = ["task.train_sizes=[3]", "task.unseen_sizes=[]", "task.train_per_size=64", "task.eval_per_size=2"]


def test_the_whole_plan_of_a_dry_run():
    lines = dict(
        line.split(maxsplit=1) for line in plan(published("qwen3_4b", "logic_kk", "rlcsd", *SMALL)).splitlines()
    )
    assert lines["engine"] == "verl on 1 × 8 GPUs" and "fits GPUs of 80 GB" in lines["memory"]
    assert lines["hours"].startswith("estimated on 8 × A100 ")


# What does not fit: a run, changes that the sentence names, and what they lower.
SHORTAGES = [
    (
        "scoring needs ",
        "olmo3_7b_think",
        ["engine.score_tokens=131072"],
        ["engine.offload=all", "engine.share_prefixes=false", "engine.score_tokens=16384", "engine.gpus_per_node=16"],
        lambda plan: plan.scoring,
    ),
    (
        "scoring needs ",
        "olmo3_7b_think",
        ["engine.gpus_per_node=1", "model.lora.rank=16", "sampling.max_tokens=32768", "engine.offload=all"],
        ["engine.share_prefixes=false", "sampling.max_tokens=4096"],
        lambda plan: plan.scoring,
    ),
    (
        "the update needs ",
        "qwen3_4b",
        ["engine.gpus_per_node=2", "engine.micro_batch_tokens=60000"],
        ["engine.offload=all", "engine.micro_batch_tokens=20000", "engine.head_chunk=512", "engine.gpus_per_node=8"],
        lambda plan: plan.update,
    ),
    (
        "the trainer's ",
        "qwen3_8b",
        ["engine.gpus_per_node=4", "engine.rollout_memory=0.9"],
        ["engine.offload=all", "engine.nodes=2", "model.lora.rank=64"],
        lambda plan: plan.resting,
    ),
    (
        "a server needs ",
        "olmo3_7b_think",
        ["engine.rollout_memory=0.3"],
        ["engine.tensor_parallel=2", "evaluation.sampling.max_tokens=4096"],
        lambda plan: plan.served + plan.row,
    ),
]


@pytest.mark.parametrize(("what", "model", "overrides", "changes", "need"), SHORTAGES)
def test_what_does_not_fit_is_named_with_keys_that_lower_the_need(what, model, overrides, changes, need):
    def planned(*more: str) -> tuple[float, str]:
        config = published(model, "logic_kk", "rlcsd", *overrides, *more)
        made = build_method(config)
        return need(gpu_plan(SHAPES[config.model.path], config, made)), memory_line(config, made)

    before, line = planned()
    assert f"; DOES NOT FIT GPUs of 80 GB: {what}" in line
    for change in changes:
        assert change.split("=")[0] in line.split("; set ")[1]
        assert planned(change)[0] < before, change
    assert planned(*changes)[1].endswith("; fits GPUs of 80 GB")


def test_what_is_set_already_is_not_advised():
    tight = ["engine.gpus_per_node=1", "engine.offload=all", "engine.micro_batch_tokens=200000"]
    config = published("qwen3_8b", "logic_kk", "rlcsd", *tight)
    line = memory_line(config, build_method(config))
    assert "DOES NOT FIT" in line and "engine.offload=all" not in line and "gradient_checkpointing" not in line


def seconds(*overrides: str, model: str = "qwen3_8b", **sizes):
    config = published(model, "logic_kk", "rlcsd", "kl_coefficient=0", *overrides)
    batch = replace(planned_batch(config), **sizes)
    devices = config.engine.gpus
    return step_seconds(SHAPES[config.model.path], batch, build_method(config), config, DEVICES["H100"], devices)


def test_hours_count_all_gpus_and_what_this_engine_computes():
    one, two = seconds(), seconds("engine.nodes=2")
    assert two["score"] == pytest.approx(one["score"] / 2) and two["update"] == pytest.approx(one["update"] / 2)
    assert two["sample"] > 0.5 * one["sample"]  # each server reads all weights
    assert seconds("engine.share_prefixes=false")["score"] > 1.3 * one["score"]
    config = published("qwen3_8b", "logic_kk", "grpo", "kl_coefficient=0")
    work, batch = step_work(planned_batch(config), build_method(config), config), planned_batch(config)
    assert work["score"].head == pytest.approx(64 * 8 * 8192)  # the policy's own log-probs, which servers do not give
    mixed = 64 * 8 * 7 / 9  # rows of groups that are not all alike, each with its own prompt
    assert work["update"].tokens == pytest.approx(mixed * (batch.prompt + batch.response))
    assert step_work(batch, build_method(config), load(["engine.sampler=local", "kl_coefficient=0"]))["score"].head == 0


def test_servers_that_share_weights_read_less_and_small_caches_take_longer():
    assert seconds("engine.rollout_memory=0.25")["sample"] > seconds()["sample"]
    assert seconds("engine.rollout_rows=8")["sample"] > 2 * seconds()["sample"]
    many = ["engine.nodes=8", "engine.rollout_memory=0.3"]  # few rows to a server: weights are most of what is read
    assert seconds(*many, "engine.tensor_parallel=4")["sample"] < seconds(*many)["sample"]


def test_a_long_row_bounds_the_update_of_many_gpus_and_sequence_parallelism_lowers_it():
    many = ["engine.nodes=32", "engine.share_prefixes=false"]
    alone = seconds(*many)["update"]
    assert alone > seconds("engine.share_prefixes=false")["update"] / 32
    assert seconds(*many, "engine.sequence_parallel=4")["update"] < alone


def test_a_plan_holds_the_largest_pass_of_scoring():
    config = published("qwen3_8b", "logic_kk", "rlcsd")
    shape, less = SHAPES[config.model.path], published("qwen3_8b", "logic_kk", "rlcsd", "engine.head_chunk=1")
    counted = gpu_plan(shape, less, build_method(less)).scoring
    weights = 16 * shape.parameters / 8 + 2 * shape.parameters  # shards in float32, and the weights gathered in bf16
    assert counted - weights > 32768 * 36 * 2 * 1024 * 2 * 2  # two caches of score_tokens, and a pass beside them


# Qwen3-8B: parameters, layers, hidden, feed-forward, queries, keys, vocabulary, in + out dimensions of all linear layers.
EIGHT_B = Shape(8_190_735_360, 36, 4096, 12288, 4096, 1024, 151936, 36 * 79872)


def planned(*overrides: str):
    config = load(["engine=verl", "model=qwen3_8b", "task=logic_kk", "method=rlcsd", *overrides])
    return gpu_plan(EIGHT_B, config, build_method(config))


def test_shards_shrink_with_gpus_and_offload_moves_them_to_the_host():
    one, two = planned(), planned("engine.nodes=2")
    static = 16 * EIGHT_B.parameters  # weights, moments and the teacher's weights, in float32
    assert one.resting == pytest.approx(static / 8) and two.resting == pytest.approx(static / 16)
    away = planned("engine.offload=all")
    assert away.resting == 0 and away.host == pytest.approx(static / 8) and away.update < one.update
    moments = planned("engine.offload=optimizer")
    assert moments.host == pytest.approx(EIGHT_B.parameters) and moments.scoring < one.scoring


def test_sleeping_servers_with_adapters_keep_their_base_in_host_memory():
    alone, merged = (planned("model.lora.rank=64", f"engine.rollout_adapters={how}") for how in ("auto", "merged"))
    assert (alone.host, merged.host) == (2 * EIGHT_B.parameters, 0)


def test_sequence_parallelism_divides_activations_and_needs_no_gathered_weights():
    assert planned("engine.sequence_parallel=4", "engine.share_prefixes=false").update < planned().update
    with pytest.raises(InputError, match="share_prefixes=false"):
        planned("engine.sequence_parallel=4")
    with pytest.raises(InputError, match=r"engine\.tensor_parallel=3: must divide the number of GPUs, 1 × 8"):
        planned("engine.tensor_parallel=3")


def test_a_dry_run_needs_neither_verl_nor_a_gpu():
    config = load(["engine=verl", "engine.nodes=2", "engine.tensor_parallel=2"])
    assert engine_line(config) == "verl on 2 × 8 GPUs, 2 GPUs for each rollout server"
    assert memory_line(config, build_method(config)).startswith("about 0.")
    assert "verl on 2 × 8 GPUs" in plan(config)

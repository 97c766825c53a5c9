"""What a dry run says of the cluster, without verl and without weights: GPUs, memory and whether it is there, hours."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.engine.costs import DEVICES, hours_line, planned_batch, step_seconds, step_work
from rlcsd.engine.interface import engine_line, memory_line
from rlcsd.engine.local.memory import load_shape
from rlcsd.engine.verl.gpu_plan import gpu_plan
from rlcsd.run.plan import plan
from tests.config.test_experiments import ALL, MODELS

SHAPES = {path: load_shape(load([f"model={name}"]).model) for name, (path, _) in MODELS.items()}


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    """Each model is counted once and not for each experiment."""
    for module in ("rlcsd.engine.costs.load_shape", "rlcsd.engine.local.memory.load_shape"):
        monkeypatch.setattr(module, lambda model: SHAPES[model.path])


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
    seconds = step_seconds(SHAPES[config.model.path], planned_batch(config), made, config, DEVICES["H20"], 8)
    assert hours["H20"] == pytest.approx(500 * sum(seconds.values()) / 3600, abs=0.6)


SMALL = ["task.train_sizes=[3]", "task.unseen_sizes=[]", "task.train_per_size=64", "task.eval_per_size=2"]


def test_the_whole_plan_of_a_dry_run():
    lines = dict(
        line.split(maxsplit=1) for line in plan(published("qwen3_4b", "logic_kk", "rlcsd", *SMALL)).splitlines()
    )
    assert lines["engine"] == "verl on 1 × 8 GPUs" and "fits GPUs of 80 GB" in lines["memory"]
    assert lines["hours"].startswith("estimated on 8 × A100 ")


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("qwen3_8b", ["engine.gpus_per_node=2"]),
        ("qwen3_8b", ["engine.gpus_per_node=4", "engine.rollout_memory=0.9"]),
        ("qwen3_4b", ["engine.gpus_per_node=1"]),
        ("qwen3_4b", ["engine.gpus_per_node=2", "engine.micro_batch_tokens=60000"]),
        ("olmo3_7b_think", ["engine.score_tokens=131072"]),
        ("olmo3_7b_think", ["engine.rollout_memory=0.3"]),
    ],
)
def test_what_does_not_fit_is_told_with_changes_that_make_it_fit(model, overrides):
    config = published(model, "logic_kk", "rlcsd", *overrides)
    line = memory_line(config, build_method(config))
    assert "; DOES NOT FIT GPUs of 80 GB: " in line, line
    changes = re.search(r"; set ((?:(?:engine|model)\.\S+ ?)+)$", line)
    assert changes is not None, line
    changed = published(model, "logic_kk", "rlcsd", *overrides, *changes[1].split())
    assert memory_line(changed, build_method(changed)).endswith("; fits GPUs of 80 GB")


def test_what_cannot_fit_says_so():
    config = published("qwen3_8b", "logic_kk", "rlcsd", "engine.gpus_per_node=1")
    assert memory_line(config, build_method(config)).endswith(
        "use more GPUs (engine.nodes, engine.gpus_per_node), adapters (model.lora.rank=64) or shorter responses"
    )


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

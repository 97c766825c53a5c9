"""FLOPs counted by hand, peaks by the names that torch gives, and what a step on a device reports."""

from __future__ import annotations

import pytest
import torch

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.memory import load_shape
from rlcsd.engine.throughput import PhaseMeter, WorkCounter, peak_flops, peak_tflops
from rlcsd.records import Pair, Sampling
from rlcsd.run import Run


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA H20", 148),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA B200", 2250), ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2), ("NVIDIA RTX A6000", 155), ("NVIDIA L4", 121), ("NVIDIA GH200 480GB", 989),
        ("Tesla V100-SXM2-32GB", None),
    ],
)  # fmt: skip
def test_peaks(name, peak):
    assert peak_tflops(name) == peak


def test_a_peak_that_is_given_counts_on_all_devices():
    assert peak_flops(load([]), torch.device("cpu")) is None
    assert peak_flops(load(["engine.peak_tflops=2"]), torch.device("cpu")) == 2e12
    cluster = load(["engine=verl", "engine.peak_tflops=989", "engine.gpus_per_node=8"])
    assert peak_flops(cluster, torch.device("cpu")) == pytest.approx(8 * 989e12)


def test_flops_are_those_of_torchs_own_counter():
    """A forward pass of the tiny model, counted by torch operation by operation, and by us; attention is a small part."""
    from torch.utils.flop_counter import FlopCounterMode

    config = load(["method=grpo", "engine.threads=1", "engine.self_check=false"])
    engine = LocalEngine(config, build_method(config))
    pairs = [Pair(tuple(range(3, 10)), tuple(range(10, 60)))]
    with FlopCounterMode(display=False) as counter:
        engine.score(pairs, "policy")
    tokens, flops = engine.work.take()
    assert tokens == 50
    assert flops == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_contexts_count_once_and_updates_three_or_two_times():
    config = load([])
    counter = WorkCounter(load_shape(config.model), config)
    pair = Pair((1, 2, 3, 4), (5, 6))
    counter.scored([pair])
    one = counter.take()[1]
    counter.scored([pair, pair])
    two = counter.take()[1]
    assert one < two < 2 * one
    counter.updated([pair, pair], 0.5)
    assert counter.take() == (2, pytest.approx(1.5 * two))
    adapted = WorkCounter(load_shape(config.model), load(["model.lora.rank=2"]))
    adapted.updated([pair], 1.0)
    assert adapted.take()[1] == pytest.approx(2 * one)


def test_a_phase_on_a_device_reports_its_memory():
    from tests.pretended_device import PretendedDevice

    config = load(["method=grpo", "engine.threads=1", "engine.self_check=false"])
    engine = LocalEngine(config, build_method(config))
    meter = PhaseMeter(engine, load(["engine.peak_tflops=1"]))
    with PretendedDevice():
        meter.device = torch.device("cuda")
        meter.begin()
        engine.work.sampled([[1, 2]], engine.sample([[1, 2]], 2, Sampling(max_tokens=2), 0))
        meter.end("sample")
    assert set(meter.metrics({"sample": 0.5})) == {
        f"perf/{what}/sample" for what in ("throughput", "mfu", "memory_allocated", "memory_reserved")
    }


def test_profiled_steps_leave_a_trace(tiny_config):
    import gzip
    import json

    run = Run(
        tiny_config("method=grpo", "engine.profile_steps=[2]", "sampling.max_tokens=4", "evaluation.before=false")
    )
    run.execute()
    (path,) = (run.folder / "profile").iterdir()
    assert path.name == "step_000002.json.gz"
    with gzip.open(path) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "aten::mm" in names or "aten::addmm" in names

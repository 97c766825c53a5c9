"""Copies in host memory, and how much of it is free."""

from __future__ import annotations

import torch

from rlcsd.engine.local.host import available_memory, host_copy, size_of


def test_copies_are_apart_and_tied_tensors_stay_one():
    weight = torch.ones(3)
    values = {"a": weight, "b": [weight, torch.zeros(2)], "c": 5}
    copied = host_copy(values)
    weight += 1
    assert copied["a"] is copied["b"][0]
    assert copied["a"].tolist() == [1, 1, 1]
    assert copied["c"] == 5
    assert size_of(values) == 5 * 4


def test_free_memory_is_that_of_the_container_if_it_is_less(tmp_path):
    assert available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   64 kB\n")
    assert available_memory(tmp_path) == 64 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert available_memory(tmp_path) == 64 * 1024
    (group / "memory.max").write_text("5000\n")
    assert available_memory(tmp_path) == 4000

"""Copies of tensors in host memory, and how much of it is free."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")


def host_copy(values: T) -> T:
    """Nested values with each tensor copied to the host; tensors that are one (tied weights) stay one."""
    copies: dict[object, Tensor] = {}

    def copy(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        key = value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride()
        if not value.numel() or key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]

    copied: T = tree_map(copy, values)
    return copied


def size_of(values: object) -> int:
    """Bytes of all tensors in nested values, each once."""
    tensors = {t.untyped_storage().data_ptr(): t for t in tree_leaves(values) if isinstance(t, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes of host memory that this process may still take, within its container's limit; None if unknown."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        group = root / "sys/fs/cgroup"
        try:
            free = min(free, int((group / limit).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(0, free)

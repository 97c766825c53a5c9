"""One rank of an all-reduce over all devices: `python -m rlcsd.engine.all_reduce BACKEND RANKS FILE RANK`.

Prints the rate in GB/s (bytes of the tensor, times 2 (n − 1) / n that each rank sends, over seconds). `FILE` is where
the ranks meet. `rlcsd doctor` starts one for each GPU.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from time import perf_counter

import torch
from torch import distributed


def all_reduce(backend: str, ranks: int, meeting: str, rank: int) -> float:
    """GB/s of the second all-reduce. Raises RuntimeError if the sum is wrong or a rank is missing."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend, init_method=f"file://{meeting}", world_size=ranks, rank=rank, timeout=timedelta(seconds=60)
    )
    seconds = 0.0
    for _ in range(2):
        tensor = torch.full((2**26 if device.type == "cuda" else 2**18,), rank + 1.0, device=device)
        begun = perf_counter()
        distributed.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = perf_counter() - begun
        if not bool((tensor == ranks * (ranks + 1) / 2).all()):
            raise RuntimeError("the sum over the ranks is wrong")
    distributed.destroy_process_group()
    return tensor.numel() * 4 * 2 * (ranks - 1) / ranks / seconds / 1e9


if __name__ == "__main__":
    print(all_reduce(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))

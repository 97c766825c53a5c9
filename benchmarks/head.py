"""Memory of the language-model head: whole logits against chunks, forward and backward.

    python benchmarks/head.py [--tokens 8192] [--vocab 151936] [--json FILE]

Peak extra memory of log-probs of given tokens and their gradient. Each variant runs in a process of its own; on a CPU
the peak is the process's highest resident set beyond what it held before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from pathlib import Path

import torch
from common import device, write

from rlcsd.engine.head import Head


def peak(variant: str, tokens: int, vocab: int, hidden: int, chunk: int, queue: multiprocessing.Queue) -> None:
    torch.manual_seed(0)
    where = device()
    projection = torch.nn.Linear(hidden, vocab, bias=False, device=where)
    projection.weight.grad = torch.zeros_like(projection.weight)
    states = torch.randn(tokens, hidden, device=where, requires_grad=True)
    ids = torch.randint(vocab, (tokens,), device=where)
    (projection(states[:8]).sum() * 0).backward()  # libraries allocate their workspaces
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if variant == "whole":
        loss = projection(states).log_softmax(-1).gather(-1, ids[:, None]).sum()
    else:
        loss = Head(projection, chunk=chunk)(states, ids, entropy=False).log_prob.sum()
    loss.backward()
    after = (
        torch.cuda.max_memory_allocated()
        if where.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    queue.put((after - before, float(loss.detach())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = {}
    for variant in ("whole", "chunked"):
        queue = context.Queue()
        process = context.Process(target=peak, args=(variant, a.tokens, a.vocab, a.hidden, a.chunk, queue))
        process.start()
        found[variant] = queue.get()
        process.join()
        print(
            f"{variant:<8} {found[variant][0] / 2**30:6.2f} GiB beyond weights and states, sum of log-probs "
            f"{found[variant][1]:.1f}"
        )
    print(f"ratio {found['whole'][0] / max(found['chunked'][0], 1):.1f}")
    write(
        a.json,
        {
            "bytes": {name: value[0] for name, value in found.items()},
            "tokens": a.tokens,
            "vocab": a.vocab,
            "chunk": a.chunk,
        },
    )


if __name__ == "__main__":
    main()

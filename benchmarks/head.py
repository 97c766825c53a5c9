"""Memory of the language-model head, forward and backward: whole logits against chunks.

    python benchmarks/head.py [--tokens 8192] [--vocab 151936] [--json FILE] [--smoke]

Peak memory of log-probs of given tokens and their gradient, beyond weights and states. Each variant runs in a process
of its own; on a CPU the peak is that of the resident set.
"""

from __future__ import annotations

import torch
from common import device, in_own_process, options, parsed, peak, resident, write

from rlcsd.engine.head import Head


def measure(variant: str, tokens: int, vocab: int, hidden: int, chunk: int) -> tuple[int, float]:
    """Bytes at the peak, and the sum of log-probs, which must be the same for both variants."""
    torch.manual_seed(0)
    where = device()
    projection = torch.nn.Linear(hidden, vocab, bias=False, device=where)
    projection.weight.grad = torch.zeros_like(projection.weight)
    states = torch.randn(tokens, hidden, device=where, requires_grad=True)
    ids = torch.randint(vocab, (tokens,), device=where)
    (projection(states[:8]).sum() * 0).backward()  # libraries allocate their workspaces
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = resident()
    if variant == "whole":
        loss = projection(states).log_softmax(-1).gather(-1, ids[:, None]).sum()
    else:
        loss = Head(projection, chunk=chunk)(states, ids, entropy=False).log_prob.sum()
    loss.backward()
    return peak() - before, float(loss.detach())


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=256)
    a = parsed(parser)
    if a.smoke:
        a.tokens, a.vocab, a.chunk = 64, 512, 16
    found = {}
    for variant in ("whole", "chunked"):
        found[variant] = in_own_process(measure, variant, a.tokens, a.vocab, a.hidden, a.chunk, smoke=a.smoke)
        held, total = found[variant]
        print(f"{variant:<8} {held / 2**30:6.2f} GiB beyond weights and states, sum of log-probs {total:.1f}")
    print(f"ratio {found['whole'][0] / max(found['chunked'][0], 1):.1f}")
    held = {name: value[0] for name, value in found.items()}
    write(a.json, {"bytes": held, "tokens": a.tokens, "vocab": a.vocab, "chunk": a.chunk})


if __name__ == "__main__":
    main()

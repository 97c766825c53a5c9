"""What attention in blocks costs short rows: scoring, sampling and update, with the library's masks and with ours.

python benchmarks/short_rows.py [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import device, interleaved, median, random_network, write
from scoring import BUDGET, pairs_of

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import attention, sampler
from rlcsd.engine.local.scoring import score
from rlcsd.engine.local.update import MiniBatch, accumulate
from rlcsd.records import Pair, Sampling, TokenBatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    network = random_network(hidden=256, layers=4, vocab=2048)
    pairs = pairs_of(2, 8, 4, 96, 96, 2048)
    rows = [Pair(pair.context[:40], pair.response) for pair in {pair.response: pair for pair in pairs}.values()]
    prompts = [row.context[: 30 + place] for place, row in enumerate(rows[:8])]
    method = build_method(load(["method=grpo"]))
    lengths = torch.tensor([len(row.response) for row in rows], device=device())
    rollout = torch.arange(len(rows), device=device()).repeat_interleave(lengths)
    ones = torch.ones(len(rollout), device=device())
    batch = MiniBatch(rows, method.prepare(TokenBatch(rollout, ones, ones, -7 * ones, ones, ones.bool()), 1), method)
    sampling = Sampling(max_tokens=48)
    phases: dict[str, Callable[[], Any]] = {
        "score": lambda: score(network, pairs, pad_id=0, budget=BUDGET),
        "sample": lambda: sampler.sample(network.model, prompts, 8, sampling, seed=0, stop_ids=[], pad_id=0),
        "update": lambda: accumulate(network, batch, pad_id=0, budget=BUDGET),
    }

    def using(implementation: str, run: Callable[[], Any]) -> Callable[[], None]:
        def both() -> None:
            network.core.set_attn_implementation(implementation)
            run()

        return both

    records = {}
    print("| phase | library s | ours s | ratio of the least | median of the ratios |\n|---|---|---|---|---|")
    for name, run in phases.items():
        seconds = interleaved({"library": using("sdpa", run), "ours": using(attention.NAME, run)}, arguments.rounds)
        least = {which: min(values) for which, values in seconds.items()}
        ratios = [ours / library for library, ours in zip(seconds["library"], seconds["ours"], strict=True)]
        print(
            f"| {name} | {least['library']:.2f} | {least['ours']:.2f} | {least['ours'] / least['library']:.2f} "
            f"| {median(ratios):.2f} |",
            flush=True,
        )
        records[name] = seconds
    write(arguments.json, records)


if __name__ == "__main__":
    main()

"""The update: prompts computed once for a group against prompts computed again for each of its rollouts.

    python benchmarks/update.py [--rounds 5] [--json FILE]

Forward and backward of one mini-batch, four groups of eight responses of 50 to 150 tokens, through the engine's own
code.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from unittest.mock import patch

import torch
from common import interleaved, median, random_network, write

from rlcsd.engine.local.update import MiniBatch, accumulate
from rlcsd.methods import METHODS
from rlcsd.records import Pair, TokenBatch

CASES = [(128, 60), (256, 60), (256, 150), (512, 60)]  # hidden size, prompt length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print("| hidden | prompt | again for each s | once s | once / again |\n|---|---|---|---|---|")
    records = []
    for hidden, length in CASES:
        rng = random.Random(0)
        network = random_network(hidden, layers=4, vocab=2048)
        network.model.train()

        def text(low: int, high: int, rng: random.Random = rng) -> tuple[int, ...]:
            return tuple(rng.randrange(3, 2000) for _ in range(rng.randint(low, high)))

        prompts = [text(length, length) for _ in range(4)]
        pairs = [Pair(prompt, text(50, 150)) for prompt in prompts for _ in range(8)]
        rollout = torch.tensor(
            [place for place, pair in enumerate(pairs) for _ in pair.response], device=network.device
        )
        ones = torch.ones(len(rollout), device=network.device)
        method = METHODS["grpo"].from_fields()
        token_batch = method.prepare(TokenBatch(rollout, ones, ones, -7 * ones, ones, ones.bool()), 1)

        def run(network=network, pairs=pairs, token_batch=token_batch, method=method) -> None:
            network.model.zero_grad()
            accumulate(network, MiniBatch(pairs, token_batch, method), pad_id=0, budget=2048)

        def again(run=run) -> None:
            with patch("rlcsd.engine.local.update.shared_prompts", lambda *arguments: None):
                run()

        seconds = interleaved({"again": again, "once": run}, arguments.rounds)
        slow, fast = median(seconds["again"]), median(seconds["once"])
        print(f"| {hidden} | {length} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} |", flush=True)
        records.append({"hidden": hidden, "prompt": length, "seconds": seconds})
    write(arguments.json, {"cases": records})


if __name__ == "__main__":
    main()

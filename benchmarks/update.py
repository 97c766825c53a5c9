"""The update: prompts computed once for a group against prompts computed again for each of its rollouts.

    python benchmarks/update.py [--rounds 5] [--json FILE] [--smoke]

Forward and backward of one mini-batch, four groups of eight responses of 50 to 150 tokens, through the engine's own
code.
"""

from __future__ import annotations

import random
from unittest.mock import patch

from common import grpo_mini_batch, interleaved, median, options, parsed, random_network, write

from rlcsd.engine.local import update
from rlcsd.records import Pair

CASES = [(128, 60), (256, 60), (256, 150), (512, 60)]  # hidden size, prompt length


def pairs_of(prompt: int, groups: int) -> list[Pair]:
    rng = random.Random(0)

    def text(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 2000) for _ in range(rng.randint(low, high)))

    return [Pair(context, text(50, 150)) for context in [text(prompt, prompt) for _ in range(groups)] for _ in range(8)]


def main() -> None:
    arguments = parsed(options(__doc__, rounds=5))
    print("| hidden | prompt | again for each s | once s | once / again |\n|---|---|---|---|---|")
    records = []
    for hidden, length in CASES[:1] if arguments.smoke else CASES:
        network = random_network(hidden, layers=4, vocab=2048)
        network.model.train()
        batch = grpo_mini_batch(pairs_of(length, 1 if arguments.smoke else 4))

        def once(network=network, batch=batch) -> None:
            network.model.zero_grad()
            update.accumulate(network, batch, pad_id=0, budget=2048)

        def again(once=once) -> None:
            with patch.object(update, "prompts_to_share", lambda *arguments: None):
                once()

        seconds = interleaved({"again": again, "once": once}, arguments.rounds)
        slow, fast = median(seconds["again"]), median(seconds["once"])
        print(f"| {hidden} | {length} | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} |", flush=True)
        records.append({"hidden": hidden, "prompt": length, "seconds": seconds})
    write(arguments.json, {"cases": records})


if __name__ == "__main__":
    main()

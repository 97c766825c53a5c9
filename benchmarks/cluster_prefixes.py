"""Scoring under hints with prefixes computed once, and with every hinted row in full, on ranks of a cluster.

    python benchmarks/cluster_prefixes.py [--ranks 2] [--groups 4] [--question 150] [--hint 200] [--response 200]
                                          [--rounds 5] [--smoke]

Needs verl (`make test-verl` makes an environment). On the CPU, over gloo, with the tiny model: tokens that go through
the model are exact; seconds are those of this machine, medians of interleaved rounds: of the clock, and of the CPU time
of all ranks together, in which other programs do not count. The rows are those of rlcsd: each of 8 rollouts of a
question is scored under a correct hint and 4 wrong ones, which the group shares.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import psutil
from common import median, options, parsed, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from rlcsd.config.load import build_method, load
from rlcsd.engine.verl.verl_engine import VerlEngine
from rlcsd.records import Pair
from tests.engine.verl.conftest import CPU, TASK
from tests.engine.verl.ranks import PipedCluster, Ranks


def rows(groups: int, question: int, hint: int, response: int) -> list[Pair]:
    """Pairs as the score stage makes them: 2 texts for correct hints (no rollout is shown itself), 4 for wrong ones."""
    rng = random.Random(0)

    def some(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, 500) for _ in range(count))

    pairs = []
    for _ in range(groups):
        asked, ending = some(question), some(20)
        contexts = [(*asked, *some(hint), *ending) for _ in range(6)]
        for index in range(8):
            answer = some(response - rng.randrange(response // 2))
            pairs += [Pair(contexts[index % 2], answer), *(Pair(contexts[2 + k], answer) for k in range(4))]
    return pairs


def cpu_seconds(ranks: Ranks) -> float:
    """CPU time of all ranks since they were started."""
    times = [psutil.Process(process.pid).cpu_times() for process in ranks.processes]
    return sum(one.user + one.system for one in times)


def main() -> None:
    parser = options(__doc__, rounds=5)
    for name, value in {"ranks": 2, "groups": 4, "question": 150, "hint": 200, "response": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parsed(parser)
    if chosen.smoke:
        chosen.groups, chosen.question, chosen.hint, chosen.response = 1, 10, 10, 10
    pairs = rows(chosen.groups, chosen.question, chosen.hint, chosen.response)
    pairs_of_ranks = [Ranks(chosen.ranks) for _ in range(2)]
    engines = []
    for ranks, share in zip(pairs_of_ranks, ("true", "false"), strict=True):
        settings = [
            f"engine.gpus_per_node={chosen.ranks}",
            f"engine.share_prefixes={share}",
            "engine.score_tokens=4096",
        ]
        config = load([*CPU, *TASK, *settings, "method=rlcsd"])
        method = build_method(config)
        engines.append(VerlEngine(config, method, PipedCluster(ranks, config)))
    seconds: list[list[float]] = [[], []]
    worked: list[list[float]] = [[], []]
    columns = [engine.score(pairs).log_prob for engine in engines]
    for _ in range(chosen.rounds):
        for engine, ranks, taken, work in zip(engines, pairs_of_ranks, seconds, worked, strict=True):
            begun, before = time.perf_counter(), cpu_seconds(ranks)
            engine.score(pairs)
            taken.append(time.perf_counter() - begun)
            work.append(cpu_seconds(ranks) - before)
    for ranks in pairs_of_ranks:
        ranks.close()
    print(f"{len(pairs)} rows, {chosen.ranks} ranks; log-probs differ by {(columns[0] - columns[1]).abs().max():.1e}")
    print("| scoring | tokens through the model | seconds | CPU seconds of all ranks |\n|---|---|---|---|")
    for name, engine, *times in zip(("prefixes once", "every row in full"), engines, seconds, worked, strict=True):
        print(f"| {name} | {engine.computed:,} | {' | '.join(f'{median(t):.2f}' for t in times)} |")
    once, full = engines
    fewer = [median(of[1]) / median(of[0]) for of in (seconds, worked)]
    tokens = full.computed / once.computed
    print(f"\nin full over once: tokens {tokens:.2f}, seconds {fewer[0]:.2f}, CPU seconds {fewer[1]:.2f}")
    write(chosen.json, {"tokens": tokens, "seconds": seconds, "cpu_seconds": worked})


if __name__ == "__main__":
    main()

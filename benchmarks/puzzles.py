"""Knights & Knaves: CPU time of a puzzle, by size and split, and of the data of `task=logic_kk`.

    python benchmarks/puzzles.py [--count N] [--json FILE] [--smoke]

A test puzzle costs more than a training puzzle: nine in ten of those that are drawn belong to other splits.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from rlcsd.tasks.knights_and_knaves import Recipe, draw_problems


def milliseconds(sizes: list[int], count: int, split: str) -> float:
    """CPU time of one puzzle, the mean over `count` puzzles of each size."""
    begun = time.process_time()
    draw_problems(sizes, count, split, Recipe())
    return 1000 * (time.process_time() - begun) / (count * len(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="puzzles of each size")
    parser.add_argument("--json", type=Path, help="write the numbers to a file as well")
    parser.add_argument("--smoke", action="store_true", help="a few puzzles, to see that it runs")
    arguments = parser.parse_args()
    count = 3 if arguments.smoke else arguments.count
    sizes = (3, 4) if arguments.smoke else (4, 6, 8, 11)
    measure = partial(milliseconds, count=count)
    rows = [
        {"people": size, "train_ms": measure([size], split="train"), "test_ms": measure([size], split="test")}
        for size in sizes
    ]
    print("| people | training puzzle, ms | test puzzle, ms |", "|---|---|---|", sep="\n")
    for row in rows:
        print(f"| {row['people']} | {row['train_ms']:.2f} | {row['test_ms']:.2f} |")
    train, test = list(range(4, 9)), list(range(4, 12))
    if not arguments.smoke:
        seconds = (900 * 5 * measure(train, split="train") + 100 * 8 * measure(test, split="test")) / 1000
        print(f"\nthe 5,300 puzzles of logic_kk: {seconds:.1f} s")
        rows.append({"logic_kk_s": seconds})
    if arguments.json:
        from common import write

        write(arguments.json, {"count": count, "rows": rows})


if __name__ == "__main__":
    main()

"""A verifier in processes with a time limit: this project's own against pebble's pool (`pip install pebble`).

    python benchmarks/verifier_pools.py [--smoke] [--responses 512] [--rounds 5] [--json FILE]

Both fork, so that a verifier may be any function, and both limit each response to 10 seconds; rounds take turns.
`--smoke` takes seconds and needs no pebble.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import interleaved, median, write

from rlcsd.verifiers.process import IsolatedVerifier

PROCESSES, SECONDS = 2, 10.0


def verifier(response: str, answer: str) -> bool:
    return answer in response


_held: list[Callable[..., Any]] = []


def _hold(function: Callable[..., Any]) -> None:
    _held.append(function)


def _judge(response: str, answer: str) -> Any:
    return _held[0](response, answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="32 responses, one round")
    parser.add_argument("--responses", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count, rounds = (32, 1) if arguments.smoke else (arguments.responses, arguments.rounds)
    responses = [f"So the answer is {number}." + " and so on" * 200 for number in range(count)]

    def judging(judge: Callable[[Sequence[str], Sequence[str]], list[Any]]) -> Callable[[], None]:
        def run() -> None:
            assert list(map(bool, judge(responses, ["7"] * count))) == ["7" in text for text in responses]

        return run

    candidates = {"own": judging(IsolatedVerifier(verifier, SECONDS, PROCESSES).batch)}
    with contextlib.ExitStack() as stack:
        if not arguments.smoke or find_spec("pebble"):
            from pebble import ProcessPool

            context = multiprocessing.get_context("fork")
            pool = stack.enter_context(ProcessPool(PROCESSES, initializer=_hold, initargs=[verifier], context=context))
            candidates["pebble"] = judging(
                lambda given, answers: list(pool.map(_judge, given, answers, timeout=SECONDS).result())
            )
        seconds = interleaved(candidates, rounds)
    medians = {name: median(values) for name, values in seconds.items()}
    print(f"{count} responses: " + ", ".join(f"{name} {value:.3f} s" for name, value in medians.items()))
    if "pebble" in medians:
        medians["ratio"] = medians["own"] / medians["pebble"]
        print(f"ratio {medians['ratio']:.2f}")
    write(arguments.json, medians)


if __name__ == "__main__":
    main()

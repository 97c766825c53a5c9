"""A verifier in processes with a time limit: this project's own against pebble's pool (`pip install pebble`).

    python benchmarks/verifier_pools.py [--responses 512] [--rounds 5] [--json FILE] [--smoke]

Both fork, so that a verifier may be any function, and both limit each response to 10 seconds; rounds take turns.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

from common import interleaved, median, options, parsed, write
from pebble import ProcessPool

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
    parser = options(__doc__, rounds=5)
    parser.add_argument("--responses", type=int, default=512)
    arguments = parsed(parser)
    if arguments.smoke:
        arguments.responses = 8
    responses = [f"So the answer is {number}." + " and so on" * 200 for number in range(arguments.responses)]
    own = IsolatedVerifier(verifier, SECONDS, PROCESSES)
    context = multiprocessing.get_context("fork")
    with ProcessPool(PROCESSES, initializer=_hold, initargs=[verifier], context=context) as pool:

        def pebbles(given: Sequence[str], answers: Sequence[str]) -> list[Any]:
            return list(pool.map(_judge, given, answers, timeout=SECONDS).result())

        def judging(judge: Callable[[Sequence[str], Sequence[str]], list[Any]]) -> Callable[[], None]:
            def run() -> None:
                assert list(map(bool, judge(responses, ["7"] * len(responses)))) == ["7" in text for text in responses]

            return run

        seconds = interleaved({"own": judging(own.batch), "pebble": judging(pebbles)}, arguments.rounds)
    medians = {name: median(values) for name, values in seconds.items()}
    ratio = medians["own"] / medians["pebble"]
    print(f"{arguments.responses} responses: own {medians['own']:.3f} s, pebble {medians['pebble']:.3f} s: {ratio:.2f}")
    write(arguments.json, {**medians, "ratio": ratio})


if __name__ == "__main__":
    main()

"""How often a verdict on a mathematical answer is wrong, beside math-verify alone, and how long it takes.

    python benchmarks/verdicts.py [--smoke] [--before SRC]

The tables are in `tests/data`: each lists answers that say the same as a reference and answers that do not. Every
answer is judged in a box, as in a response. The table of error rates is printed and written into `docs/data.md`; not so
with `--smoke`, which judges a fraction of the answers. `--before` times another version of this package too, given its
`src`, in turns with this one.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from scipy.stats import beta

from rlcsd.verifiers import get

DATA = Path(__file__).parents[1] / "tests" / "data"
PAGE = Path(__file__).parents[1] / "docs" / "data.md"
TABLES = {
    "answers.txt": "answers to competition problems",
    "answers_later.txt": "a second table",
    "answers_math_verify.txt": "math-verify's tests",
}
BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"
Pair = tuple[str, str, str, bool]  # kind, reference, given, whether they say the same


def pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a table, in its order."""
    kind = reference = ""
    for line in path.read_text().splitlines():
        mark, text = line[:2], line[2:]
        if line.startswith("## "):
            kind = line[3:]
        elif mark == "= ":
            reference = text
        elif mark in ("+ ", "- "):
            yield kind, reference, text, mark == "+ "


def library(responses: Sequence[str], references: Sequence[str]) -> list[bool]:
    """math-verify as it is used by default: the reference between dollar signs, the response as it is."""
    from math_verify import parse, verify

    return [
        bool(verify(parse(f"${reference}$"), parse(response)))
        for response, reference in zip(responses, references, strict=True)
    ]


def rate(errors: int, total: int) -> str:
    """An error rate with its exact 95 % interval, in percent."""
    low = beta.ppf(0.025, errors, total - errors + 1) if errors else 0.0
    high = beta.ppf(0.975, errors + 1, total - errors) if errors < total else 1.0
    return f"{errors} of {total}: {100 * errors / total:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def error_table(step: int) -> list[str]:
    """Rows of a Markdown table: both error rates of both verifiers, for each table and kind of answer."""
    judges: dict[str, Callable[[Sequence[str], Sequence[str]], list[bool]]] = {
        "this verifier": get("math").batch,  # type: ignore[attr-defined]
        "math-verify alone": library,
    }
    rows = []
    for file, title in TABLES.items():
        some = list(pairs(DATA / file))[::step]
        responses = [rf"\boxed{{{given}}}" for _, _, given, _ in some]
        found = {name: judge(responses, [pair[1] for pair in some]) for name, judge in judges.items()}
        cells = []
        for same in (False, True):
            chosen = [index for index, pair in enumerate(some) if pair[3] == same]
            for verdicts in found.values():
                cells.append(rate(sum(verdicts[index] != same for index in chosen), len(chosen)))
        rows.append(f"| {title} | {' | '.join(cells)} |")
        for (_, reference, given, same), verdict in zip(some, found["this verifier"], strict=True):
            if verdict != same:
                print(f"{'refused' if same else 'accepted'}: {given}   for   {reference}", file=sys.stderr)
    columns = ("table", "wrong, accepted", "by math-verify alone", "right, refused", "by math-verify alone")
    return [f"| {' | '.join(columns)} |", "|---|---|---|---|---|", *rows]


def positive_symbols(step: int) -> str:
    """What it changes that a symbol of an answer stands for a positive number, unless an absolute value is there."""
    from rlcsd.verifiers import formulas
    from rlcsd.verifiers.statements import equivalent

    accepted = {True: [0, 0], False: [0, 0]}  # by the setting: of answers that differ, of those that say the same
    for file in TABLES:
        for _, reference, given, same in list(pairs(DATA / file))[::step]:
            for setting in accepted:
                with patch.object(formulas, "POSITIVE_SYMBOLS", setting):
                    accepted[setting][same] += equivalent(given, reference)
    more = [accepted[True][same] - accepted[False][same] for same in (True, False)]
    return f"with positive symbols {more[0]} more right answers and {more[1]} more wrong ones are accepted"


def timed(count: int) -> float:
    """Seconds of CPU time for so many verdicts on pairs of the first table, in one process that has been started."""
    import psutil

    from rlcsd.verifiers.math import MathVerifier

    def used() -> float:
        every = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(process.cpu_times().user + process.cpu_times().system for process in every)

    some = list(pairs(DATA / "answers.txt"))
    chosen = [some[index * 7 % len(some)] for index in range(count)]
    verifier = MathVerifier(processes=1)
    verifier(r"\boxed{a+b}", "b+a")
    begun = used()
    verifier.batch([rf"\boxed{{{pair[2]}}}" for pair in chosen], [pair[1] for pair in chosen])
    return used() - begun


def times(count: int, rounds: int, before: Path | None) -> dict[str, list[float]]:
    """CPU seconds for `count` verdicts in each round, each round in fresh processes."""
    sources = {"before": before, "now": Path(__file__).parents[1] / "src"}
    found: dict[str, list[float]] = {name: [] for name, source in sources.items() if source}
    for _ in range(rounds):
        for name in found:
            command = [sys.executable, __file__, "--time", str(count)]
            done = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": str(sources[name])},
                capture_output=True,
                text=True,
                check=True,
            )
            found[name].append(float(done.stdout))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a fraction of the tables, one short timing")
    parser.add_argument("--before", type=Path, help="src of another version, to be timed beside this one")
    parser.add_argument("--time", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.time:
        print(timed(arguments.time))
        return
    table = error_table(40 if arguments.smoke else 1)
    print("\n".join(table))
    if not arguments.smoke:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, *table, END]) + rest.partition(END)[2])
    print(positive_symbols(40 if arguments.smoke else 1))
    count, rounds = (20, 1) if arguments.smoke else (1000, 3)
    for name, seconds in times(count, rounds, arguments.before).items():
        print(f"{name}: {count} verdicts in {', '.join(f'{s:.1f}' for s in seconds)} s of CPU time")


if __name__ == "__main__":
    main()

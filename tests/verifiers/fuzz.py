"""Random responses for both verifiers: none may raise, hang, or need much memory.

    python -m tests.verifiers.fuzz --inputs 100000

A response is a soup of LaTeX or of words about roles, a damaged answer, a piece repeated very often or nested very
deeply, or any Unicode. Prints how many were tried, how many broke the verifier, the longest time, and the memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections.abc import Callable

from rlcsd.verifiers import get

LATEX = [
    r"\frac", r"\sqrt", r"\left(", r"\right)", r"\{", r"\}", "{", "}", "(", ")", "[", "]", "^", "_", "+", "-", "*", "/", "=",
    "<", r"\le", r"\ne", r"\cup", r"\setminus", r"\infty", r"\pi", r"\begin{pmatrix}", r"\end{pmatrix}", "&", r"\\", r"\text{",
    r"\mathbb{R}", r"\emptyset", "x", "y", "n!", "e^x", "0", "1", "7", "10", "999999999", "1.5", "3.", ".5", ",", ";", ":", "%",
    r"\%", "$", r"\$", "°", r"\sin", r"\log", r"\sum_{i=1}^{n}", r"\int", r"\binom", r"\overline{3}", "10^{10^{10}}", "cm", "hours",
    r"\boxed{", "or", "and", "not", "^^", "\n", " ",
]  # fmt: skip
ROLES = [
    "Ann", "Bob", "Zoe", "knight", "knave", "is", "isn't", "a", "the", "an", "not", "and", "or", "but", "are", "both", "neither",
    "nor", "knights", "knaves", "**", "(1)", "1.", ":", ",", ".", ";", "-", "=", "All", "everyone", "else", r"\boxed{", "}", "\n",
]  # fmt: skip
ANSWERS = [
    r"\frac{1}{2}",
    "42",
    r"\{1,2,3\}",
    r"(1,\infty)",
    r"2\sqrt{3}+\pi",
    "x^2+1",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    "1000",
]
PEOPLE = ["Ann is a knight, and Bob is a knave.", "Zoe is a knave."]


def text(rng: random.Random, pieces: list[str], answers: list[str]) -> str:
    """What may stand in a box, or break out of it."""
    match rng.randrange(6):
        case 0:
            return "".join(rng.choice(pieces) + rng.choice(("", " ")) for _ in range(rng.randint(1, 40)))
        case 1:
            return rng.choice(pieces) * rng.choice((10, 100, 1000, 5000))
        case 2:
            depth = rng.choice((5, 50, 500))
            return rng.choice(("{", "(", r"\frac{", r"\sqrt{", "[")) * depth + "1" + rng.choice(("}", ")", "]")) * depth
        case 3:
            return "".join(
                chr(rng.choice((rng.randrange(32), rng.randrange(32, 127), rng.randrange(127, 0xD800))))
                for _ in range(30)
            )
        case 4:
            damaged = list(rng.choice(answers))
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] = rng.choice((*pieces, ""))
            return "".join(damaged)
        case _:
            return rng.choice(answers) + rng.choice(pieces) + rng.choice(answers)


def fuzz(
    verify: Callable[[str, str], object], pieces: list[str], answers: list[str], inputs: int, seed: int
) -> dict[str, object]:
    rng = random.Random(seed)
    broken: list[tuple[str, str]] = []
    slowest, worst, accepted = 0.0, "", 0
    for _ in range(inputs):
        answer = rng.choice(answers)
        response = rng.choice((r"So \boxed{%s}.", r"\boxed{%s", "%s")).replace("%s", text(rng, pieces, answers))
        begun = time.perf_counter()
        try:
            accepted += bool(verify(response, answer))
        except Exception as error:  # whatever it is, it breaks a run
            broken.append((response[:200], repr(error)[:200]))
        taken = time.perf_counter() - begun
        if taken > slowest:
            slowest, worst = taken, response[:80]
    return {"inputs": inputs, "broken": len(broken), "accepted": accepted, "slowest_seconds": round(slowest, 2), "slowest": worst,
            "examples": broken[:5]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="random responses for both verifiers")
    parser.add_argument("--inputs", type=int, default=100_000, help="for each verifier")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, pieces, answers in (("knights_and_knaves", ROLES, PEOPLE), ("math", LATEX, ANSWERS)):
        print(
            json.dumps({"verifier": name, **fuzz(get(name), pieces, answers, arguments.inputs, arguments.seed)}),
            flush=True,
        )
    for who, label in ((resource.RUSAGE_SELF, "this process"), (resource.RUSAGE_CHILDREN, "the largest worker")):
        print(f"{label}: {resource.getrusage(who).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

"""Programs as answers: a verifier that runs the Python program in a response against tests, in a sandbox.

The program reads from stdin and writes to stdout. The expected output stays in this process, so that the program cannot
read it; see sandbox.py for what else it cannot do.

rlcsd train task=examples/run_python.py:task model=smollm2_135m
"""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rlcsd import Problem, Task, Verdict
from rlcsd.verifiers import without_thinking

sys.path.append(str(Path(__file__).parent))
from sandbox import Limits, run

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


def program_in(response: str) -> str | None:
    """The last block of code in a response, thoughts left out; None if there is none."""
    blocks = _BLOCK.findall(without_thinking(response))
    return blocks[-1].strip() if blocks else None


@dataclass(frozen=True)
class RunPython:
    """The share of the tests that a program passes is its reward, and all of them make it correct.

    `problem.extra["tests"]` is a list of `[stdin, expected stdout]`. Where a program fails, the feedback says how; it
    never says what was expected.
    """

    cpu_seconds: int = 4
    seconds: float = 8.0
    memory_mib: int = 256

    needs_answer: ClassVar[bool] = False

    def __call__(self, response: str, problem: Problem) -> Verdict:
        program = program_in(response)
        if program is None:
            return Verdict(False, 0.0, feedback="There is no block of Python code.")
        limits = Limits(cpu_seconds=self.cpu_seconds, seconds=self.seconds, memory_mib=self.memory_mib)
        tests, passed, said = problem.extra["tests"], 0, ""
        for number, (stdin, expected) in enumerate(tests, start=1):
            outcome = run(program, stdin, limits)
            if outcome.ended == "exit" and _lines(outcome.output) == _lines(expected):
                passed += 1
            elif not said:
                wrong = f"ended with {outcome.ended} {outcome.errors}" if outcome.ended != "exit" else "wrong output"
                said = f"Test {number} of {len(tests)}: {wrong.strip()}"
            if outcome.ended in ("time", "memory", "output", "files"):
                break  # it would take as long with each of the others
        share = passed / len(tests)
        return Verdict(passed == len(tests), share, {"tests": share}, said or None)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def task(size: int = 64, held_out: int = 16, seed: int = 0) -> Task:
    """Programs that read two whole numbers, each on a line of its own, and print one."""
    rng = random.Random(seed)
    operations = {
        "sum": lambda a, b: a + b,
        "product": lambda a, b: a * b,
        "larger": max,
        "difference": lambda a, b: a - b,
    }
    problems = []
    for number in range(size + held_out):
        name, compute = list(operations.items())[number % len(operations)]
        factor = rng.randrange(2, 50)
        question = (
            "Write a Python program that reads two whole numbers, each on a line of its own, and prints "
            f"{factor} times their {name}. Put it in a ```python block."
        )
        pairs = [(rng.randrange(-99, 99), rng.randrange(-99, 99)) for _ in range(3)]
        tests = [[f"{a}\n{b}\n", f"{factor * compute(a, b)}\n"] for a, b in pairs]
        problems.append(Problem(question, "", extra={"tests": tests}))
    return Task(
        name="programs",
        train=problems[held_out:],
        evaluations={"held_out": problems[:held_out]},
        verifier=RunPython(),
        instruction="",
        answer_of=program_in,
    )

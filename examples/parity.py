"""A task of one's own in one file: is a number even or odd?

The task is easy, yet a very small instruct model rarely boxes the right word.

rlcsd train task=examples/parity.py:task model=smollm2_135m
"""

from __future__ import annotations

import random

from rlcsd import Problem, Task
from rlcsd.verifiers import last_boxed

# The form is shown in the question: a model of 135 M parameters does not follow an instruction alone.
FORM = (
    "2: \\boxed{even}\n5: \\boxed{odd}\n8: \\boxed{even}\n9: \\boxed{odd}\n"
    "Write the line for {n}, with even or odd in the box."
)


def problem(n: int) -> Problem:
    answer = "odd" if n % 2 else "even"
    return Problem(FORM.replace("{n}", str(n)), answer, solution=f"{n}: \\boxed{{{answer}}}")


def task(largest: int = 100, held_out: int = 24, seed: int = 0) -> Task:
    """The numbers from 10 to `largest`; `held_out` of them are never trained on."""
    numbers = random.Random(seed).sample(range(10, largest), largest - 10)
    return Task(
        name="parity",
        train=[problem(n) for n in numbers[held_out:]],
        evaluations={"held_out": [problem(n) for n in numbers[:held_out]]},
        verifier=lambda response, answer: last_boxed(response) == answer,
        instruction="",
    )

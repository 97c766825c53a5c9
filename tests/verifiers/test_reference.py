"""A verifier is found again in another process, or it is said why it cannot be."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import subprocess
import sys

import pytest

from rlcsd import InputError, Problem, Reward, Task
from rlcsd.plugins import load_attribute
from rlcsd.verifiers import described_reference, from_reference, reference_of
from rlcsd.verifiers.reference import NotImportableError

MINE = """
import functools
from dataclasses import dataclass

def score(response, answer, scale=1.0):
    return scale * (answer in response)

named = lambda response, answer: answer == response

def logged(function):
    @functools.wraps(function)
    def inner(*arguments):
        return function(*arguments)
    return inner

@logged
def decorated(response, answer):
    return answer in response

class Judge:
    def __call__(self, response, problem):
        return problem.answer in response

    def method(self, response, answer):
        return answer in response

    class Inner:
        @staticmethod
        def score(response, answer):
            return answer in response

@dataclass(frozen=True)
class Asking:
    model: str = "m"
    length: int = 3

    def __call__(self, response, answer):
        return len(response) == self.length
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


CASES = {
    "score": lambda get: get("score"),
    "named": lambda get: get("named"),
    "decorated": lambda get: get("decorated"),
    "Judge.Inner.score": lambda get: get("Judge.Inner.score"),
    "object": lambda get: get("Judge")(),
    "method": lambda get: get("Judge")().method,
    "dataclass": lambda get: get("Asking")("n", length=1),
    "partial": lambda get: functools.partial(get("score"), scale=2.0),
    "rewards": lambda get: [Reward(get("score"), 0.5), Reward("exact", 2.0, "boxed", decides=True)],
    "exact": lambda get: "exact",
    "contains": lambda get: operator.contains,
}


@pytest.mark.parametrize("case", CASES)
def test_another_process_judges_the_same(case, mine, tmp_path):
    """The same verdicts come from the reference as JSON, read in a process that has never seen the verifier."""
    task = Task("t", [Problem("Q?", "a")], {}, CASES[case](lambda name: load_attribute("verifier", f"{mine}:{name}")))
    reference = json.dumps(reference_of(task.verifier))
    here = task.judge(task.train, [("a", "ab", "b", "\\boxed{a}")])[0]
    script = (
        "import json, sys; from rlcsd import Problem, Task; from rlcsd.verifiers import from_reference;"
        "verifier = from_reference(json.loads(sys.argv[1]), print); task = Task('t', [Problem('Q?', 'a')], {}, verifier);"
        "print([v.reward for v in task.judge(task.train, [('a', 'ab', 'b', '\\\\boxed{a}')])[0]])"
    )
    if case == "score":  # the others differ in nothing that a process changes
        found = subprocess.run([sys.executable, "-c", script, reference], capture_output=True, text=True, cwd=tmp_path)
        assert found.stdout.strip() == str([verdict.reward for verdict in here]), found.stderr
    again = Task("t", task.train, {}, from_reference(json.loads(reference), pytest.fail))
    assert again.judge(task.train, [("a", "ab", "b", "\\boxed{a}")])[0] == here


class Stateful:
    def __init__(self):
        self.seen = []

    def __call__(self, response, answer):
        return True


@dataclasses.dataclass
class Held:
    client: object

    def __call__(self, response, answer):
        return True


@pytest.mark.parametrize(
    ("verifier", "why"),
    [
        (lambda response, answer: True, "has no name in a module, like a lambda"),
        (functools.partial(lambda response, answer: True), "like a lambda"),
        (Stateful(), "a Stateful has attributes of its own"),
        (Held(object()), "the fields of Held are not all plain JSON values"),
        ([Reward("exact"), Reward(lambda response, answer: True, name="mine")], "like a lambda"),
    ],
)
def test_what_cannot_be_imported_again_is_said(verifier, why):
    with pytest.raises(NotImportableError, match=why):
        reference_of(Task("t", [Problem("Q?", "a")], {}, verifier).verifier)


def test_changed_source_is_told(mine):
    reference = reference_of(load_attribute("verifier", f"{mine}:score"))
    assert described_reference(reference) == f"{mine}:score"
    told = []
    mine.write_text(MINE + "\nMORE = 1\n")
    from_reference(reference, told.append)
    mine.write_text(MINE.replace("scale * (", "2 * (", 1))
    assert from_reference(reference, told.append)("a", "a") == 2
    assert ["though not score itself" in told[0], "may judge differently" in told[1]] == [True, True]
    mine.write_text("x = 1")
    with pytest.raises(InputError, match="has no such name any more"):
        from_reference(reference, told.append)
    mine.unlink()
    with pytest.raises(InputError, match="there is no file"):
        from_reference(reference, told.append)


@pytest.mark.parametrize(
    ("guard", "said"), [("if __name__ == '__main__':\n    ", "script.py:score"), ("", "would run it again")]
)
def test_a_function_of_a_script_is_found_if_importing_the_script_does_not_run_it(guard, said, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from rlcsd.verifiers import described_reference, reference_of\n\ndef score(r, a):\n    return a in r\n\n"
        f"{guard}print(described_reference(reference_of(score)))\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert said in found.stdout + found.stderr


def test_code_of_a_prompt_is_in_no_file():
    script = (
        "from rlcsd.verifiers import reference_of\ndef score(r, a): return a in r\ntry: reference_of(score)\n"
        "except ValueError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "score was defined in a notebook or at a prompt" in found.stdout

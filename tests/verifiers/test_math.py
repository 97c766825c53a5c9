"""The math verifier in its worker processes: verdicts, limits, and workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rlcsd.records import Problem
from rlcsd.verifiers import get, grade
from rlcsd.verifiers.math import MathVerifier


@pytest.fixture(scope="module")
def verifier():
    return MathVerifier(seconds=2.0, processes=1)


def test_the_last_box_is_compared_with_the_answer(verifier):
    assert verifier(r"First \boxed{3}, no: \boxed{\frac{\sqrt{8}}{2}}.", r"\sqrt{2}")
    assert not verifier(r"First \boxed{\sqrt 2}, no: \boxed{3}.", r"\sqrt{2}")
    assert not verifier(r"\sqrt{2}", r"\sqrt{2}")
    assert verifier(r"\boxed{(x+1)^2}", r"\boxed{x^2 + 2x + 1}")


def test_a_batch_is_each_of_its_calls(verifier):
    responses = [r"\boxed{2}", r"\boxed{x+y}", "none", r"\boxed{y\cdot x}"]
    answers = ["2.0", "y+x", "4", "xy"]
    assert (
        [float(verdict) for verdict in grade(verifier, responses, [Problem("?", answer) for answer in answers])]
        == [float(verifier(r, a)) for r, a in zip(responses, answers, strict=True)]
        == [1, 1, 0, 1]
    )


def test_runaway_symbolic_work_is_stopped_and_the_next_answer_judged():
    verifier = MathVerifier(seconds=1.0, processes=1)
    begun = time.monotonic()
    assert verifier.batch([r"\boxed{\binom{9999999}{4444444}}", r"\boxed{b+a}"], ["x", "a+b"]) == [False, True]
    assert time.monotonic() - begun < 30


def test_a_process_killed_from_outside_costs_no_verdict(verifier):
    assert verifier(r"\boxed{b+a}", "a+b")
    slot = verifier.pool.idle.get()
    os.kill(slot.process.pid, signal.SIGKILL)
    verifier.pool.idle.put(slot)
    assert verifier(r"\boxed{b+a}", "a+b")


def test_an_essay_in_a_box_is_wrong_and_an_empty_reference_an_error(verifier):
    assert not verifier(r"\boxed{" + "1+" * 5000 + "1}", "5001")
    assert not verifier(r"\boxed{" + "9" * 5000 + "}", "7")
    with pytest.raises(ValueError, match="empty"):
        verifier(r"\boxed{1}", " ")


def test_nothing_in_a_box_is_executed(verifier, tmp_path):
    target = tmp_path / "made"
    assert not verifier(rf"\boxed{{__import__('os').mkdir('{target}')}}", "1")
    assert not target.exists()


def test_a_script_without_a_main_guard_can_verify(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from rlcsd.verifiers import get\nprint(get('math')(r'\\boxed{b+a}', 'a+b'))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_named_verifier_is_one_pool():
    assert get("math") is get("math")


def test_a_process_that_cannot_start_is_said_so_and_not_counted_as_wrong_answers(monkeypatch, tmp_path):
    broken = tmp_path / "sympy"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('a broken sympy')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="cannot start"):
        MathVerifier(processes=1)(r"\boxed{b+a}", "a+b")


def test_a_process_imports_no_torch():
    script = "import sys; from rlcsd.verifiers.math import comparison; comparison(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


THOUGHT = r"<think> It is \boxed{5}, I am sure. But wait"


def test_a_box_in_a_thought_that_never_ends_is_no_answer_unless_asked_for(verifier):
    assert not verifier(THOUGHT, "5")
    assert verifier(THOUGHT + " no. </think> So it is.", "5")
    assert get("math", unfinished_thoughts=True)(THOUGHT, "5")


def test_the_answer_of_a_response_may_be_dressed(verifier):
    for box in (
        r"\boxed{**73**}",
        r"\boxed{`73`}",
        r"\boxed{\color{red}{73}}",
        r"\fbox{73}",
        r"\boxed 73",
        r"\boxed{73.}",
    ):
        assert verifier(f"So {box}", "73"), box

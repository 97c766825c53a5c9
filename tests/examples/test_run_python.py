"""examples/sandbox.py against hostile programs, and examples/run_python.py, which judges by tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rlcsd.plugins import load_attribute
from rlcsd.tasks.registry import build_task
from rlcsd.verifiers import as_given, reference_of

EXAMPLES = Path(__file__).parents[2] / "examples"
run, Limits = (load_attribute("verifier", f"{EXAMPLES / 'sandbox.py'}:{name}") for name in ("run", "Limits"))
SHORT = Limits(cpu_seconds=1, seconds=10, memory_mib=128, files_mib=4, output=10_000)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")


def test_an_honest_program_reads_computes_and_writes_to_its_folder():
    program = (
        "import collections, datetime, decimal, fractions, itertools, json, math, random, re, threading\n"
        "a, b = int(input()), int(input())\n"
        "with open('notes.txt', 'w') as file: file.write(json.dumps([a, b]))\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(sum(json.load(open('notes.txt')))))\n"
        "thread.start(); thread.join(); print(found[0])"
    )
    assert run(program, "2\n3\n") == type(run(""))("exit", "5\n", "")
    assert run("raise ValueError('x')").errors == "ValueError: x"
    assert run("x = (").ended == "error" and run("raise SystemExit(3)").ended == "error"
    assert run("print(1)", "x" * 10**6).output == "1\n", "a program need not read its input"


HOSTILE = {
    "an endless loop": ("while True: pass", "time", ""),
    "sleep": ("import time\ntime.sleep(600)", "time", ""),
    "a fork bomb": ("import os\nwhile True: os.fork()", "error", "PermissionError"),
    "a fork bomb without the C library": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "print([libc.syscall(n, 17, 0, 0, 0, 0) for n in (56, 57, 58, 435)] if __import__('platform').machine() == 'x86_64'"
        " else [libc.syscall(n, 17, 0, 0, 0, 0) for n in (220, 220, 220, 435)])", "exit", "[-1, -1, -1, -1]"),
    "a program": ("import subprocess\nsubprocess.run(['/bin/ls'])", "error", "PermissionError"),
    "exec": ("import os\nos.execv('/bin/ls', ['ls'])", "error", "PermissionError"),
    "memory": ("x = []\nwhile True: x.append(bytearray(10**7))", "memory", "MemoryError"),
    "mapped memory": ("import mmap\nx = [mmap.mmap(-1, 2**26) for _ in range(99)]", "error", "Cannot allocate memory"),
    "memory in a file": ("import os\nos.memfd_create('x')", "error", "PermissionError"),
    "threads": ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()", "time",
                "can't start new thread"),
    "a file outside": ("open('OUTSIDE', 'w').write('x')", "error", "PermissionError"),
    "a file outside by a link": ("import os\nos.symlink('OUTSIDE', 'l')\nopen('l', 'w')", "error", "PermissionError"),
    "removing a file": ("import os\nos.unlink('SECRET')", "error", "PermissionError"),
    "changing a mode": ("import os\nos.chmod('SECRET', 0o777)", "error", "PermissionError"),
    "cutting a file": ("import os\nos.truncate('SECRET', 0)", "error", "PermissionError"),
    "reading a file": ("print(open('SECRET').read())", "error", "PermissionError"),
    "reading a folder": ("import os\nprint(os.listdir('/'))", "error", "PermissionError"),
    "reading the verifier's memory": ("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')", "error", "PermissionError"),
    "reading the verifier's environment": ("import os\nopen(f'/proc/{os.getppid()}/environ')", "error", "Permission"),
    "its own environment": ("import os\nprint(os.environ.get('OPENAI_API_KEY'), os.environ.get('HOME'))", "exit",
                            "None None"),
    "a connection": ("import socket\nsocket.create_connection(('127.0.0.1', 22))", "error", "PermissionError"),
    "a name": ("import socket\nprint(socket.gethostbyname('example.org'))", "error", "rror"),
    "a socket of a file": ("import socket\nsocket.socket(socket.AF_UNIX)", "error", "PermissionError"),
    "ending the verifier": ("import os\nos.kill(os.getppid(), 9)", "error", "PermissionError"),
    "more of its limits": ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (99, 99))", "error", "rror"),
    "a flood": ("while True: print('x' * 10000)", "output", ""),
    "a flood of errors": ("import sys\nwhile True: sys.stderr.write('x' * 10000)", "output", ""),
    "a full disk": ("n = 0\nwhile True:\n n += 1\n open(str(n), 'wb').write(b'x' * 10**6)", "files", ""),
    "a large file": ("open('x', 'wb').write(b'x' * 10**7)", "error|files", ""),
    "privileges": ("import os\nos.setuid(12345)" if os.getuid() == 0 else "import os\nos.setuid(0)", "error",
                   "PermissionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_ends_and_nothing_else_happens(name, tmp_path, monkeypatch):
    program, ended, said = HOSTILE[name]
    secret, outside = tmp_path / "secret", tmp_path / "outside"
    secret.write_text("the expected output")
    mode = secret.stat().st_mode
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun = time.monotonic()
    limits = replace(SHORT, seconds=1.2) if ended == "time" else SHORT
    outcome = run(program.replace("SECRET", str(secret)).replace("OUTSIDE", str(outside)), "", limits)
    assert time.monotonic() - begun < 30  # those that hang would take minutes
    assert outcome.ended in ended.split("|") and said in outcome.errors + outcome.output, outcome
    assert secret.read_text() == "the expected output" and secret.stat().st_mode == mode
    assert os.listdir(tmp_path) == ["secret"], "no file is left, inside its folder or outside"
    assert len(outcome.output) <= SHORT.output and "expected" not in outcome.output


def test_a_program_dies_with_the_process_that_watches_it(tmp_path):
    script = (
        f"import sys; sys.path.append({str(EXAMPLES)!r}); from sandbox import Limits, run\n"
        "run('import os, time; os.write(1, str(os.getpid()).encode()); time.sleep(60)', '', Limits(seconds=60))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    watching = subprocess.Popen([sys.executable, "-c", script], env=environment)
    for _ in range(600):
        found = [path for path in Path("/proc").glob("[0-9]*/cwd") if _inside(path, tmp_path)]
        if found:
            break
        time.sleep(0.05)
    assert found
    watching.kill()
    watching.wait()
    for _ in range(600):
        if not any(_inside(path, tmp_path) for path in found):
            return
        time.sleep(0.05)
    pytest.fail("the program goes on")


def _inside(path, folder):
    try:
        return os.readlink(path).startswith(str(folder))
    except OSError:
        return False


def test_programs_are_judged_by_their_tests():
    task = build_task({"name": f"{EXAMPLES / 'run_python.py'}:task", "verifier_processes": 2})
    task = replace(task, verifier=type(as_given(task.verifier))(cpu_seconds=1, seconds=1.5))
    problem = task.train[0]
    factor = int(problem.question.split("prints ")[1].split()[0])
    operation = {"sum": "a + b", "product": "a * b", "larger": "max(a, b)", "difference": "a - b"}
    body = next(code for word, code in operation.items() if f"their {word}" in problem.question)
    right = f"So:\n```python\na, b = int(input()), int(input())\nprint({factor} * ({body}))\n```\nDone."
    printed = f"```python\nprint({problem.extra['tests'][0][1].strip()})\n```"
    good, part, broken, endless, none = task.judge(
        [problem], [(right, printed, "```python\nprint(1/0)\n```", "```python\nwhile True: pass\n```", "I cannot.")]
    )[0]
    assert (good.correct, good.reward, good.feedback) == (True, 1.0, None)
    assert not part.correct and 0 < part.reward < 1 and "wrong output" in part.feedback
    assert (broken.reward, "ZeroDivisionError" in broken.feedback) == (0.0, True)
    assert (endless.reward, endless.feedback) == (0.0, "Test 1 of 3: ended with time")
    assert none.feedback == "There is no block of Python code."
    assert task.answer_of(right) == f"a, b = int(input()), int(input())\nprint({factor} * ({body}))"
    expected = [test[1].strip() for test in problem.extra["tests"]]
    assert not any(output in str(verdict.feedback) for output in expected for verdict in (part, broken, endless))
    assert reference_of(task.verifier)["fields"]["memory_mib"] == 256

"""Processes that answer within a time limit: they start when needed, are replaced when they end, and name what failed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rlcsd.verifiers.process import IsolatedVerifier, Pool, forked, spawned


def answer(question: str):
    if question == "hang":
        time.sleep(60)
    if question == "die":
        os._exit(3)
    return question.upper(), None


def answering():
    return answer


def broken():
    raise LookupError("no such table")


STARTS = {"forked": lambda: forked(answer), "spawned": lambda: spawned(f"{__name__}:answering")}


@pytest.fixture(params=STARTS)
def start(request):
    return STARTS[request.param]


def test_questions_are_answered_in_order(start):
    pool = Pool(start, 30, 2)
    assert pool.ask([(word,) for word in "abcdef"]) == [(word, None) for word in "ABCDEF"]


def test_one_that_hangs_or_dies_is_named_and_replaced(start):
    pool = Pool(start, 3.0, 1)
    pool.ask([("warm",)])
    begun = time.monotonic()
    assert pool.ask([("hang",), ("a",), ("die",), ("b",)]) == [
        (None, "took longer than 3 s and was ended"),
        ("A", None),
        (None, "ended its process (exit code 3)"),
        ("B", None),
    ]
    assert time.monotonic() - begun < 60


def test_what_failed_once_may_be_asked_again(start):
    pool = Pool(start, 30, 1, attempts=2)
    pool.ask([("warm",)])
    slot = pool.idle.get()
    os.kill(slot.process.pid, signal.SIGKILL)
    pool.idle.put(slot)
    assert pool.ask([("a",)]) == [("A", None)]


def test_after_a_complaint_the_others_are_not_asked(start):
    pool = Pool(start, 1.0, 1)
    begun = time.monotonic()
    found = pool.ask([("hang",)] * 40, stop_at_complaint=True)
    assert found[0][1] is not None and found[1:] == [(None, None)] * 39
    assert time.monotonic() - begun < 30


def test_what_cannot_be_sent_is_said(start):
    ((_, complaint),) = Pool(start, 30, 1).ask([(lambda: 0,)])
    assert complaint is not None and "verifier_seconds=None" in complaint


def test_a_process_that_cannot_start_says_why():
    with pytest.raises(RuntimeError, match=r"cannot start.*LookupError: no such table"):
        Pool(lambda: spawned(f"{__name__}:broken"), 30, 1).ask([("a",)])


def test_processes_start_one_after_the_other():
    """Some libraries let no second thread fork before the first is through."""
    forking, together, watching = [0], [], [True]

    def before():
        forking[0] += 1
        together.append(forking[0])
        time.sleep(0.01 * watching[0])  # what is registered stays so

    def after():
        forking[0] -= 1

    os.register_at_fork(before=before, after_in_parent=after)
    try:
        verifier = IsolatedVerifier(lambda r, a: time.sleep(0.05) or True, 30, processes=4)
        assert all(verifier.batch(["x"] * 8, ["1"] * 8))
        assert len(together) == 4 and max(together) == 1
    finally:
        watching[0] = False


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def _wait_until_gone(*pids: int) -> None:
    end = time.monotonic() + 30
    while not all(map(_gone, pids)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_processes_end_with_their_pool(start):
    """In a notebook many tasks are made one after the other."""
    pids = []
    for _ in range(3):
        pool = Pool(start, 30, 1)
        pool.ask([("a",)])
        slot = pool.idle.get()
        pids.append(slot.process.pid)
        pool.idle.put(slot)
        del slot
        kept = pool  # the one before has gone now
    del pool
    _wait_until_gone(*pids[:2])
    assert kept.ask([("b",)]) == [("B", None)]
    assert not _gone(pids[2])


def test_processes_end_when_their_pool_is_closed_and_start_again(start):
    pool = Pool(start, 30, 1)
    pool.ask([("a",)])
    slot = pool.idle.get()
    pid = slot.process.pid
    pool.close()  # not the one that answers
    assert not _gone(pid)
    pool.idle.put(slot)
    pool.close()
    _wait_until_gone(pid)
    assert pool.ask([("b",)]) == [("B", None)]


def _with_a_child(response, answer):
    """A verifier that starts processes of its own, of which one stays."""
    with multiprocessing.Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
    child = multiprocessing.Process(target=time.sleep, args=(600,))
    child.start()
    return float(child.pid)


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_a_verifier_may_start_processes_which_end_with_it(how):
    verifier = IsolatedVerifier(_with_a_child, 30, 1)
    child = int(verifier("x", "1"))
    assert not _gone(child)
    if how == "closed":
        verifier.pool.close()
    del verifier
    _wait_until_gone(child)


def test_processes_end_with_the_one_that_started_them():
    script = (
        "import os, signal\n"
        "from rlcsd.verifiers.process import Pool, spawned\n"
        f"pool = Pool(lambda: spawned('{__name__}:answering'), 30, 1)\n"
        "pool.ask([('a',)])\n"
        "print(pool.idle.get().process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    _wait_until_gone(int(done.stdout))

"""Verifiers that judge many at a time: awaited side by side, each within its limit, and none that hangs the run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time

import pyarrow
import pyarrow.parquet as parquet
import pytest

from rlcsd import InputError, Problem, Reward, Task, Verdict
from rlcsd.tasks.registry import build_task

PROBLEMS = [Problem("1?", "a"), Problem("2?", "b")]


class Counted:
    """An async verifier that remembers how many calls were open at once."""

    def __init__(self):
        self.open = self.most = self.calls = 0
        self.loops = set()

    async def __call__(self, response, problem):
        self.open, self.calls = self.open + 1, self.calls + 1
        self.most = max(self.most, self.open)
        self.loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(float(response) if response.replace(".", "").isdigit() else 0)
        self.open -= 1
        return problem.answer in response or response == "0.1"


def test_a_coroutine_is_awaited_for_many_at_a_time():
    judge = Counted()
    task = Task("t", PROBLEMS, {}, judge, verifier_seconds=5, verifier_concurrency=8)
    assert judge.calls == 1, "a judge may cost money: it is tried on one problem of each set"
    begun = time.monotonic()
    verdicts = task.judge(PROBLEMS, [["0.1"] * 20, ["b", "c"]])
    assert time.monotonic() - begun < 1.5  # 22 one by one would take 2 s
    assert [v.correct for v in verdicts[0]] == [True] * 20 and [v.correct for v in verdicts[1]] == [True, False]
    assert judge.most == 8
    task.judge(PROBLEMS, [["a"], ["b"]])
    assert len(judge.loops) == 1, "one loop, so that a client keeps its connections"


async def asked(response, answer, scale=1.0):
    if response == "raise":
        raise ValueError("no such model")
    if response == "time":
        raise TimeoutError("the server's own")
    if response == "block":
        time.sleep(30)
    if response == "deaf":
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
    await asyncio.sleep(60 if response == "hang" else 0)
    return scale * (answer in response)


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("raise", r"raised ValueError \(no such model\)"),
        ("time", r"raised TimeoutError \(the server's own\)"),
        ("hang", "took longer than 0.2 s"),
        ("block", "did not come back to the event loop within 0.2 s"),
        ("deaf", "did not come back to the event loop within 0.2 s"),
    ],
)
def test_one_that_fails_is_named_and_the_run_goes_on(response, said):
    task = Task("t", PROBLEMS, {}, functools.partial(asked, scale=1.0), verifier_seconds=0.2)
    begun = time.monotonic()
    with pytest.raises(InputError, match=f"problem 1 in 'train' cannot be verified .*'asked' {said}"):
        task.judge(PROBLEMS, [("a", "b"), (response,) * 30])
    assert time.monotonic() - begun < 4
    assert task.judge(PROBLEMS, [("a",), ("b",)])[1][0].correct, "another loop takes the place of one that is blocked"


def test_without_a_limit_and_in_a_running_loop():
    """As in a notebook, whose cells run inside an event loop."""

    async def cell():
        task = Task("t", PROBLEMS, {}, asked, verifier_seconds=None)
        return task.judge(PROBLEMS[:1], [("a", "x")])[0]

    assert [verdict.correct for verdict in asyncio.run(cell())] == [True, False]


class Batch:
    def __init__(self, seconds=0.0):
        self.seconds, self.sizes = seconds, []

    def batch(self, responses, answers):
        self.sizes.append(len(responses))
        if "bad" in responses:
            raise KeyError("bad")
        time.sleep(self.seconds if any(responses) else 0)
        return [answer in response for response, answer in zip(responses, answers, strict=True)]


class AsyncBatch:
    async def batch(self, responses, problems):
        await asyncio.sleep(60 if "hang" in responses else 0)
        return [problem.answer in response for response, problem in zip(responses, problems, strict=True)]


@pytest.mark.parametrize("judge", [Batch(60), AsyncBatch()])
def test_a_batch_that_hangs_ends_with_its_limit(judge):
    task = Task("t", PROBLEMS, {}, judge, verifier_seconds=0.1, verifier_concurrency=4)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"took longer than 0.3 s for 9 responses"):  # 0.1 s for each four
        task.judge(PROBLEMS[:1], [("hang",) * 9])
    assert time.monotonic() - begun < 3


def test_a_batch_judges_all_in_one_call_and_names_the_response_that_it_cannot():
    judge = Batch()
    task = Task("t", PROBLEMS, {}, judge)
    assert [v.correct for v in task.judge(PROBLEMS, [("a", "x"), ("b",)])[0]] == [True, False]
    assert judge.sizes[-1] == 3
    with pytest.raises(InputError, match=r"problem 1 in 'train' .*raised KeyError.*the response 'bad'"):
        task.judge(PROBLEMS, [("a", "x"), ("bad",)])


def test_a_part_of_a_weighted_reward_may_be_awaited():
    task = Task("t", PROBLEMS, {}, [Reward(asked), Reward("exact", 0.5)], verifier_seconds=0.2)
    ((verdict,),) = task.judge(PROBLEMS[:1], [("a",)])
    assert (verdict.correct, verdict.reward, set(verdict.parts)) == (True, 1.0, {"asked", "exact"})
    with pytest.raises(InputError, match=r"verifier 'asked' raised ValueError"):
        task.judge(PROBLEMS[:1], [("raise",)])


def test_a_function_that_returns_a_coroutine_is_told_how_to_be_awaited():
    with pytest.raises(InputError, match="returned a coroutine; define it with `async def`"):
        Task("t", PROBLEMS, {}, lambda response, answer: asked(response, answer))


# ------------------------------------------------------------------ what becomes of failures


class Flaky:
    """Fails the first `times` times that it is asked about each response that is not empty."""

    def __init__(self, times):
        self.times, self.asked = times, {}

    async def __call__(self, response, answer):
        self.asked[response] = self.asked.get(response, 0) + 1
        if response and self.asked[response] <= self.times:
            raise ConnectionError("503")
        return answer in response


@pytest.fixture
def waited(monkeypatch):
    seconds = []
    monkeypatch.setattr("rlcsd.tasks.task.time.sleep", seconds.append)
    return seconds


def test_a_verifier_that_fails_is_asked_again_after_growing_waits(waited):
    judge = Flaky(2)
    task = Task("t", PROBLEMS, {}, judge, on_verifier_error="retry")
    ((first, second),) = task.judge(PROBLEMS[:1], [("a", "x")])
    assert (first.correct, first.attempts, second.correct, second.attempts) == (True, 3, False, 3)
    assert waited == [1.0, 2.0]
    with pytest.raises(InputError, match=r"raised ConnectionError \(503\)"):
        Task("t", PROBLEMS, {}, Flaky(99), on_verifier_error="retry").judge(PROBLEMS[:1], [("a",)])
    assert waited == [1.0, 2.0, 1.0, 2.0, 4.0, 8.0, 16.0]


class Sometimes:
    def __call__(self, response, answer):
        if response in ("raise", ""):
            raise OSError("gone")
        return answer in response


@pytest.mark.parametrize("weighted", [False, True])
def test_a_response_on_which_the_verifier_fails_may_count_as_wrong(weighted):
    def once(response, answer):
        return Sometimes()(response or "x", answer)

    verifier = [Reward(once, name="once"), Reward("exact", 0.1)] if weighted else once
    task = Task("t", PROBLEMS, {}, verifier, on_verifier_error="wrong")
    ((good, bad),) = task.judge(PROBLEMS[:1], [("a", "raise")])
    assert good.correct and good.error is None
    assert (bad.correct, bad.reward) == (False, 0.0) and "raised OSError (gone)" in bad.error
    with pytest.raises(InputError, match="raised OSError"):  # on all: nothing is known of any
        task.judge(PROBLEMS[:1], [("raise", "raise")])
    with pytest.raises(InputError, match="cannot be verified"):  # when the task is made, too
        Task("t", PROBLEMS, {}, Sometimes(), on_verifier_error="wrong")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"on_verifier_error": "ignore"}, "on_verifier_error must be stop, retry or wrong, not 'ignore'"),
        ({"verifier_processes": 0}, "verifier_processes must be a whole number above 0, not 0"),
        ({"verifier_concurrency": 1.5}, "verifier_concurrency must be a whole number above 0, not 1.5"),
    ],
)
def test_what_cannot_be_is_named(values, said):
    with pytest.raises(InputError, match=said):
        Task("t", PROBLEMS, {}, "exact", **values)


# ------------------------------------------------------------------ without a reference answer


class Judge:
    needs_answer = False

    def __call__(self, response, problem):
        return Verdict("please" in response, 0.5)


def polite(response, problem):
    return "please" in response


polite.needs_answer = False


@pytest.mark.parametrize(
    "judge",
    [Judge(), polite, functools.partial(polite), [Reward(polite)]],
    ids=["object", "function", "partial", "reward"],
)
def test_a_judge_may_need_no_reference_answer(judge):
    task = Task("t", [Problem("Ask politely.", "")], {}, judge)
    assert [verdict.correct for verdict in task.judge(task.train, [("please", "now")])[0]] == [True, False]
    with pytest.raises(InputError, match="the answer of problem 0 in 'train' is empty; a verifier that needs none"):
        Task("t", task.train, {}, [Reward(polite), Reward("exact")])


def test_a_judge_in_a_file_needs_no_answer_and_is_loaded_once(tmp_path):
    file = tmp_path / "mine.py"
    log = tmp_path / "log"
    file.write_text(
        f"open({str(log)!r}, 'a').write('file ')\n"
        "class Judge:\n    needs_answer = False\n"
        f"    def __init__(self):\n        open({str(log)!r}, 'a').write('class ')\n"
        "    def __call__(self, response, problem):\n        return 'please' in response\n"
    )
    name, rows = f"{file}:Judge", [{"question": "Ask politely."}]
    assert Task.from_rows("t", rows, [Reward(name)]).train[0].answer == ""
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(rows[0]))
    build_task({"name": "files", "train": str(data), "verifier": name})
    row = {"data_source": "s", "prompt": [{"role": "user", "content": "Ask."}]}
    for folder, columns in (("none", {}), ("null", {"reward_model": {"style": "rule", "ground_truth": None}})):
        (tmp_path / folder).mkdir()
        parquet.write_table(pyarrow.Table.from_pylist([row | columns]), tmp_path / folder / "train.parquet")
        build_task({"name": "verl", "root": str(tmp_path), "train": folder, "verifier": name})
    assert log.read_text() == "file class "
    file.write_text(file.read_text() + "\n")
    Task.from_rows("t", rows, name)
    assert log.read_text() == "file class file class "


def test_the_users_interrupt_is_no_complaint_about_a_verifier():
    class Interrupted:
        def batch(self, responses, answers):
            if "a" in responses:  # a task tries its verifier on empty responses
                raise KeyboardInterrupt
            return [0.0 for _ in responses]

    task = Task("t", PROBLEMS, {}, Interrupted(), verifier_seconds=None)
    with pytest.raises(KeyboardInterrupt):
        task.judge(PROBLEMS, [["a"], ["b"]])

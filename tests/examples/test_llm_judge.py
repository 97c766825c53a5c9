"""examples/llm_judge.py against a server on this machine: retries, a rate limit, a cache, and a training task."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlcsd import InputError, Problem, Task
from rlcsd.plugins import load_attribute
from rlcsd.verifiers import from_reference, reference_of

FILE = Path(__file__).parents[2] / "examples" / "llm_judge.py"
PROBLEMS = [Problem("Describe rain.", "")]


class Server(ThreadingHTTPServer):
    """Answers with 8 points, or by `script`: a status, headers and a text for each of the first requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.times, self.open, self.most = [], [], [], 0, 0
        self.lock, self.headers, self.slow = threading.Lock(), [], 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests.append(body)
            server.times.append(time.monotonic())
            server.headers.append(dict(self.headers))
            server.open += 1
            server.most = max(server.most, server.open)
            status, headers, text = server.script.pop(0) if server.script else (200, {}, "It is good.\nPoints: 8")
        time.sleep(server.slow)
        with server.lock:
            server.open -= 1
        if status == "drop":
            self.close_connection = True
            return
        content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def made(server, tmp_path, **values):
    judge = load_attribute("verifier", f"{FILE}:LLMJudge")
    return judge(f"http://127.0.0.1:{server.server_address[1]}/v1", "m", cache=str(tmp_path / "judge.sqlite"), **values)


def test_the_points_are_the_reward_and_the_reasons_the_feedback(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    task = Task("t", PROBLEMS, {}, made(server, tmp_path))
    assert server.requests == [], "an empty response needs no judge"
    server.script = [(200, {}, "Half of it.\nPoints: 5"), (200, {}, "Points: 10")]
    ((half,), (whole,)) = (
        task.judge(PROBLEMS, [(text,)])[0] for text in ("It is <think>no</think> wet.", "Water falls.")
    )
    assert (half.correct, half.reward, half.feedback) == (False, 0.5, "Half of it.")
    assert (whole.correct, whole.reward, whole.feedback) == (True, 1.0, None)
    assert server.requests[0]["temperature"] == 0 and server.headers[0]["Authorization"] == "Bearer secret"
    asked = server.requests[0]["messages"][1]["content"]
    assert "Describe rain." in asked and "wet." in asked and "no</think>" not in asked.replace("\n", "")
    fences = [request["messages"][1]["content"].splitlines()[1] for request in server.requests]
    assert fences[0] != fences[1], "a response cannot know the fence around it"
    assert "secret" not in json.dumps(reference_of(task.verifier))


def test_what_was_judged_is_not_asked_again_by_another_run(server, tmp_path):
    task = Task("t", PROBLEMS, {}, made(server, tmp_path))
    server.slow = 0.2
    verdicts = task.judge(PROBLEMS, [["same"] * 6 + ["other"]])[0]
    assert [verdict.reward for verdict in verdicts] == [0.8] * 7 and len(server.requests) == 2
    again = Task("t", PROBLEMS, {}, from_reference(reference_of(task.verifier), pytest.fail))
    assert again.judge(PROBLEMS, [["same"]])[0][0].reward == 0.8 and len(server.requests) == 2
    again.judge([Problem("Describe snow.", "")], [["same"]])
    assert len(server.requests) == 3


def test_many_are_judged_side_by_side(server, tmp_path):
    server.slow = 0.1
    task = Task("t", PROBLEMS, {}, made(server, tmp_path), verifier_concurrency=8)
    task.judge(PROBLEMS, [[f"response {n}" for n in range(24)]])
    assert 4 <= server.most <= 8 and len(server.requests) == 24


def test_a_rate_limit_holds_all_requests_back_as_long_as_the_server_says(server, tmp_path):
    server.script = [(429, {"Retry-After": "0.6"}, ""), (429, {"Retry-After": "0.6"}, "")]
    task = Task("t", PROBLEMS, {}, made(server, tmp_path), verifier_concurrency=2)
    assert all(v.correct for v in task.judge(PROBLEMS, [["a", "b", "c"]])[0])
    assert len(server.requests) == 5 and min(server.times[2:]) - server.times[0] >= 0.6
    seconds = load_attribute("verifier", f"{FILE}:_seconds")
    assert 8 < seconds(email.utils.formatdate(time.time() + 10, usegmt=True)) <= 10
    assert (seconds("soon"), seconds(None), seconds("3")) == (None, None, 3.0)


def test_errors_of_the_server_and_lost_connections_are_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    server.script = [(503, {}, ""), ("drop", {}, ""), (500, {}, "")]
    task = Task("t", PROBLEMS, {}, made(server, tmp_path))
    assert task.judge(PROBLEMS, [["a"]])[0][0].correct and len(server.requests) == 4
    server.script = [(503, {}, "")] * 2
    with pytest.raises(InputError, match=r"raised HTTPStatusError \(HTTP 503"):
        Task("t", PROBLEMS, {}, made(server, tmp_path, attempts=2)).judge(PROBLEMS, [["b"]])


@pytest.mark.parametrize(
    ("answer", "said", "requests"),
    [((401, {}, ""), "raised HTTPStatusError .*401", 1), ((200, {}, "Well done!"), "gave no points from 0 to 10", 1),
     ((200, {}, "Points: 11"), "gave no points", 1)],
)  # fmt: skip
def test_what_asking_again_does_not_mend_is_said_at_once(answer, said, requests, server, tmp_path):
    server.script = [answer]
    with pytest.raises(InputError, match=said):
        Task("t", PROBLEMS, {}, made(server, tmp_path)).judge(PROBLEMS, [["a"]])
    assert len(server.requests) == requests


def test_a_server_that_does_not_answer_ends_with_the_limit(server, tmp_path):
    server.slow = 20.0
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"took longer than 0\.3 s"):
        Task("t", PROBLEMS, {}, made(server, tmp_path), verifier_seconds=0.3).judge(PROBLEMS, [["a", "b"]])
    assert time.monotonic() - begun < 10


def test_the_task_of_the_file_can_be_made():
    from rlcsd.tasks.registry import build_task

    task = build_task({"name": f"{FILE}:task"})
    assert (len(task.train), len(task.evaluations["held_out"]), task.hints_by_text) == (16, 4, True)

"""Rewards that are not 0 or 1, from the config to the log: correct is what the verifier calls correct."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcsd import InputError
from rlcsd.cli import main
from rlcsd.config.load import load
from rlcsd.run import Run
from rlcsd.run.folder import plugins_of
from rlcsd.storage import read_jsonl
from rlcsd.tasks.registry import build_task

MINE = """
from rlcsd import Verdict
from rlcsd.verifiers import last_boxed
from rlcsd.verifiers.knights_and_knaves import verify

def boxed(response, answer):
    return last_boxed(response) is not None

def shaped(response, answer):
    return 0.1 * boxed(response, answer) + 0.9 * verify(response, answer)

def level(response, problem):
    right = problem.answer in response
    return Verdict(right, float(problem.extra["points"]) * right, {"level": int(problem.extra["points"])}, "said")

def flaky(response, answer):
    if len(response) % 3 == 1:
        raise OSError("gone")
    return verify(response, answer)

def unread(response, answer):
    right = verify(response, answer)
    return Verdict(bool(right), float(right), answer="")

def judge(response, answer):
    said = last_boxed(response)
    return Verdict(False, 0.0, feedback=f"You said {said}." if said else None)

class Judge:
    def __call__(self, response, problem):
        return problem.answer in response
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.mark.parametrize(
    "rewards", ["[{verifier: MINE:boxed, weight: 0.1}, {verifier: task, weight: 0.9}]", "[{verifier: MINE:shaped}]"]
)
def test_a_reward_for_the_form_makes_no_rollout_correct(rewards, mine, tiny_config):
    config = tiny_config(
        "method=rlcsd", "steps=1", "group_size=8", f"task.rewards={rewards.replace('MINE', str(mine))}"
    )
    result = Run(config).execute()
    folder = Path(result["folder"])
    (step,) = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    groups = read_jsonl(folder / "rollouts.jsonl")
    rollouts = [rollout for group in groups for rollout in group["rollouts"]]
    assert {round(rollout["reward"], 6) for rollout in rollouts} == {0.0, 0.1, 1.0}
    assert all(rollout["correct"] == (rollout["reward"] > 0.5) for rollout in rollouts)
    assert 0 < step["rollout/accuracy"] < 1 and step["rollout/accuracy"] < step["rollout/reward"]
    assert step["hints/usable_share"] > 0 and step["update/count"] == 2 and step["actor/grad_norm"] > 0
    for group in groups:
        for rollout in group["rollouts"]:
            if rollout["updated"]:
                assert group["rollouts"][rollout["hints"]["correct"]["place"]]["correct"]
                assert not any(group["rollouts"][hint["place"]]["correct"] for hint in rollout["hints"]["wrong"])
    if "boxed" in rewards:
        assert step["reward/boxed"] == pytest.approx(sum(r["parts"]["boxed"] for r in rollouts) / len(rollouts))
        assert step["reward/knights_and_knaves"] == pytest.approx(step["rollout/accuracy"])
        assert result["after"][0].reward == pytest.approx(
            result["after"][0].mean + 0.1 * (result["after"][0].boxed - result["after"][0].mean), abs=0.05
        )
    assert plugins_of(folder) and str(mine) in plugins_of(folder)[0]


def test_a_verifier_that_reads_no_boxes_trains_with_hints(mine, tiny_config):
    """As the docs' `answer in response` does: what it says of the answer is that there is none to read."""
    rewards = f"[{{verifier: {mine}:unread, weight: 1}}]"
    config = tiny_config(
        "method=rlcsd", "steps=1", "group_size=8", f"task.rewards={rewards}", "evaluation.before=false"
    )
    folder = Path(Run(config).execute()["folder"])
    (step,) = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    assert step["rollout/answered"] == 0 and step["hints/usable_share"] > 0 and step["actor/grad_norm"] > 0
    hints = [r["hints"] for g in read_jsonl(folder / "rollouts.jsonl") for r in g["rollouts"] if r.get("hints")]
    assert hints and all(hint["answer"] == "" and hint["text"] for h in hints for hint in (h["correct"], *h["wrong"]))


def test_a_verifier_that_fails_now_and_then_is_counted_and_told(mine, tiny_config):
    config = tiny_config(
        "method=grpo", "steps=1", "evaluation.before=false", "task.on_verifier_error=wrong", "engine.self_check=false",
        f"task.rewards=[{{verifier: {mine}:flaky}}]",
    )  # fmt: skip
    said = []
    run = Run(config, watch=lambda event, facts: said.append(facts.get("message", "")))
    folder = Path(run.execute()["folder"])
    (step,) = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    failed = [r for g in read_jsonl(folder / "rollouts.jsonl") for r in g["rollouts"] if "error" in r]
    assert 0 < step["verifier/failed"] == len(failed) < 16 and step["verifier/retries"] == 0
    assert not any(rollout["correct"] or rollout["reward"] for rollout in failed)
    (told,) = [message for message in said if "the verifier failed on" in message]
    assert (
        f"{len(failed)} of 16 responses, which count as wrong; for example: verifier 'flaky' raised OSError (gone)"
        in told
    )


@pytest.mark.parametrize("name", ["opsd", "sdpo", "srpo", "rlsd"])
def test_a_teacher_that_is_shown_feedback_trains(name, mine, tiny_config):
    rewards = f"[{{verifier: task}}, {{verifier: {mine}:judge, weight: 0}}]"
    config = tiny_config(
        f"method={name}", "method.hint_source=feedback", "steps=1", f"task.rewards={rewards}", "evaluation.before=false"
    )
    folder = Path(Run(config).execute()["folder"])
    (step,) = [record for record in read_jsonl(folder / "metrics.jsonl") if "time/step" in record]
    assert step["actor/grad_norm"] > 0 and step["hints/usable_share"] > 0
    shown = 0
    for group in read_jsonl(folder / "rollouts.jsonl"):
        for place, rollout in enumerate(group["rollouts"]):
            told = rollout["feedback"] is not None
            assert rollout["updated"] == (told or name in ("srpo", "rlsd"))  # these keep what nothing was said of
            if told:
                assert rollout["hints"]["correct"] == {
                    "place": place,
                    "answer": "",
                    "text": f"You said {rollout['boxed']}.",
                    "kind": "feedback",
                }
                shown += 1
    assert shown


def test_feedback_from_a_verifier_that_has_none_is_refused(tiny_config):
    with pytest.raises(InputError, match="the verifier of task=kk_tiny says no more"):
        Run(tiny_config("method=sdpo", "method.hint_source=feedback"))


def rows(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_verifier_from_a_file_sees_the_whole_row(mine, tmp_path):
    data = rows(tmp_path / "data.jsonl", {"question": "Say a", "answer": "a", "points": 3, "note": {"deep": [1]}})
    config = load(["task=files", f"task.train={data}", f"task.verifier={mine}:level"])
    task = build_task(config.task)
    assert task.train[0].extra == {"question": "Say a", "answer": "a", "points": 3, "note": {"deep": [1]}}
    ((good, bad),) = task.judge(task.train, [("a", "b")])
    assert (good.correct, good.reward, good.parts, good.feedback) == (True, 3.0, {"level": 3.0}, "said")
    assert (bad.correct, bad.reward) == (False, 0.0)
    rewards = f"[{{verifier: {mine}:level, weight: 0.5, name: points}}, {{verifier: task, decides: true}}]"
    both = load(["task=files", f"task.train={data}", "task.verifier=exact", f"task.rewards={rewards}"])
    ((verdict, boxed),) = build_task(both.task).judge(task.train, [("a", "a \\boxed{a}")])
    assert (verdict.correct, verdict.reward) == (False, 1.5)
    assert (boxed.correct, boxed.reward, set(boxed.parts)) == (True, 2.5, {"points", "points/level", "exact"})
    judge = load(["task=files", f"task.train={data}", f"task.verifier={mine}:Judge"])
    assert build_task(judge.task).judge(task.train, [("a",)])[0][0].correct


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task.verifier=MINE:nothing", "the file has no such function"),
        ("task.verifier=gone.py:score", "there is no file 'gone.py'"),
        ("task.verifier=matth", "did you mean 'math'"),
        ("task.verifier=MINE:level", "problem 0 in 'train' cannot be verified (verifier 'level' raised KeyError"),
        ("task.rewards=[{verifier: exact, weight: heavy}]", "task.rewards.0.weight='heavy'"),
        ("task.rewards=[{verifer: exact}]", "task.rewards.0"),
        ("task.rewards=[{verifier: exact},{verifier: exact}]", "two rewards are called 'exact'"),
        ("task.success=yes", "task.success"),
        ("task.verifier_seconds=0", "task.verifier_seconds"),
    ],
)
def test_a_mistake_is_one_sentence(override, said, mine, tmp_path, capsys):
    data = rows(tmp_path / "data.jsonl", {"question": "Say a", "answer": "a"})
    override = override.replace("MINE", str(mine))
    assert main(["train", "task=files", f"task.train={data}", override, "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1

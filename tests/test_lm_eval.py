"""The lm-evaluation-harness finds the same responses correct as `rlcsd eval`; needs lm-eval."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import TINY
from rlcsd.evaluation import EvaluationSettings, evaluate
from rlcsd.tasks.registry import build_task

ROOT = Path(__file__).parents[1]
lm_eval = pytest.importorskip("lm_eval")


def test_the_harness_agrees_problem_by_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    config = load([
        "task.eval_per_size=12", "task.unseen_sizes=[]", "task.train_per_size=16", "engine.self_check=false",
        "evaluation.samples=1", "evaluation.sampling.temperature=0", "evaluation.sampling.max_tokens=300",
    ])  # fmt: skip
    task = build_task(config.task)
    problems = task.evaluations["seen_sizes"]
    rows = [json.dumps({"question": one.question, "answer": one.answer}) for one in problems]
    (tmp_path / "problems.jsonl").write_text("\n".join(rows))
    manager = pytest.importorskip("lm_eval.tasks").TaskManager(include_path=str(ROOT / "examples/lm_eval"))
    found = lm_eval.simple_evaluate(
        model="hf", model_args={"pretrained": str(TINY), "dtype": "float32"}, device="cpu", batch_size=12,
        tasks=["rlcsd_boxed"], task_manager=manager, apply_chat_template=True, gen_kwargs={"max_gen_toks": 300},
        bootstrap_iters=0,
    )  # fmt: skip
    theirs = [sample["correct"] for sample in sorted(found["samples"]["rlcsd_boxed"], key=lambda one: one["doc_id"])]
    engine = LocalEngine(config, build_method(config))
    _, answered = evaluate(engine, task, EvaluationSettings.of(config))
    assert [float(one.passed[0]) for one in answered] == theirs
    assert 0 < sum(theirs) < len(theirs)  # so that agreement says something

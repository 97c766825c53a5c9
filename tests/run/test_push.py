"""Uploading a run, against a stand-in for the hub; exporting one from elsewhere."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load, load_file

import rlcsd
from rlcsd.cli import main
from rlcsd.config.load import to_yaml
from rlcsd.run import Run
from rlcsd.run.push import check_hub, model_card
from tests.conftest import untrained_checkpoint
from tests.hub import Hub
from tests.report.folders import write_config


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in takes plain uploads alone
        yield server


def test_a_finished_run_is_uploaded_with_a_card_and_loads_from_what_was_taken(hub, tiny_config, tmp_path, capsys):
    run = Run(tiny_config("steps=1", "push_to_hub=ann/model", "run_name=r"))
    run.execute()
    files = hub.files["ann/model"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "rlcsd.yaml"} <= files.keys()
    assert not any(name.startswith("state/") for name in files)
    checkpoint = run.folder / "checkpoints/step_000001"
    assert files["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert load(files["model.safetensors"])
    card = files["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["tags"] == ["rlcsd", "rlcsd"]
    assert "after 1 steps of rlcsd on kk_tiny" in card
    assert "| seen_sizes (3 people) |" in card
    assert "Bearer hf_test" in hub.tokens
    assert main(["push", str(run.folder), "ann/other", "--private"]) == 0
    assert f"{hub.endpoint}/ann/other/commit" in capsys.readouterr().out
    assert hub.private == {"ann/model": False, "ann/other": True}


@pytest.mark.parametrize(
    ("base", "named"),
    [("Qwen/Qwen3-4B", True), ("models/mine", False), ("/home/me", False), ("./mine", False), ("a/b/c", False)],
)
def test_the_card_names_a_base_of_the_hub_alone(tmp_path, base, named):
    (tmp_path / "models/mine").mkdir(parents=True)
    run = write_config(tmp_path / "runs/r", model={"path": base})
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace('"tau": 0.1', '"objective": "dapo"'))
    card = model_card(run, 3)
    assert ("base_model" in yaml.safe_load(card.split("---")[1])) == named
    assert "after 3 steps of rlcsd-dapo on kk_tiny" in card


def test_what_the_hub_does_not_take_loses_nothing(hub, tiny_config, tmp_path):
    hub.refuse = 403
    run = Run(tiny_config("steps=1", "push_to_hub=ann/model", "run_name=r"))
    with pytest.raises(
        rlcsd.InputError, match=r"push_to_hub=ann/model: could not be uploaded.*rlcsd push .*tries again"
    ):
        run.execute()
    assert (run.folder / "report.md").is_file()
    assert (run.folder / "checkpoints/step_000001").is_dir()


@pytest.mark.parametrize(
    ("name", "words"), [("model", "reads owner/name"), ("a/b/c", "no name of a model"), ("ann/mo del", "no name")]
)
def test_a_name_that_cannot_be_is_refused_before_the_run(hub, name, words, tiny_config):
    with pytest.raises(rlcsd.InputError, match=words):
        Run(tiny_config(f"push_to_hub='{name}'"))


def test_no_token_and_no_network_are_refused_before_the_run(hub, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(rlcsd.InputError, match="no token"):
        check_hub("ann/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(rlcsd.InputError, match="HF_HUB_OFFLINE"):
        check_hub("ann/model")


def test_what_is_no_run_is_one_sentence(hub, tmp_path, capsys):
    assert main(["push", str(tmp_path), "ann/model"]) == 2
    assert "there is no run here" in capsys.readouterr().err


def test_a_dry_run_shows_the_files_and_the_card_without_network_or_token(hub, tiny_config, monkeypatch, capsys):
    import huggingface_hub

    run = Run(tiny_config("steps=1", "run_name=r", "evaluation.before=false", "task.eval_per_size=2"))
    run.execute()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["push", str(run.folder), "ann/model", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    size = (run.folder / "checkpoints/step_000001/model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in shown and "state/" not in shown and "rlcsd.yaml" in shown
    assert "after 1 steps of rlcsd on kk_tiny" in shown and not hub.files
    assert main(["push", str(run.folder), "model", "--dry-run"]) == 2


def test_exporting_a_run_from_elsewhere_imports_nothing_that_it_names(tiny_config, tmp_path):
    folder, ran = tmp_path / "elsewhere", tmp_path / "ran"
    untrained_checkpoint(folder)
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = yaml.safe_load(to_yaml(tiny_config())) | {"export_dtype": "bfloat16"}
    config["method"]["name"] = config["task"]["name"] = f"{tmp_path / 'code.py'}:Named"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["export", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert load_file(tmp_path / "out/model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert main(["inspect", str(folder)]) == 2  # it has no rollouts
    assert main(["train", "--dry-run", f"model.path={folder}", "task=kk_tiny", f"output_dir={tmp_path}"]) == 0
    assert not ran.exists()
    assert main(["eval", f"model.path={folder}"]) == 2
    assert ran.exists(), "what reads the run's config imports what it names"

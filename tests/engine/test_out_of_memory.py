"""Memory that runs out is one sentence with the phase, the keys to change and how to go on."""

from __future__ import annotations

import pytest
import torch

import rlcsd
from rlcsd.cli import main
from rlcsd.config.load import load
from rlcsd.engine.local import sampler, update
from rlcsd.engine.out_of_memory import changes
from rlcsd.errors import is_out_of_memory
from rlcsd.run.checkpoint import checkpoints

RUN = [
    "method=rlcsd", "steps=3", "save_every=0", "prompts_per_step=4", "prompts_per_update=4", "group_size=4",
    "task.train_sizes=[3]", "task.unseen_sizes=[]", "task.train_per_size=8", "task.eval_per_size=2",
    "task.forms=[atom,not,and,or,iff,if]", "sampling.max_tokens=64", "evaluation.before=false", "evaluation.samples=1",
    "evaluation.sampling.max_tokens=8", "figures=false", "trackers=[]", "engine.threads=1", "engine.self_check=false",
    "entropy_coefficient=0.01", "method.unusable=plain", "run_name=r",
]  # fmt: skip


def starved(function, from_call: int = 1):
    """The function, which from that call on asks for more memory than there is."""
    calls = 0

    def run(*args, **kwargs):
        nonlocal calls
        calls += 1
        return function(*args, **kwargs) if calls < from_call else torch.zeros(1 << 55)

    return run


def test_errors_of_the_host_and_of_devices_are_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.zeros(1 << 55)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("module", "name", "call", "words"),
    [
        (
            sampler,
            "sample",
            2,
            "step 2: sampling ran out of memory on the host; set engine.sample_rows=128 (now 256), or engine.sample_gib=8 (now null)",
        ),
        (
            update,
            "_micro_batch",
            2,
            "step 2: update ran out of memory on the host; set engine.micro_batch_tokens=1024 (now 2048)",
        ),
    ],
)
def test_a_run_saves_what_is_done_and_says_what_to_lower(module, name, call, words, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, starved(getattr(module, name), call))
        assert main(["train", *RUN, f"output_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert [path.name for path in checkpoints(tmp_path / "r/checkpoints")] == ["step_000001"]
    command = said.partition("`rlcsd train --resume")[2].partition("`")[0].split()
    assert main(["train", "--resume", *command]) == 0


def test_a_resume_that_runs_out_does_not_say_that_the_model_is_another(tmp_path, monkeypatch, capsys):
    assert main(["train", *RUN, "steps=1", f"output_dir={tmp_path}"]) == 0
    monkeypatch.setattr("rlcsd.engine.local.local_engine.optimizer.load_training_state", starved(lambda: None))
    assert main(["train", "--resume", str(tmp_path / "r"), "steps=2"]) == 2
    said = capsys.readouterr().err
    assert "resume ran out of memory" in said
    assert "does not fit this model" not in said


def test_loading_says_what_makes_a_model_smaller(monkeypatch, tmp_path):
    monkeypatch.setattr("rlcsd.engine.local.local_engine.load_network", starved(lambda: None))
    with pytest.raises(rlcsd.InputError, match=r"^loading ran out of memory on the host; set model\.dtype=bfloat16"):
        rlcsd.train([*RUN, f"output_dir={tmp_path}"], progress=False)


def test_a_proposal_changes_what_the_phase_needs():
    config = load(["engine.micro_batch_tokens=512", "sampling.max_tokens=1024", "model.gradient_checkpointing=true"])
    keys = [key for key, _, _ in changes("update", config)]
    assert keys[0] == "engine.head_chunk", "the longest row is not cut, and checkpointing is on"
    assert changes("scoring", load(["engine=verl"]))[0] == ("engine.score_tokens", 4096, 2048)
    assert changes("optimizer step", load([]))[0] == ("engine.optimizer", "adamw", "adamw_8bit")

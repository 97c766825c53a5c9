"""README: each block of code runs, each command is accepted, and each line of output is one that the program prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from rlcsd.cli.main import main
from rlcsd.methods import METHODS
from tests.methods.batches import policy_of, random_batch

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, flags=re.S | re.M)
LOSS, TASK = (code for language, code in BLOCKS if language == "python")
(CONSOLE,) = (code for language, code in BLOCKS if language == "console")
COMMANDS, MAP = (code for language, code in BLOCKS if not language)
SMALL = [
    *("steps=1", "prompts_per_step=4", "prompts_per_update=4", "group_size=4", "sampling.max_tokens=128"),
    *("evaluation.samples=1", "evaluation.sampling.max_tokens=16", "trackers=[]", "figures=false"),
    *("engine.self_check=false", "run_name=NAME"),
]


def test_readme_stays_short_and_all_of_its_blocks_are_checked_here():
    assert len(TEXT.splitlines()) <= 130
    assert [language for language, _ in BLOCKS] == ["console", "python", "python", "", ""]


def test_the_loss_is_that_of_the_library():
    assert len(LOSS.splitlines()) <= 25
    names = {}
    exec(LOSS, names)
    method = METHODS["rlcsd"].from_fields(k_max=3)
    logits, ids, batch = random_batch(method, [5, 9, 7, 3])
    alike = torch.arange(len(ids)) % 2 == 0  # tokens on which the hints agree, which are not selected
    wrong = torch.where(alike[:, None], batch.teacher_log_prob[:, None], batch.contrast_log_prob)
    every = torch.ones_like(batch.contrast_valid)
    batch = batch.with_columns(correction=torch.ones(len(ids)), contrast_log_prob=wrong, contrast_valid=every)
    policy = policy_of(logits, ids, batch)
    prepared = method.prepare(batch, 1)
    assert 0 < prepared.selected.sum() < len(ids)
    ours = method.token_loss(policy, prepared).sum()
    loss = names["rlcsd_loss"](
        policy.log_prob, batch.old_log_prob, batch.teacher_log_prob, batch.contrast_log_prob, batch.advantage
    )
    torch.testing.assert_close(loss, ours)
    (of_library,) = torch.autograd.grad(ours, logits, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], of_library)


def test_the_task_trains(tmp_path, monkeypatch):
    assert f"Save this as `parity.py`:\n\n```python\n{TASK}" in TEXT
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parity.py").write_text(TASK, encoding="utf-8")
    (command,) = COMMANDS.splitlines()
    given = [word for word in shlex.split(command)[2:] if not word.startswith(("model.path=", "steps=", "sampling."))]
    assert given == ["task=parity.py:task"]
    assert main(["train", *given, *SMALL]) == 0
    assert (tmp_path / "runs/NAME/report.md").is_file()


def test_the_output_is_that_of_the_commands(tmp_path, monkeypatch, capsys):
    """Numbers aside, each quoted line is one that the command prints, in this order; "…" stands for any lines."""
    monkeypatch.chdir(tmp_path)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/rlcsd train$", makefile, re.M)
    parts = re.split(r"^\$ (.*)\n", CONSOLE, flags=re.M)[1:]
    assert parts[::2] == ["make demo", "rlcsd inspect runs/NAME"]
    for command, quoted in zip(parts[::2], parts[1::2], strict=True):
        words = ["train", *SMALL, "task.eval_per_size=4"] if command == "make demo" else shlex.split(command)[1:]
        assert main(words) == 0
        printed = [without_numbers(line) for line in "".join(capsys.readouterr()).splitlines()]
        place = 0
        for line in map(without_numbers, quoted.splitlines()):
            if line != "…":
                assert line in printed[place:], (command, line)
                place += printed[place:].index(line) + 1


def without_numbers(line: str) -> str:
    """The words of a line: rulers and spaces shortened, numbers and intervals left out."""
    line = re.sub(r"[-+−]?\d[\d.,:%]*", "#", line)
    return re.sub(r"(# )+#", "#", re.sub(r"\[#[^]]*\]|[┏┓┡┩└┘┳╇┴━─]+|\s+", " ", line)).strip()


@pytest.mark.parametrize("line", MAP.splitlines())
def test_the_map_names_what_there_is(line):
    path, meaning = re.split(r"\s{2,}", line, maxsplit=1)
    for name in [path, *re.findall(r"\b\w+/", meaning)]:
        assert (ROOT / name).exists() or (ROOT / path).parent.joinpath(name).exists(), name


def test_every_method_of_the_paper_is_in_the_table():
    table = TEXT.split("## Methods\n")[1].split("\n## ")[0]
    assert set(METHODS) - set(re.findall(r"`(\w+)`", table)) == set()

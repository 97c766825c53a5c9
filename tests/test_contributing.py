"""CONTRIBUTING.md: its recipes apply to this tree and work, and what it shows of them is in them; pre-commit and .github."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tomllib
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch  # noqa: F401  (before the process is copied)
import transformers  # noqa: F401
import yaml
from packaging.requirements import Requirement

from rlcsd.engine.interface import TokenLimits
from rlcsd.errors import InputError
from rlcsd.records import Sampling
from rlcsd.verifiers.process import can_fork

ROOT = Path(__file__).parents[1]
RECIPES = {path.stem: path for path in sorted((ROOT / "examples/recipes").glob("*.diff"))}
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# Run with the patched tree. All numbers are worked out by hand, or by the other sampler and the scorer.
USE = r"""
import torch
from rlcsd import Problem, Task
from rlcsd.config.load import load
from rlcsd.engine.interface import build_engine
from rlcsd.prepare import prepare
from rlcsd.records import Pair, Sampling
from rlcsd.tasks.registry import build_task
from rlcsd.trainer import Trainer
from rlcsd.verifiers import get

close = get("close")
assert [close(r"It is \boxed{%s}." % x, "200") for x in ("198", "202.1", "two", "")] == [True, False, False, False]

task = build_task({"name": "sums", "digits": 1, "train_size": 200, "eval_size": 30})
assert {int(p.answer) % 5 == 0 for p in task.train} == {False} and len(task.train) == 200
assert {int(p.answer) % 5 == 0 for p in task.evaluations["held_out"]} == {True}
assert all(eval(p.question[8:-1]) == int(p.answer) for p in task.train)

config = load([
    "method=w_reinforce", "method.positive_weight=0.25", "engine=generate", "engine.self_check=false", "sampling.top_k=50", "sampling_mask=null",
    "prompts_per_step=1", "prompts_per_update=1", "group_size=4", "sampling.max_tokens=8", "warmup_steps=0",
])
by_length = Task("length", [Problem("Is it true?", "yes")], {}, lambda response, answer: float(len(response)))
prepared = prepare(config, by_length)
engine = build_engine(config, prepared.method)

prompt = engine.tokenizer("Is it true?").input_ids
for sampling in (Sampling(max_tokens=12), Sampling(temperature=0.0, max_tokens=12)):
    ((first, second),) = engine.sample([prompt], 2, sampling, seed=1)
    scored = engine.score([Pair(tuple(prompt), first.ids)], "policy").log_prob
    assert first.log_probs is None and 0 < len(first) <= 12
    torch.testing.assert_close(first.sampled_log_probs, scored, atol=1e-4, rtol=0)
((ours,),) = super(type(engine), engine).sample([prompt], 1, sampling, seed=1)
assert first.ids == second.ids == ours.ids, "greedy samples of generate and of our sampler"

before = engine.policy.trainable()[0].detach().clone()
result = Trainer(prepared, engine).step(1)
batch = result.token_batches[0]
assert bool((batch.advantage > 0).any()) and bool((batch.advantage < 0).any())
expected = torch.where(batch.advantage > 0, batch.advantage / 4, batch.advantage)
torch.testing.assert_close(batch.credit, expected)
assert not torch.equal(before, engine.policy.trainable()[0])
rollouts = result.groups[0].rollouts
assert result.metrics["groups/distinct_answers"] == len({rollout.answer for rollout in rollouts})
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory) -> Path:
    """A copy of the package and of the pages that the recipes change, with all of them applied."""
    if shutil.which("git") is None:
        pytest.skip("git applies the recipes")
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for name in ("docs/metrics.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for path in RECIPES.values():
        done = subprocess.run(["git", "apply", str(path)], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{path.name} does not apply any more: {done.stderr}"
    return folder


def use_copy(folder: Path, report: Connection) -> None:
    """In a forked process: forget this package, import the copy in its place, and send the traceback of `USE`, if any."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rlcsd"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder / "src"))
    try:
        exec(USE, {"__name__": "use"})
        assert Path(sys.modules["rlcsd"].__file__ or "").is_relative_to(folder)
        report.send(None)
    except BaseException:
        report.send(traceback.format_exc())
    os._exit(0)


@pytest.mark.skipif(
    not can_fork(), reason="a copy of the process has torch and transformers already, which saves seconds"
)
def test_all_recipes_apply_and_a_step_of_training_uses_them(patched):
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=use_copy, args=(patched, theirs))
    process.start()
    theirs.close()
    failure = ours.recv() if ours.poll(300) else "no answer"
    process.kill()
    process.join()
    assert failure is None, failure


def test_recipes_pass_the_linter(patched):
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=patched, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_recipes_pass_the_type_checker(patched):
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=patched, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_page_names_every_recipe_and_shows_lines_of_it():
    assert set(re.findall(r"examples/recipes/(\w+)\.diff", PAGE)) == set(RECIPES) and len(RECIPES) == 5
    added = {line[1:] for path in RECIPES.values() for line in path.read_text().splitlines() if line.startswith("+")}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    assert len(blocks) >= 4
    for line in "".join(blocks).splitlines():
        assert line in added or not line.strip(), f"CONTRIBUTING.md shows {line!r}, which is in no recipe"


def test_the_examples_of_style_are_from_the_code():
    style = " ".join(PAGE.split("## Style")[1].split("## Five recipes")[0].split())
    with pytest.raises(InputError) as refused:
        TokenLimits(context=2048, prompt=310, response=4096, sequence=2048).check_context(
            310, Sampling(max_tokens=4096)
        )
    assert f'"{refused.value}"' in style
    quotes = re.findall(r'`([\w/]+\.py)`:\s"([^"]+)"', style)
    assert len(quotes) >= 3
    for path, quote in quotes:
        assert quote in (ROOT / "src/rlcsd" / path).read_text(encoding="utf-8") or quote == str(refused.value), quote


# ------------------------------------------------------------------ pre-commit and .github


def test_pre_commit_runs_the_linter_of_the_lock_file_and_our_type_checker():
    """ruff in an environment of its own, at the locked version; mypy needs torch's and pydantic's types: `make types`."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy"} and hooks["mypy"]["entry"] == "make types"
    locked = re.search(r"^ruff==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M)
    (wanted,) = (r for r in map(Requirement, PROJECT["project"]["optional-dependencies"]["dev"]) if r.name == "ruff")
    for name in ("ruff-check", "ruff-format"):
        assert locked is not None and hooks[name]["additional_dependencies"] == [f"ruff=={locked[1]}"]
        assert wanted.specifier.contains(locked[1])


def test_the_workflow_runs_targets_of_make_on_every_python_of_the_package():
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    versions = jobs["tests"]["strategy"]["matrix"]["python"]
    named = [line.split(":: ")[-1] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert versions == named == ["3.11", "3.12", "3.13"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {word for run in runs for word in run.split() if run.startswith("make ") and "=" not in word} - {"make"}
    assert {"lint", "types", "unit", "docs", "release-check"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, re.M), target


def test_issue_forms_have_what_the_host_needs():
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yml") if path.stem != "config"}
    assert set(forms) == {"bug", "question", "method"}
    for form in forms.values():
        assert {"name", "description", "body"} <= set(form)
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert len({part["id"] for part in fields}) == len(fields) >= 3
        assert {part["type"] for part in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
        assert any(part.get("validations", {}).get("required") for part in fields)

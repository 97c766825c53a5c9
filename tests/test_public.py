"""The public names of the package: what `dir` shows, that they load lazily, and the examples in their docstrings."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlcsd

NAMES = {name: getattr(rlcsd, name) for name in rlcsd.__all__}


def test_dir_shows_what_is_public_and_nothing_else():
    assert set(dir(rlcsd)) == {*rlcsd.__all__, "__version__"}
    assert {"train", "evaluate", "compare", "sweep", "chat", "inspect", "Task", "Problem", "Verdict"} <= set(dir(rlcsd))
    assert set(rlcsd._MODULES) == set(rlcsd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(rlcsd, "trian")  # noqa: B009


def test_no_torch_is_needed_to_look_around_and_to_describe_a_task():
    code = "import sys, rlcsd; dir(rlcsd); rlcsd.Task, rlcsd.Problem, rlcsd.Verdict; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SETTINGS = {  # of the smallest run, as `settings` in the examples
    "prompts_per_step": 2, "prompts_per_update": 2, "group_size": 3, "sampling.max_tokens": 16, "task.train_per_size": 4,
    "task.eval_per_size": 2, "task.unseen_sizes": [], "evaluation.sampling.max_tokens": 8, "evaluation.before": False,
    "engine.self_check": False, "engine.threads": 1, "figures": False, "trackers": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the finished run `runs/mine`, which the examples use."""
    folder = tmp_path_factory.mktemp("examples")
    settings = {"method": "opsd", "steps": 1, "output_dir": f"{folder}/runs", "run_name": "mine"}
    rlcsd.train({**SETTINGS, **settings, "sampling.max_tokens": 96}, progress=False)
    return folder


@pytest.mark.parametrize("name", rlcsd.__all__)
def test_the_example_of_every_public_name_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = NAMES[name]
    text = inspect.getdoc(found)
    example = doctest.DocTestParser().get_doctest(text, {"rlcsd": rlcsd, "settings": SETTINGS}, name, None, 0)
    if name == "Task":
        text = inspect.getdoc(found.from_rows)
        assert doctest.DocTestParser().get_examples(text)
        example.examples += doctest.DocTestParser().get_examples(text)
    assert example.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_the_page_on_python_shows_code_that_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "notebook.md").read_text(encoding="utf-8")
    code = page.split("<!-- python -->\n```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["result"].metrics) == 2  # the function stopped it: the tiny model knows other tasks
    assert "no response is right" in (names["result"].folder / "report.md").read_text()

"""docs/learn.md and examples/learn.ipynb: the commands, changes and cells that they show are those that run."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "learn.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "learn.ipynb"


@pytest.fixture(scope="module")
def learn():
    """examples/learn.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        yield importlib.import_module("learn")
    for name in ("learn", "rlcsd_in_one_file"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def responses(learn):
    return learn.Responses(learn.changed(), *learn.SMOKE)


def test_the_page_shows_the_change_of_every_exercise(learn):
    for name, (old, new) in learn.EXERCISES.items():
        if not old:
            continue
        assert learn.SOURCE.count(old) == 1, name
        before, after = learn.SOURCE.splitlines(), learn.SOURCE.replace(old, new).splitlines()
        [(was, becomes)] = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        ast.parse("\n".join(after))
        assert f"-{was.strip()}\n+{becomes.strip()}\n" in PAGE, name


@pytest.mark.slow
def test_every_exercise_changes_what_it_is_about(learn, responses, capsys):
    learn.exercises(responses)
    _, _, *lines = capsys.readouterr().out.splitlines()
    rows = {cells[1]: cells[2:-1] for cells in ([cell.strip() for cell in line.split("|")] for line in lines)}
    assert list(rows) == list(learn.EXERCISES)
    usual = rows.pop("as it is")
    assert all(row != usual for row in rows.values())
    assert rows["no threshold"][5] == "100%" and rows["GRPO"][5] == "0%"
    assert usual[6] == "0.0%" and rows["one mean"][7] == "1.00"


@pytest.mark.parametrize("what", ["tokens", "settings"])
def test_the_tables_are_printed(learn, responses, capsys, what):
    getattr(learn, what)(responses)
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in lines if line.startswith("| ")}) <= 2 and len(lines) > 10


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tokens", "settings", "exercises"])
def test_the_page_has_the_numbers_of_the_command(learn, monkeypatch, capsys, what):
    monkeypatch.setattr(sys, "argv", ["learn.py", what])
    learn.main()
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert found and all(line in PAGE.splitlines() for line in found)


def test_the_functions_that_the_page_names_are_in_the_file(learn):
    names = {
        name for name in re.findall(r"`(?:Learner\.)?(\w+)`", PAGE) if re.search(rf"(def|class) {name}\b", learn.SOURCE)
    }
    functions = {node.name for node in ast.parse(learn.SOURCE).body if isinstance(node, ast.FunctionDef)}
    method = functions - {"chat", "left_padded", "log_probs", "load", "accuracy", "main"}
    assert method <= names


# ------------------------------------------------------------------ the notebook


def cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_as_executed_from_top_to_bottom():
    assert NOTEBOOK.stat().st_size < 500_000
    assert [cell["execution_count"] for cell in cells()] == list(range(1, 1 + len(cells())))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert "<iframe" in "".join(cells()[-1]["outputs"][-1]["data"]["text/html"])  # the page of token signals


def test_the_notebook_runs(monkeypatch, capsys, tmp_path):
    """Each cell in this process, with what a notebook shows of its last expression."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(NOTEBOOK.parent), *sys.path])
    monkeypatch.delitem(sys.modules, "rlcsd_in_one_file", raising=False)
    names: dict = {"__name__": "__main__"}
    threads = torch.get_num_threads()
    shown = ""
    for cell in cells():
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            shown = value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)
    torch.set_num_threads(threads)
    sys.modules.pop("rlcsd_in_one_file")
    assert "<iframe" in shown
    stored = "".join(text for cell in cells() for output in cell["outputs"] for text in output.get("text", []))
    assert len(capsys.readouterr().out.splitlines()) > 10 and "right answer" in stored

"""The core does not depend on `rlcsd.experiments`: it loads that package by name when a config asks for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rlcsd.config.load import load
from rlcsd.errors import InputError
from rlcsd.methods import method_class

SOURCE = Path(__file__).parents[2] / "src" / "rlcsd"


def test_the_core_names_the_experiments_in_plugins_alone():
    naming = set()
    for path in SOURCE.rglob("*.py"):
        own = path.relative_to(SOURCE)
        if own.parts[0] == "experiments":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom | ast.Import) else []
            assert not any("experiments" in name.split(".") for name in imported), own
            if isinstance(node, ast.Constant) and str(node.value).startswith("rlcsd.experiments"):
                naming.add(str(own))
    assert naming == {"plugins.py"}


def test_methods_and_tasks_of_the_experiments_are_found_by_name():
    assert method_class("rlcsd_extended").name == "rlcsd_extended"
    assert load(["task=roll_call"]).model.path == "tiny_roll_call"
    with pytest.raises(InputError, match="unknown method"):
        method_class("rlcsd_extendet")


def test_help_lists_the_commands_of_the_experiments_without_loading_torch():
    code = "import sys; from rlcsd.cli.main import parser; print(parser().format_help()); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "warmstart" in out and "demo" in out
    assert out.endswith("False\n")

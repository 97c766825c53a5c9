"""The core does not depend on `rlcsd.experiments`: it loads that package by name when a config asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rlcsd.config.load import load
from rlcsd.errors import InputError
from rlcsd.methods import method_class


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

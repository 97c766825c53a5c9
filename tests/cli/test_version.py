"""`rlcsd --version`, and what a type checker of a user finds."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import rlcsd
from rlcsd.cli import main


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"rlcsd {rlcsd.__version__}\n"
    assert version("rlcsd") == rlcsd.__version__


def test_the_package_is_typed():
    assert (Path(rlcsd.__file__).parent / "py.typed").is_file()


def test_the_lock_file_is_of_these_dependencies():
    """Every requirement of the package is locked, at a version that it allows."""
    packaging = pytest.importorskip("packaging.requirements")
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if "==" in line]
    locked = {packaging.Requirement(line).name.lower().replace("_", "-"): line for line in lines}
    for text in [*project["dependencies"], *project["optional-dependencies"]["data"]]:
        wanted = packaging.Requirement(text)
        found = locked[wanted.name.lower().replace("_", "-")].partition("==")[2].split(" ")[0]
        assert wanted.specifier.contains(found), (text, found)

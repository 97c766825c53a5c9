"""What a release consists of: one version number, wheel and sdist, and a run of the installed wheel.

Building and installing takes minutes and a package index: `make release-check`.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import rlcsd

ROOT = Path(__file__).parents[1]
VERSION = rlcsd.__version__


# ------------------------------------------------------------------ what is written by hand


def test_changelog_and_citation_are_of_this_version():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings[1:]]
    assert released[0] is not None and released[0][1] == VERSION
    assert all(released), "a release is headed `[X.Y.Z] - YYYY-MM-DD`"
    dates = [one[2] for one in released if one]
    assert dates == sorted(dates, reverse=True)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION and str(citation["date-released"]) == dates[0]


def test_the_changelog_has_the_sections_of_keep_a_changelog():
    sections = re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# ------------------------------------------------------------------ wheel and sdist


def tracked(*paths: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of this tree, and the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "--quiet", "--out-dir", str(folder), str(ROOT)], check=True, timeout=300)
    return folder


def the(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_nothing_else(built):
    wheel = the(built, "*.whl")
    assert wheel.name == f"rlcsd-{VERSION}-py3-none-any.whl"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name.removeprefix("src/") for name in tracked("src/rlcsd")}
    assert names == expected | {"rlcsd/constraints.txt", "rlcsd/constraints-gpu.txt"}
    assert {"rlcsd/py.typed", "rlcsd/bases/tiny/model.safetensors", "rlcsd/report/assets/page.js"} <= names
    assert {"rlcsd/config/groups/config.yaml", "rlcsd/report/published/results_2026-08.csv"} <= names
    assert wheel.stat().st_size < 10e6


@pytest.mark.slow
def test_the_sdist_has_every_file_of_the_repository(built):
    sdist = the(built, "*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO"} == {name for name in tracked() if not name.startswith((".ci/", ".github/"))}
    assert sdist.stat().st_size < 12e6


@pytest.mark.slow
def test_twine_accepts_both(built):
    files = [str(path) for path in (the(built, "*.whl"), the(built, "*.tar.gz"))]
    subprocess.run(["uvx", "--quiet", "twine", "check", "--strict", *files], check=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13"])
def test_the_wheel_runs_in_a_fresh_environment(built, python, tmp_path):
    """Installed without the repository, in another folder: a training run, its page and the published tables."""
    if subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {python} on this machine")
    subprocess.run([python, "-m", "venv", "env"], cwd=tmp_path, check=True)
    constraints = ROOT / os.environ.get("CONSTRAINTS", "constraints.txt")
    pip = [f"{tmp_path}/env/bin/pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-c", str(constraints), str(the(built, "*.whl"))], check=True, timeout=1800)
    subprocess.run([*pip, "check"], check=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [f"{tmp_path}/env/bin/rlcsd", *words], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("--version") == f"rlcsd {VERSION}\n"
    run("train", "steps=1", "task.eval_per_size=10", "run_name=first")
    assert (tmp_path / "runs/first/report.md").is_file()
    run("show", "runs/first")
    assert "Qwen3-4B" in run("compare", "--published")
    assert "step         one training step" in run("doctor")

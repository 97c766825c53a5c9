"""The files that an installation is made from: extras, constraints, lock files and the Dockerfile agree, and resolve."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
}


def pins(name: str, python: str) -> dict[str, Version]:
    """The versions of a file of `name==version` lines that hold for this Python on Linux."""
    lines = (line.partition(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    here = {**LINUX, "python_version": python, "python_full_version": f"{python}.0"}
    return {
        canonicalize_name(one.name): Version(next(iter(one.specifier)).version)
        for one in found
        if one.marker is None or one.marker.evaluate(here)
    }


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize(
    ("lock", "constraints", "extras"),
    [
        ("requirements.lock", "constraints.txt", ["data", "reasoning-gym", "quantization", "trackers", "dev"]),
        ("requirements-gpu.lock", "constraints-gpu.txt", ["vllm", "verl", "data", "quantization", "trackers"]),
    ],
)
def test_a_lock_has_every_requirement_and_every_constraint(lock, constraints, extras, python):
    locked = pins(lock, python)
    for text in [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]:
        wanted = Requirement(text)
        if wanted.name != "rlcsd":
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), (text, lock)
    for name, version in pins(constraints, python).items():
        assert locked.get(name, version) == version, (name, lock)


def test_the_set_for_gpus_is_of_one_cuda_version_and_the_docs_say_which_driver_it_needs():
    locked = pins("requirements-gpu.lock", "3.12")
    assert locked["cuda-toolkit"].major == 13 and locked["nvidia-cuda-runtime"].major == 13
    assert not [name for name in locked if re.search(r"-cu(11|12)$", name)]
    driver = (
        580  # the oldest branch that runs CUDA 13.x: NVIDIA's release notes of CUDA 13.0, "minor version compatibility"
    )
    assert f"driver of {driver} or newer" in (ROOT / "constraints-gpu.txt").read_text()
    assert f"driver {driver} or newer" in (ROOT / "docs/cluster.md").read_text()


def test_the_dockerfile_installs_the_locked_set_and_says_that_it_is_unbuilt():
    first, *lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert first.startswith("# Unbuilt")
    text = "\n".join(lines)
    assert "-c requirements-gpu.lock" in text and "[vllm,verl,data" in text
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in copied.split()), copied
    assert text.index("requirements-gpu.lock") < text.index("flash-attn"), (
        "flash-attn is compiled for the torch that is there"
    )


def test_the_docs_install_from_a_checkout_and_torch_before_flash_attention():
    """The package index has no rlcsd: it is installed from a checkout first; extras can be added by name afterwards."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.py")]:
        for line in re.findall(r"pip install [^`\n]*", page.read_text(encoding="utf-8")):
            assert not re.search(r"(?<![\w./\[-])rlcsd(?![\w\[-])", line.partition("#")[0]), (page.name, line)
            assert "flash-attn" not in line or re.fullmatch(
                r"pip install flash-attn==[\d.]+ --no-build-isolation.*", line
            )


# ------------------------------------------------------------------ against the package index


def resolved(python: str, requirements: list[str], *options: str) -> str | None:
    """The lock that uv's resolver makes of `requirements` on Linux, None if there is none; skips without uv or index."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed, which resolves for a Python other than the one that runs")
    command = [uv, "pip", "compile", "-q", "--python-version", python, "--python-platform", "x86_64-manylinux_2_31"]
    text = "\n".join(requirements)
    done = subprocess.run([*command, *options, "-"], cwd=ROOT, input=text, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return done.stdout
    if "No solution found" not in done.stderr:
        pytest.skip(f"no package index can be reached: {done.stderr.strip()[:300]}")
    return None


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_locked_set_for_gpus_resolves(python):
    """pip's `-c requirements-gpu.lock`: every version in it exists and satisfies all others."""
    wanted = [*PROJECT["dependencies"], *EXTRAS["vllm"], *EXTRAS["verl"], *EXTRAS["data"]]
    lock = resolved(python, wanted, "-c", "requirements-gpu.lock")
    assert lock is not None
    found = {canonicalize_name(name): Version(v) for name, v in re.findall(r"^(\S+?)==([^\s;]+)", lock, re.M)}
    assert len(found) > 200
    assert found == {name: pins("requirements-gpu.lock", python)[name] for name in found}


@pytest.mark.slow
def test_the_lower_bound_of_vllm_can_be_installed_and_none_below_it():
    (bound,) = EXTRAS["vllm"]
    assert bound == "vllm>=0.19.1"
    assert resolved("3.11", [*PROJECT["dependencies"], "vllm==0.19.1"]) is not None
    assert resolved("3.11", [*PROJECT["dependencies"], "vllm>=0.11,<0.19.1"]) is None

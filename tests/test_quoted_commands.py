"""Commands that README and docs quote, and all scripts of benchmarks/ and experiments/.

Scripts run with --smoke, which takes seconds. Commands of `rlcsd` are parsed, and their config is loaded. So no number
stands beside a command that fails.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from rlcsd.cli.main import parser
from rlcsd.config.load import load
from rlcsd.errors import InputError

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("experiments/*.md")),
]
LIBRARIES = {"common.py", "oracle.py", "studies.py", "tables.py"}  # imported by other scripts
NEEDS = {"trainers.py": "trl", "verifier_pools.py": "pebble", "page.py": "selenium", "cluster_prefixes.py": "verl"}
DEFAULT_WORDS = {"benchmarks/attention.py": "short", "benchmarks/costs.py": "ratio", "experiments/run.py": "credit"}
REFUSED = {"rlcsd train num_generations=8"}  # quoted as a mistake
START = re.compile(r"(?:rlcsd|python|make) [^ …]")
PLACEHOLDER = re.compile(r"…|\b(?:NAME|RUN|FOLDER|FILE|HEAD|PREFIX)\b|\[|<|own/|owner/")


def quoted() -> Iterator[tuple[str, str]]:
    """(page, command) of every command in a code block or in backticks; comments and what follows `&&` are split off."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
        rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.S | re.M)
        lines += re.findall(r"`([^`\n]+)`", rest)
        for line in lines:
            for command in re.sub(r"\s+#\s.*$", "", line).split("&&"):
                if START.match(command.strip()) and command.count('"') % 2 == command.count("'") % 2 == 0:
                    yield page.relative_to(ROOT).as_posix(), command.strip()


COMMANDS = sorted(set(quoted()))
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).glob("*.py")
    if path.name not in LIBRARIES
)


def of(program: str) -> list[str]:
    return sorted({command for _, command in COMMANDS if command.split()[0] == program})


def script_of(command: str) -> tuple[str, list[str]] | None:
    """Path of the script that a `python …` command runs, and its arguments; None for other uses of python."""
    words = shlex.split(command)[1:]
    if words[0] == "-m":
        words = words[1:]
        path = f"{'src/' if words[0].startswith('rlcsd.') else ''}{words[0].replace('.', '/')}.py"
    elif words[0].endswith(".py"):
        path = words[0]
    else:
        return None
    return path, [word for word in words[1:] if not word.startswith("[")]


@pytest.mark.parametrize("command", of("python"))
def test_a_quoted_script_exists(command):
    found = script_of(command)
    if found is not None:
        assert (ROOT / found[0]).is_file(), command


def run_script(path: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as `python PATH WORDS` does, in this process, which has loaded the libraries already."""
    needed = NEEDS.get(Path(path).name)
    if needed is not None and find_spec(needed) is None:
        pytest.skip(f"needs {needed}")
    for name in [path.stem for folder in ("benchmarks", "experiments") for path in (ROOT / folder).glob("*.py")]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "argv", [path, *words])
    monkeypatch.setattr(sys, "path", [str((ROOT / path).parent), *sys.path])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as stopped:
        if stopped.code:
            raise
    finally:
        torch.set_num_threads(threads)


def smoke_runs() -> list[tuple[str, tuple[str, ...]]]:
    """Each script once, and once with each choice of arguments that a page quotes; sizes do not count."""
    runs = {(path, (DEFAULT_WORDS[path],) if path in DEFAULT_WORDS else ()) for path in SCRIPTS}
    for command in of("python"):
        path, words = script_of(command) or ("", [])
        if path in SCRIPTS:
            # Paths and sizes of the quoted run are no part of a smoke run.
            kept = re.sub(r"--(?:out|collect|runs|json|write|nice|jobs|rounds|responses) \S+", "", " ".join(words))
            runs.discard((path, ()))
            runs.add((path, tuple(kept.split())))
    return sorted(runs)


@pytest.mark.parametrize(
    ("path", "words"), smoke_runs(), ids=lambda part: " ".join(part) if isinstance(part, tuple) else part
)
def test_a_script_runs_with_smoke(path, words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    before = sorted((ROOT / folder).stat().st_mtime_ns for folder in ("docs", "experiments/records"))
    run_script(path, [*words, "--smoke"], monkeypatch)
    assert sorted((ROOT / folder).stat().st_mtime_ns for folder in ("docs", "experiments/records")) == before


@pytest.mark.parametrize("command", of("make"))
def test_a_quoted_target_of_make_exists(command):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for word in command.split()[1:]:
        assert "=" in word or word in targets, command


@pytest.mark.parametrize("command", [command for command in of("rlcsd") if not PLACEHOLDER.search(command)])
def test_a_quoted_command_of_rlcsd_is_one(command):
    """The command line accepts it, and every key and name of its config exists. Files and data need not be there."""
    if len(command.split()) == 2:  # a command named in a sentence; it may need arguments
        assert command.split()[1].lstrip("-") in parser().format_help()
        return
    arguments, rest = parser().parse_known_args(shlex.split(command)[1:])
    assert all("=" in word for word in rest), command
    overrides = [*getattr(arguments, "overrides", []), *rest]
    if command in REFUSED:
        with pytest.raises(InputError):
            load(overrides)
    elif command.split()[1] in ("train", "eval", "sweep") and not any(word in command for word in ("--resume", ".py:")):
        load([word if "[" in word else re.sub(r",.*", "", word) for word in overrides])  # of a sweep: the first run

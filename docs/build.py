"""Assemble the pages of the documentation site in a folder that mkdocs builds: `make docs`.

    python docs/build.py build/docs

The pages are those of docs/, other Markdown files of the repository, a notebook, and the reference, which is made from
the code. Links are written as a host of the repository shows them. In the copies a link to a file that is a page of the
site leads to that page, and a link to any other file or folder to a page with its content.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OWN = (".md", ".png", ".svg", ".css")  # the files of docs/ that belong to the site
OTHERS = {  # other files of the repository, and their place in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "experiments/study.md": "study.md",
    "examples/learn.ipynb": "learn_notebook.md",
}
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def main() -> None:
    out = Path(sys.argv[1])
    shutil.rmtree(out, ignore_errors=True)
    places = site_places()
    for source, place in [*places.items()]:
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text = notebook(ROOT / source, target) if source.endswith(".ipynb") else read(source)
            text = home(text) if source == "README.md" else text
            target.write_text(linked(text, source, places), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    for source, place in places.items():
        if place.startswith("source/"):
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            (out / place).write_text(source_page(source), encoding="utf-8")
    (out / "reference").mkdir()
    for name, make in {"cli": cli, "config": config_keys, "api": api, "names": names}.items():
        (out / "reference" / f"{name}.md").write_text(make(), encoding="utf-8")


def read(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def home(readme: str) -> str:
    """README as the first page: over the whole width, and without badges, which are loaded from elsewhere."""
    return "---\nhide: [navigation, toc]\n---\n\n" + re.sub(r"^\[!\[.*\n", "", readme, flags=re.M)


def site_places() -> dict[str, str]:
    """Path of each file of the site in the repository → its path in the site."""
    files = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*")) if path.suffix in OWN]
    figures = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "experiments/records").glob("*.png"))]
    return {
        **{path: path.removeprefix("docs/") for path in files},
        **{path: path.removeprefix("experiments/") for path in figures},
        **{path: place for path, place in OTHERS.items() if (ROOT / path).is_file()},
    }


def linked(text: str, source: str, places: dict[str, str]) -> str:
    """`text` of the file `source` with its relative links turned into those of the site.

    A file or folder that is no page of the site gets a place in `places`.
    """

    def target(found: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(os.path.dirname(source), found[1]))
        if ":" in found[1] or path.startswith("..") or not (ROOT / path).exists():
            return found[1]  # an address, or a mistake, which mkdocs reports
        place = places.setdefault(path, f"source/{path}.md")
        return os.path.relpath(place, os.path.dirname(places[source]) or ".")

    return LINK.sub(target, text)


def source_page(source: str) -> str:
    """The content of a file, or the names of the files in a folder, as a page that the site's search leaves out."""
    path = ROOT / source
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{source}`\n\n"
    if path.is_dir():
        return head + "\n".join(f"* `{name.name}`" for name in sorted(path.iterdir()) if name.is_file()) + "\n"
    if path.suffix == ".md":
        return head + read(source).partition("\n")[2]
    return f"{head}`````{path.suffix[1:]}\n{read(source).rstrip()}\n`````\n"


# ------------------------------------------------------------------ the notebook


def notebook(path: Path, target: Path) -> str:
    """A notebook as Markdown. Figures and pages among its outputs become files beside the page `target`."""
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"]).rstrip()
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        parts += [
            output_of(output, target.with_name(f"{target.stem}_{number}_{place}"))
            for place, output in enumerate(cell.get("outputs", []))
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def output_of(output: dict[str, Any], file: Path) -> str:
    """One output of a cell: an image, a page in a frame, or text."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, list | str)}
    if "image/png" in data:
        file.with_suffix(".png").write_bytes(base64.b64decode(data["image/png"]))
        return f"![output]({file.stem}.png)"
    if "text/html" in data and len(data["text/html"]) > 20_000:  # a page of its own, not a table
        file.with_suffix(".html").write_text(data["text/html"], encoding="utf-8")
        return f'<iframe src="../{file.stem}.html" title="output" loading="lazy"></iframe>'
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    text = data.get("text/plain") or "".join(output.get("text", []))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rstrip()
    return f"```text\n{text}\n```" if text else ""


# ------------------------------------------------------------------ the command line


def cli() -> str:
    """All commands with their arguments, from the parser's own help."""
    from rlcsd.cli.main import parser

    lines = ["# Command line", "", "What `rlcsd COMMAND --help` prints. [Config keys](config.md) lists the overrides."]
    for name, text, command in commands_of(parser()):
        usage = " ".join(command.format_usage().removeprefix("usage: ").split())
        lines += ["", f"## {name}", "", sentence(text), "", f"```text\n{usage}\n```", ""]
        lines += table(("argument", "meaning"), arguments_of(command))
    return "\n".join(lines) + "\n"


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """(name, help, parser) of each command, or of the commands within it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield from list(commands_of(command)) or [(command.prog, texts.get(name, ""), command)]


def arguments_of(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """(argument, meaning) of one command."""
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = str(
            action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
        )
        name = ", ".join(action.option_strings) or value
        if action.option_strings and action.nargs != 0:
            name = f"{name} {value}"
        yield f"`{name}`", sentence(command._get_formatter()._expand_help(action) if action.help else "")


# ------------------------------------------------------------------ the config


def config_keys() -> str:
    """Every key of the config with type, default and meaning, from the schema."""
    from rlcsd.config.load import choices

    named = {group: [name for name in of if name not in ("plugin", "own")] for group, of in choices().items()}
    lines = [
        "# Config keys",
        "",
        "What `rlcsd config keys` prints. Values are those of the embedded default (`rlcsd train` alone), and below",
        "a choice of a group those of that choice. An override is `key=value`; in YAML and in Python mappings may be",
        "nested.",
        "A resumed run may change the keys marked ↻.",
        "",
        *table(("group", "choices"), [(f"`{group}=`", f"`{'` `'.join(of)}`") for group, of in named.items()]),
    ]
    default = keys()
    sections = {"The run": [name for name in default if "." not in name]}
    for name in default:
        section = name.partition(".")[0]
        if "." in name and section not in ("method", "task", "engine"):
            sections.setdefault(f"`{section}`", []).append(name)
    for title, members in sections.items():
        lines += ["", f"## {title}", "", *key_table([default[name] for name in members])]
    for group in ("engine", "task", "method"):
        chosen = [f"{group}={name}" for name in named[group]]
        sets = [keys(choice, *NEEDED.get(choice, []), prefix=f"{group}.") for choice in chosen]
        common = [row for row in sets[0].values() if all(row in rows.values() for rows in sets)]
        lines += ["", f"## `{group}`", "", f"### every {group}", "", *key_table(common)]
        for choice, rows in zip(chosen, sets, strict=True):
            lines += ["", f"### `{choice}`", "", *key_table(row for row in rows.values() if row not in common)]
    return "\n".join(lines) + "\n"


# What a choice needs before its config is one; the values stand in the table.
NEEDED = {
    "method=opd": ["method.teacher_model=FOLDER"],
    "method=opd_ectr": ["method.teacher_model=FOLDER"],
    "task=files": ["task.train=FILE.jsonl"],
    "task=verl": ["task.train=NAME"],
    "task=reasoning_gym": ["task.dataset=countdown"],
    "task=environment": ["task.environment=NAME"],
}


def keys(*overrides: str, prefix: str = "") -> dict[str, tuple[str, ...]]:
    """Name → (name, type, value, meaning) of the keys of a config that begin with `prefix`."""
    from rlcsd.cli.config_command import keys_of
    from rlcsd.config.load import load
    from rlcsd.run.checkpoint import is_free

    found = [key for key in keys_of(load(overrides)) if key.name.startswith(prefix)]
    return {
        key.name: (f"`{key.name}`{' ↻' if is_free(key.name) else ''}", key.type, f"`{key.value}`", key.description)
        for key in found
    }


def key_table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    return table(("key", "type", "value", "meaning"), rows)


def names() -> str:
    """Settings of other projects and ours."""
    from rlcsd.config.names import page

    return page()


# ------------------------------------------------------------------ the Python API

API = {
    "Train": ("train", "sweep", "load_config", "Config"),
    "Tasks": ("Task", "Problem", "Verdict", "Reward"),
    "Look at runs": ("Result", "evaluate", "compare", "inspect", "chat"),
    "Errors": ("InputError", "StopTraining"),
}
METHODS = ("TokenBatch", "Method", "CreditMethod", "ContrastiveMethod")
METHOD_CONFIGS = ("MethodConfig", "HintedConfig", "ContrastConfig")


def api() -> str:
    """The public names, for mkdocstrings to fill in from their docstrings."""
    import rlcsd

    missing = set(rlcsd.__all__) - {name for group in API.values() for name in group}
    if missing:
        sys.exit(f"public names without a place in the reference: {', '.join(sorted(missing))}")
    lines = ["# Python API", "`import rlcsd` loads no torch; each name is imported when it is first used."]
    for title, group in API.items():
        lines += [f"## {title}", *(f"::: rlcsd.{name}" for name in group)]
    lines += ["## Methods of your own", "[Methods](../methods.md#a-method-of-your-own) has an example."]
    return "\n\n".join([*lines, *(f"::: rlcsd.methods.{name}" for name in (*METHODS, *METHOD_CONFIGS))]) + "\n"


# ------------------------------------------------------------------ words


def sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("." if text and text[-1] not in ".…" else "")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *escaped)]


if __name__ == "__main__":
    main()

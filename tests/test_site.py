"""docs/build.py: the pages that it assembles for the documentation site. `make docs` checks every link and anchor."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = runpy.run_path(str(ROOT / "docs/build.py"), run_name="build")


def test_the_navigation_has_every_page_once():
    named = re.findall(r"(?:: |- )([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)
    made = [place for place in BUILD["site_places"]().values() if place.endswith(".md")]
    assert sorted(named) == sorted([*made, *(f"reference/{name}.md" for name in ("cli", "config", "api", "names"))])


def test_links_lead_to_pages_of_the_site_and_other_files_become_pages():
    places = BUILD["site_places"]()
    text = "[a](docs/data.md#verifiers) [b](src/rlcsd/trainer.py) [c](https://x.org/a.md) [d](nowhere.md)"
    expected = "[a](data.md#verifiers) [b](source/src/rlcsd/trainer.py.md) [c](https://x.org/a.md) [d](nowhere.md)"
    assert BUILD["linked"](text, "README.md", places) == expected
    assert BUILD["linked"]("[e](../../README.md)", "docs/methods/contrast.md", places) == "[e](../index.md)"
    assert "def " in BUILD["source_page"]("src/rlcsd/trainer.py")


def test_the_reference_has_every_command_and_argument():
    page = BUILD["cli"]()
    for command in ("rlcsd train", "rlcsd data kk", "rlcsd compare", "rlcsd warmstart"):
        assert f"\n## {command}\n" in page
    assert "| `--progress {auto,live,lines,off}` |" in page and "| `--resume RUN` |" in page


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path):
    outputs = [
        {"text": ["1\n"]},
        {"data": {"image/png": "iVBORw0KGgo="}},
        {"data": {"text/html": ["<p>" + "x" * 30_000 + "</p>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["1"], "outputs": outputs},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    page = BUILD["notebook"](tmp_path / "n.ipynb", tmp_path / "n.md")
    assert page.startswith("# Title\n\n```python\n1\n```\n\n```text\n1\n```\n\n![output](n_1_1.png)\n\n<iframe")
    assert (tmp_path / "n_1_1.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "n_1_2.html").is_file()

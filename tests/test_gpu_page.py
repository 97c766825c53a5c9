"""docs/gpu.md: its tables are those of the records in docs/gpu."""

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_are_made_from_the_records(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    script = runpy.run_path(str(ROOT / "benchmarks/gpu.py"))
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    assert page.split("<!-- tables -->")[1].strip() == script["tables"](script["read"](ROOT / "docs/gpu"))

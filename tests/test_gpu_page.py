"""docs/gpu.md: its tables are those of the records in docs/gpu."""

import json
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_are_made_from_the_records(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    script = runpy.run_path(str(ROOT / "benchmarks/gpu.py"))
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    assert page.split("<!-- tables -->")[1].strip() == script["tables"](script["read"](ROOT / "docs/gpu"))


def record(name):
    return json.loads((ROOT / f"docs/gpu/2026-11-26-h200{name}.json").read_text(encoding="utf-8"))["parts"]


def test_the_figures_before_and_now_are_those_of_the_records():
    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    before, now, last = (record(name)["small"] for name in ("-before", "", "-family"))
    rows = {  # row of the table: phases before and now
        "sampling": ("sample", "sample"),
        "scoring, own prompts": ("score, own prompts", "score, own prompts"),
        "scoring, one correct and two wrong hints": ("score, one correct and two wrong hints",) * 2,
        "update, rlcsd, shapes seen before": ("update, rlcsd", "update, rlcsd"),
        "update, rlcsd, new shapes": ("update, rlcsd, first", "update, rlcsd, first"),
    }
    for name, (first, second) in rows.items():
        a, b = before[first]["seconds"], now[second]["seconds"]
        assert f"| {name} | {a:.1f} s | {b:.1f} s ({b / a:.2f} ×) |" in page, name
        assert last[second]["seconds"] <= b, name  # 'has the times of "now" or better'


def test_the_price_of_sampling_masks_is_that_of_the_record():
    sampled = record("-family")["sampling"]
    price = [
        sampled[f"{rows} rows, the same with masks, CUDA graph"]["seconds"]
        / sampled[f"{rows} rows, top-p 0.95, top-k 20, CUDA graph"]["seconds"]
        for rows in (64, 256)
    ]
    said = "takes {:.2f} × the time of a token step with 64 rows and {:.2f} × with 256".format(*price)
    assert said in (ROOT / "docs/gpu.md").read_text(encoding="utf-8")

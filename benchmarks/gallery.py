"""The gallery of docs/gallery.md: figures, tables and a picture of the page, made from runs.

    python benchmarks/gallery.py --runs runs/gallery      # trains what is missing there, then writes docs/gallery*
    python benchmarks/gallery.py --smoke                  # two runs of one step; writes nothing

Runs are rlcsd and grpo on the embedded default, shortened (SHORT), with two seeds each. The picture of the page needs
Chromium, its driver and selenium; without them the one that is there stays.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from PIL import Image

from rlcsd.cli.main import main as rlcsd
from rlcsd.report.comparison import comparison, differences, results, written
from rlcsd.report.figures import draw_comparison
from rlcsd.report.page import write_page
from rlcsd.report.run_report import Logs, draw_dynamics
from rlcsd.report.run_results import read_runs
from rlcsd.storage import read_jsonl, write_text
from tests.report.browser import chromium, found, prefer

ROOT = Path(__file__).parents[1]
METHODS, SEEDS = ("rlcsd", "grpo"), (1, 2)
SHORT = (
    "steps=16 prompts_per_step=8 prompts_per_update=4 task.eval_per_size=50 evaluation.samples=1 evaluation.every=0 "
    "save_every=0 log_rollouts=2 engine.threads=1"
)
SMOKE = (
    "steps=1", "prompts_per_step=2", "prompts_per_update=2", "group_size=8", "sampling.max_tokens=128",
    "task.train_per_size=4", "task.eval_per_size=3", "evaluation.sampling.max_tokens=32", "engine.self_check=false",
)  # fmt: skip
LARGEST = 300_000  # bytes of an image


def train(out: Path, seeds: Sequence[int], more: Sequence[str]) -> None:
    """Train the runs that are not finished in `out`."""
    for seed in seeds:
        for method in METHODS:
            if len(read_jsonl(out / f"{method}-{seed}" / "evaluations.jsonl")) < 2:
                own = [f"method={method}", f"seed={seed}", f"output_dir={out}", f"run_name={method}-{seed}"]
                command(["train", *own, *SHORT.split(), "trackers=[]", "figures=false", *more])


def command(words: Sequence[str]) -> None:
    """Run an `rlcsd` command in this process."""
    if code := rlcsd(list(words)):
        raise SystemExit(code)


def picture(run: Path, path: Path) -> None:
    """The page of a run in a window 1,280 pixels wide, with the largest contrast of a response picked."""
    with tempfile.TemporaryDirectory() as folder, chromium(1280, 860) as browser:
        page = Path(folder) / "page.html"
        write_page(run, page)
        prefer(browser, "light")
        browser.get(page.as_uri())
        browser.execute_script("pick(cut.order[0])")
        browser.save_screenshot(str(path))
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def inspected(run: Path) -> str:
    """What `rlcsd inspect RUN` prints."""
    with redirect_stdout(io.StringIO()) as printed:
        command(["inspect", str(run)])
    return printed.getvalue().strip()


def write_gallery(folder: Path, docs: Path) -> None:
    """The page and its images in `docs`, from the runs in `folder`."""
    images = docs / "gallery"
    images.mkdir(exist_ok=True)
    first = folder / f"{METHODS[0]}-{SEEDS[0]}"
    runs = read_runs([folder])
    draw_dynamics(Logs.read(first), images / "dynamics.png")
    draw_comparison(runs, images / "comparison.png")
    for name in ("dynamics", "comparison"):
        (images / f"{name}.svg").unlink()  # the page shows the PNG alone
    if found():
        picture(first, images / "page.png")
    parts = {
        "SHORT": SHORT,
        "COMPARISON": written(comparison(runs), "markdown"),
        "DIFFERENCES": written(differences(runs, "grpo"), "markdown"),
        "RESULTS": written(results(runs), "markdown"),
        "INSPECT": inspected(first),
    }
    text = (Path(__file__).parent / "gallery.md").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    write_text(docs / "gallery.md", text)
    for path in images.glob("*.png"):
        if path.stat().st_size > LARGEST:
            raise SystemExit(f"{path} has {path.stat().st_size} bytes, more than {LARGEST}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--smoke", action="store_true", help="two runs of one step; writes nothing")
    arguments = parser.parse_args()
    if not arguments.smoke:
        train(arguments.runs, SEEDS, [])
        write_gallery(arguments.runs, arguments.docs)
        return
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "runs", SEEDS[:1], SMOKE)
        write_gallery(Path(folder) / "runs", Path(folder))


if __name__ == "__main__":
    main()

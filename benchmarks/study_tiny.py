"""Methods against each other on the embedded default: several seeds, everything else equal.

    python benchmarks/study_tiny.py --out runs/study --seeds 100 101 102 103 --variant grpo --variant rlcsd

A variant is a method, or a name and overrides: `--variant "rlcsd-plain: method=rlcsd method.unusable=plain"`. Two runs
go at a time with one thread each. Prints the comparison table and writes it, with a figure, into the folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlcsd.report.compare import RunRecord, comparison_table, draw_comparison, read_run


def parse(variant: str) -> tuple[str, list[str]]:
    name, colon, overrides = variant.partition(":")
    return name.strip(), overrides.split() if colon else [f"method={name.strip()}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--variant", action="append", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--common", nargs="*", default=[], help="overrides for every run")
    arguments = parser.parse_args()
    jobs = [(name, overrides, seed) for seed in arguments.seeds for name, overrides in map(parse, arguments.variant)]

    def run(job: tuple[str, list[str], int]) -> RunRecord:
        name, overrides, seed = job
        folder = arguments.out / f"{name}-{seed}"
        if not (folder / "report.md").is_file():
            command = [sys.executable, "-m", "rlcsd.cli", "train", *arguments.common, *overrides, f"seed={seed}"]
            fixed = [
                f"output_dir={arguments.out}",
                f"run_name={folder.name}",
                "engine.threads=1",
                "trackers=[]",
                "log_rollouts=0",
            ]
            subprocess.run([*command, *fixed, "figures=false"], check=True, stdout=subprocess.DEVNULL)
        found = read_run(folder)
        return RunRecord(name, seed, found.metrics, found.evaluations)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        records = list(pool.map(run, jobs))
    table = comparison_table(records)
    print(table)
    (arguments.out / "comparison.md").write_text(table + "\n", encoding="utf-8")
    draw_comparison(records, arguments.out / "comparison.png")


if __name__ == "__main__":
    main()

"""Run a study, or go on with it: finished runs are skipped.

    python benchmarks/study/run.py drift --out runs/study --jobs 2
    python benchmarks/study/run.py credit --out runs/study --arms grpo oracle rlcsd --seeds 201 202

`report.py` gathers the records into docs/study/ and draws tables and figures from there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runner import run_study
from studies import STUDIES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--arms", nargs="*", default=[], help="default: all, in the order of the study")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="default: those of the study")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    unknown = sorted(set(arguments.arms) - {arm.name for arm in study.arms})
    if unknown:
        parser.error(f"--arms {unknown[0]}: known are {', '.join(arm.name for arm in study.arms)}")
    run_study(study, arguments.out, arguments.arms, arguments.seeds, arguments.jobs)


if __name__ == "__main__":
    main()

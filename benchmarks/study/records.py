"""The finished runs of the studies as small records: `docs/study/STUDY.jsonl`, one line for each arm and seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlcsd.storage import write_text

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = DOCS / "study"

Record = dict[str, Any]
Runs = dict[str, dict[int, Record]]  # by arm, then seed


def load(name: str) -> Runs:
    """The records of a study, its arms in the order of the file."""
    path = RECORDS / f"{name}.jsonl"
    found: Runs = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        record = json.loads(line)
        found[record["arm"]][record["seed"]] = record
    return dict(found)


def collect(out: Path, names: Iterable[str]) -> None:
    """The records that `run.py` has left below `out` into docs/study, where they replace those of the same run."""
    for name in names:
        runs = load(name)
        for path in sorted((out / name).glob("*.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            runs.setdefault(record["arm"], {})[record["seed"]] = record
        lines = [json.dumps(runs[arm][seed]) for arm in sorted(runs) for seed in sorted(runs[arm])]
        if lines:
            RECORDS.mkdir(exist_ok=True)
            write_text(RECORDS / f"{name}.jsonl", "\n".join(lines) + "\n")

"""What the paper reports, as data: the authors' figures on their hardware, which this project has not repeated.

RLCSD (arXiv 2606.11709): accuracy in %, mean@12 on the mathematics sets and pass@1 on the puzzles.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...storage import read_jsonl

COLUMNS = ("amc23", "aime24", "aime25", "math_avg", "kk_4to8", "kk_9", "kk_10", "kk_11", "logic_avg")
AVERAGES = {"math_avg": COLUMNS[:3], "logic_avg": COLUMNS[4:8]}
MODELS = {
    "Qwen/Qwen3-1.7B": "Qwen3-1.7B",
    "Qwen/Qwen3-4B": "Qwen3-4B",
    "Qwen/Qwen3-8B": "Qwen3-8B",
    "allenai/Olmo-3-7B-Think": "Olmo-3-7B",
}
# What the sets of a run are called: those of the authors' files, or those of puzzles that a run has generated.
_OWN_SETS = {"kk_4to8": ("kk_4to8_test", "seen_sizes")} | {
    f"kk_{size}": (f"kk_{size}", f"unseen_sizes: {size} people") for size in (9, 10, 11)
}
_PUBLISHED_SIZES = [4, 5, 6, 7, 8]  # of people in what a run calls its seen sizes, if they are those of kk_4to8
_SOURCE = "The authors' figures are the paper's (arXiv 2606.11709), on their hardware; they were not repeated here."


@dataclass(frozen=True)
class Published:
    """One row of the paper's main table: accuracy in % by evaluation set. The method `base` is the model untrained."""

    model: str
    method: str
    accuracy: Mapping[str, float]


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_results() -> list[Published]:
    """The paper's main table: four models, seven methods (`base` among them), nine columns (`COLUMNS`).

    The averages are as printed; three of them are further from the mean of their columns than rounding explains.
    """
    return [
        Published(row["model"], row["method"], {name: float(row[name]) for name in COLUMNS})
        for row in _rows("results.csv")
    ]


def published_gains() -> dict[str, dict[str, float]]:
    """For Qwen3-4B and each method: what the contrast gains over the better one-sided source of hints, in points.

    The keys of a method are `math_avg` and `kk_avg`.
    """
    return {
        row["method"]: {"math_avg": float(row["math_avg_gain"]), "kk_avg": float(row["kk_avg_gain"])}
        for row in _rows("plugin.csv")
    }


# ------------------------------------------------------------------ beside one's own runs


def own_results(folders: Sequence[Path]) -> list[Published]:
    """Evaluations of runs in the columns of the paper, runs of one model and method averaged.

    That is the last after training for the method, and that before it for `base`.

    Raises:
        InputError: a folder holds no run.
    """
    found: dict[tuple[str, str], list[Mapping[str, float]]] = defaultdict(list)
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise InputError(f"{folder}: there is no run here (no config.yaml)")
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        path = str(config["model"]["path"])
        records = read_jsonl(folder / "evaluations.jsonl")
        seen = config["task"].get("train_sizes") == _PUBLISHED_SIZES
        by_method = {
            "base": [record for record in records if record["step"] == 0],
            str(config["method"]["name"]): [record for record in records if record["step"]],
        }
        for method, some in by_method.items():
            if some:
                found[MODELS.get(path, path), method].append(_columns(some[-1], seen))
    results = []
    for (model, method), runs in found.items():
        means = {name: [run[name] for run in runs if name in run] for name in COLUMNS}
        results.append(Published(model, method, {name: sum(v) / len(v) for name, v in means.items() if v}))
    return results


def _columns(record: Mapping[str, Any], seen: bool) -> dict[str, float]:
    """Accuracy by column; `seen`: the run's seen sizes are those of the paper."""
    means = {one["name"]: 100 * one["mean"] for one in record.get("sets", []) if seen or one["name"] != "seen_sizes"}
    columns = {}
    for name in COLUMNS:
        own = next((each for each in _OWN_SETS.get(name, (name,)) if each in means), None)
        if own is not None:
            columns[name] = means[own]
    for average, parts in AVERAGES.items():
        if all(part in columns for part in parts):
            columns[average] = sum(columns[part] for part in parts) / len(parts)
    return columns


def published_tables(folders: Sequence[Path] = ()) -> str:
    """The authors' tables in Markdown, with a line of one's own below each method and model that was run.

    With runs of models that the paper has, the tables are of those models alone.
    """
    own = {(one.model, one.method): one for one in own_results(folders)}
    models = {model for model, _ in own if model in MODELS.values()} or set(MODELS.values())
    lines = [
        "Accuracy in %: mean@12 on amc23, aime24 and aime25, pass@1 on puzzles. " + _SOURCE,
        "",
        f"| model | method | figures of | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 3) + "|",
    ]
    told = [one for one in published_results() if one.model in models]
    for one in told:
        lines.append(_line(one, "the authors"))
        if (one.model, one.method) in own:
            lines.append(_line(own.pop((one.model, one.method)), "own runs"))
    lines += [_line(one, "own runs") for one in own.values()]
    if MODELS["Qwen/Qwen3-4B"] in models:
        lines += [
            "",
            "Gain of the contrast over the better one-sided source of hints, in points, Qwen3-4B (the authors):",
            "",
            "| method | math_avg | kk_avg |",
            "|---|---|---|",
        ]
        for name, gain in published_gains().items():
            lines.append(f"| {name} | {gain['math_avg']:+.1f} | {gain['kk_avg']:+.1f} |")
    return "\n".join(lines)


def _line(one: Published, whose: str) -> str:
    cells = [f"{one.accuracy[name]:.1f}" if name in one.accuracy else "" for name in COLUMNS]
    return f"| {one.model} | {one.method} | {whose} | {' | '.join(cells)} |"

"""The paper's reported accuracies as data, and a table of them beside one's own runs.

They are the authors' figures on their hardware, which this project has not repeated: the tables of June 2026, and the
revised ones of August, which correct some cells and add rows of rlcsd with the data set's solution as the hint.

RLCSD (arXiv 2606.11709): accuracy in %, mean@12 on the mathematics sets and pass@1 on the puzzles.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import InputError
from ..comparison import Table, written
from ..run_results import RunResult, accuracies, all_sets, cells, different_start, progress_notes, read_run

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
_SEEN_SIZES = [4, 5, 6, 7, 8]  # people in the puzzles of the paper's column kk_4to8
Edition = Literal["2026-06", "2026-08"]  # the authors' tables by month; the later one is a revision
_SOURCE = "The authors' figures are the paper's (arXiv 2606.11709), on their hardware; they were not repeated here."
_ARROW = (
    "`a → b`: a in the tables of June 2026, b in the revised ones of August, which alone have rows of `rlcsd gt_cot`."
)
# How the figures came about, as far as the authors have said. github.com/THU-BPM/RLCSD, issues 1 and 6.
SELECTION = (
    "Selection: each cell is the best checkpoint of its own benchmark, chosen on that test set (the authors' answer in "
    "THU-BPM/RLCSD issue 1), so cells of one row may be of different checkpoints; own runs are the last evaluation."
)
ALIGNMENT = (
    "Alignment: teachers' log-probs were read at shifted positions in almost every micro-batch until commit 83bbd06 of "
    "2026-08-20 (THU-BPM/RLCSD issue 6); both tables predate the fix, and no rerun is known."
)
_GT_COT = "rlcsd gt_cot"  # rlcsd with the data set's solution as the correct hint


@dataclass(frozen=True)
class Published:
    """One row of the paper's main table: accuracy in % by evaluation set. The method `base` is the model untrained."""

    model: str
    method: str
    accuracy: Mapping[str, float]


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def published_results(edition: Edition = "2026-08") -> list[Published]:
    """The paper's main table: four models, nine columns (`COLUMNS`), and by model the methods `base`, `grpo`, `opsd`,
    `sdpo`, `srpo`, `rlsd` and `rlcsd`; in August also `rlcsd gt_cot`.

    The averages are as printed; three of June's are further from the mean of their columns than rounding explains.
    """
    return [
        Published(row["model"], row["method"], {name: float(row[name]) for name in COLUMNS})
        for row in _rows(f"results_{edition}.csv")
    ]


def published_gains(edition: Edition = "2026-08") -> dict[str, dict[str, float]]:
    """For Qwen3-4B and each method: what the contrast gains over the better one-sided source of hints, in points.

    The keys of a method are `math_avg` and `kk_avg`.
    """
    return {
        row["method"]: {"math_avg": float(row["math_avg_gain"]), "kk_avg": float(row["kk_avg_gain"])}
        for row in _rows(f"plugin_{edition}.csv")
    }


# ------------------------------------------------------------------ beside one's own runs


def published_tables(folders: Sequence[Path] = ()) -> str:
    """The authors' tables in Markdown, with a line of one's own below each method and model that was run.

    A revised cell shows both values. With runs of models that the paper has, the tables are of those models alone.

    Raises:
        InputError: a folder holds no run, or the runs of one line differ in more than the seed.
    """
    runs = [read_run(folder) for folder in folders]
    own = {(one.model, one.method): one for one in own_results(runs)}
    shown = set(own)
    models = {model for model, _ in own if model in MODELS.values()} or set(MODELS.values())
    june = {(one.model, one.method): one.accuracy for one in published_results("2026-06")}
    rows = []
    for published in published_results():
        if published.model in models:
            rows.append(_row(published, "the authors", june.get((published.model, published.method), {})))
            if (published.model, published.method) in own:
                rows.append(_row(own.pop((published.model, published.method)), "own runs"))
    rows += [_row(one, "own runs") for one in own.values()]
    notes = [*progress_notes(cells(runs, _model_and_method, _REMEDY)), *_left_out(runs, shown)]
    table = Table(["model", "method", "figures of", *COLUMNS], rows, notes=notes)
    lines = [
        f"Accuracy in %: the authors' mean@12 on amc23, aime24 and aime25, pass@1 on puzzles{_samples(runs)}. "
        f"{_SOURCE} {_ARROW}",
        SELECTION,
        ALIGNMENT,
        written(table, "markdown"),
    ]
    if MODELS["Qwen/Qwen3-4B"] in models:
        before = published_gains("2026-06")
        gains = [
            [name, *(_revised(before[name][of], gain[of], "+.1f") for of in ("math_avg", "kk_avg"))]
            for name, gain in published_gains().items()
        ]
        lines += [
            "Gain of the contrast over the better one-sided source of hints, in points, Qwen3-4B (the authors):",
            written(Table(["method", "math_avg", "kk_avg"], gains), "markdown"),
        ]
    return "\n\n".join(lines)


def _samples(runs: Sequence[RunResult]) -> str:
    """How many responses to a problem own accuracies are means of."""
    counts = sorted({run.config["evaluation.samples"] for run in runs})
    return f"; own runs' mean@{' and '.join(map(str, counts))}" if counts else ""


def _left_out(runs: Sequence[RunResult], shown: set[tuple[str, str]]) -> list[str]:
    """A note on evaluated runs without any of the paper's columns."""
    names = [
        f"{run.folder.name} ({', '.join(all_sets([run], average=False))})"
        for run in runs
        if run.after is not None and _model_and_method(run) not in shown
    ]
    return [f"Without a line, as no set of theirs is a column of the paper: {'; '.join(names)}."] if names else []


def _row(one: Published, source: str, earlier: Mapping[str, float] | None = None) -> list[str | None]:
    """A line of the table; where `earlier`, the same line of an earlier table, has another figure, both."""
    known = {**one.accuracy, **(earlier or {})}
    figures = [_revised(known[name], one.accuracy[name], ".1f") if name in one.accuracy else "" for name in COLUMNS]
    return [one.model, one.method, source, *figures]


def _revised(before: float, after: float, form: str) -> str:
    return f"{after:{form}}" if before == after else f"{before:{form}} → {after:{form}}"


def own_results(runs: Sequence[RunResult]) -> list[Published]:
    """Evaluations of runs in the columns of the paper, the seeds of one model and method averaged.

    That is the last after training for the method, and that before it for `base`.

    Raises:
        InputError: runs of one model and method differ in more than the seed, or those of one model in what its
            accuracy before training depends on.
    """
    results = []
    for model in dict.fromkeys(_model(run) for run in runs):
        of_model = [run for run in runs if _model(run) == model]
        before = [run for run in of_model if run.before is not None]
        if key := different_start(before):
            raise InputError(
                f"--published: the runs of {model} differ in {key}, so their accuracies before training have no common "
                "mean; name the runs of one experiment"
            )
        results.append(Published(model, "base", _accuracy(before, trained=False)))
        for (_, method), members in cells(of_model, _model_and_method, _REMEDY).items():
            results.append(Published(model, method, _accuracy(members, trained=True)))
    return [one for one in results if one.accuracy]


_REMEDY = "name the runs of one experiment"


def _model(run: RunResult) -> str:
    path = str(run.config["model.path"])
    return MODELS.get(path, path)


def _model_and_method(run: RunResult) -> tuple[str, str]:
    solutions = run.method == "rlcsd" and run.config.get("method.hint_source") == "gt_cot"
    return _model(run), _GT_COT if solutions else run.method


def _accuracy(runs: Sequence[RunResult], trained: bool) -> dict[str, float]:
    """Accuracy in % by column, the mean over seeds; the averages of the paper where all of their columns are there.

    The seen sizes of generated puzzles are the column `kk_4to8` only if they are 4 to 8 people.
    """
    columns = {}
    for column in COLUMNS:
        for name in _OWN_SETS.get(column, (column,)):
            shown = [run for run in runs if name != "seen_sizes" or run.config.get("task.train_sizes") == _SEEN_SIZES]
            by_seed = accuracies(shown, name, trained)
            if by_seed and column not in columns:
                columns[column] = 100 * sum(by_seed.values()) / len(by_seed)
    for average, parts in AVERAGES.items():
        if all(part in columns for part in parts):
            columns[average] = sum(columns[part] for part in parts) / len(parts)
    return columns

"""A table of texts and estimates, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import InputError
from .figures import draw_comparison
from .run_results import RunResult, accuracies, all_sets, by_label, curve, read_run
from .statistics import Difference, Estimate, holm, mean_interval, paired_difference

Format = Literal["markdown", "csv", "latex"]
Cell = str | Estimate | None
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Rows of cells under `head`. Estimates are multiplied by `scale` and written with `digits` decimals."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    scale: float = 1.0
    digits: int = 3
    signed: bool = False
    note: str = ""


def written(table: Table, form: Format) -> str:
    """The table as text. CSV gives the half-width of an interval a column of its own."""
    return {"markdown": _markdown, "csv": _csv, "latex": _latex}[form](table)


def _number(value: float, table: Table, sign: bool) -> str:
    return f"{value * table.scale:{'+' if sign else ''}.{table.digits}f}"


def _text(cell: Cell, table: Table) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    mean = _number(cell.mean, table, table.signed)
    return mean if cell.half is None else f"{mean} ± {_number(cell.half, table, False)}"


def _markdown(table: Table) -> str:
    rows = [[_text(cell, table).replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(table.head) + "|")
    return "\n".join([*lines, *(["", table.note] if table.note else [])])


def _csv(table: Table) -> str:
    places = range(len(table.head))
    wide = [place for place in places if any(isinstance(row[place], Estimate) for row in table.rows)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for place in places for name in _names(table.head[place], place in wide)])
    for row in table.rows:
        writer.writerow([text for place in places for text in _fields(row[place], place in wide, table)])
    return out.getvalue().rstrip("\n")


def _names(name: str, wide: bool) -> list[str]:
    return [name, f"{name} ±"] if wide else [name]


def _fields(cell: Cell, wide: bool, table: Table) -> list[str]:
    if not isinstance(cell, Estimate):
        return [cell or "", *([""] if wide else [])]
    return [_number(cell.mean, table, False), "" if cell.half is None else _number(cell.half, table, False)]


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "−": "$-$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _latex(table: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        return " & ".join("".join(_SPECIAL.get(c, c) for c in _text(cell, table)) for cell in cells) + r" \\"

    numeric = [any(isinstance(row[place], Estimate) for row in table.rows) for place in range(len(table.head))]
    columns = "".join("r" if one else "l" for one in numeric)
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.head), r"\midrule"]
    bottom = [r"\bottomrule", r"\end{tabular}", *([f"% {table.note}"] if table.note else [])]
    return "\n".join([*top, *map(line, table.rows), *bottom])


# ------------------------------------------------------------------ compare
# Several runs side by side: accuracy over seeds, paired differences to a baseline, and the paper's tables.

__all__ = [
    "RunRecord",
    "comparison",
    "comparison_table",
    "differences",
    "draw_comparison",
    "hint_sources",
    "read_run",
    "results",
]

Pairing = Literal["auto", "seed", "problem"]
_ENOUGH_SEEDS = 4  # fewer give intervals of a t-distribution with 2 degrees of freedom or less, which decide nothing
_FAMILIES = {"opsd_ectr": "opsd", "rlsd_ectr": "rlsd", "opd_ectr": "opd"}  # a method and its plug-in variant
_LAST = 5  # steps whose mean stands for the end of a curve


def comparison(runs: Sequence[RunResult]) -> Table:
    """One row per label: accuracy before and after on each set, final entropy and length; mean ± 95 % over seeds."""
    names = all_sets(runs)
    head = ["run", "seeds", *(f"{name}, {when}" for name in names for when in ("before", "after"))]
    rows: list[list[Cell]] = []
    for label, members in by_label(runs).items():
        cells: list[Cell] = [label, str(len(members))]
        for name in names:
            cells += [_estimate(accuracies(members, name, trained).values()) for trained in (False, True)]
        ends = [[_end(run, metric) for run in members] for metric in ("actor/entropy", "rollout/length")]
        cells.append(_estimate([value for value in ends[0] if value is not None]))
        cells.append(_rounded([value for value in ends[1] if value is not None]))
        rows.append(cells)
    return Table([*head, "entropy, end", "length, end"], rows)


def comparison_table(runs: Sequence[RunResult]) -> str:
    """`comparison` as Markdown."""
    return written(comparison(runs), "markdown")


def differences(runs: Sequence[RunResult], baseline: str, pairing: Pairing = "auto") -> Table:
    """How much more accurate each other label is than `baseline` after training, on each set.

    Paired by seed (t-test over the seeds that both have) or by problem (outcomes averaged over each label's runs,
    bootstrap and random signs); `auto` takes seeds from four common ones on. The last column corrects for the number of
    tests (Holm).

    Raises:
        InputError: no run has the label `baseline`, or nothing can be paired as asked.
    """
    grouped = by_label(runs)
    if baseline not in grouped:
        raise InputError(f"--baseline {baseline}: no run is labelled so; the labels are {', '.join(grouped)}")
    found: list[tuple[str, str, Difference, str]] = []
    for label, members in grouped.items():
        for name in all_sets(runs) if label != baseline else []:
            paired = _paired(members, grouped[baseline], name, pairing)
            if paired is not None:
                found.append((label, name, *paired))
    if not found:
        raise InputError(
            f"--baseline {baseline}: nothing can be paired{'' if pairing == 'auto' else f' by {pairing}'}; runs need a "
            "common seed, or evaluations with the outcome of each problem"
        )
    corrected = holm([difference.p for _, _, difference, _ in found])
    rows = [
        [label, name, f"{d.mean:+.3f}", _interval(d), _p(d.p), _p(p), f"{d.count} {unit}"]
        for (label, name, d, unit), p in zip(found, corrected, strict=True)
    ]
    head = ["run", "set", f"minus {baseline}", "95 %", "p", "p (Holm)", "pairs"]
    note = "Pairs of problems show whether these very runs differ; they say nothing about other seeds."
    return Table(head, rows, note=note if any(unit == "problems" for *_, unit in found) else "")


def results(runs: Sequence[RunResult]) -> Table:
    """The paper's main table: a row for each model and method, base first; a column for each evaluation set, in %."""
    names = all_sets(runs)
    rows: list[list[Cell]] = []
    for model, of_model in _by_key(runs, "model.path").items():
        rows.append([model, "base", *(_estimate(accuracies(of_model, n, trained=False).values()) for n in names)])
        for label, members in by_label(of_model).items():
            rows.append([model, label, *(_estimate(accuracies(members, n).values()) for n in names)])
    return Table(["model", "method", *map(_title, names)], rows, scale=100, digits=1)


def hint_sources(runs: Sequence[RunResult]) -> Table:
    """The plug-in table: a row for each family of methods and a column for each source of hints, in %.

    Accuracy is averaged over the sets. A contrastive variant (`rlsd_ectr`) stands in the row of its method (`rlsd`).

    Raises:
        InputError: no run has hints.
    """
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        source = _source(run.config)
        values = [run.evaluations[name][-1][1] for name in run.sets]
        if source is not None and values:
            method = str(run.config["method.name"])
            cells[_FAMILIES.get(method, method)][source][run.seed] = float(np.mean(values))
    if not cells:
        raise InputError("--table hints: none of these runs shows its teacher a hint")
    known = dict.fromkeys((*_SOURCES.values(), *_CONTRASTS.values()))
    order = [source for source in known if any(source in row for row in cells.values())]
    rows = [[family, *(_estimate(row.get(s, {}).values()) for s in order)] for family, row in cells.items()]
    return Table(["method", *order], rows, scale=100, digits=1)


_SOURCES = {
    "answer_only": "data set's answer",
    "gt_cot": "data set's solution",
    "own_rollout": "own correct rollout",
    "self_rollout": "own correct rollout",
}
_CONTRASTS = {"gt_cot": "data set's solution + contrast", "self_rollout": "own rollouts + contrast"}


def _source(config: Mapping[str, object]) -> str | None:
    names = _CONTRASTS if "method.k_max" in config else _SOURCES
    return names.get(str(config.get("method.hint_source")))


def _paired(
    members: Sequence[RunResult], base: Sequence[RunResult], name: str, pairing: Pairing
) -> tuple[Difference, str] | None:
    ours, theirs = accuracies(members, name), accuracies(base, name)
    seeds, problems = len(ours.keys() & theirs.keys()), (_by_problem(members, name), _by_problem(base, name))
    common = len(problems[0].keys() & problems[1].keys())
    if pairing == "problem" or (pairing == "auto" and seeds < _ENOUGH_SEEDS and common > 1):
        return (paired_difference(*problems, by="resampling"), "problems") if common > 1 else None
    if name == "average" and pairing == "auto" and seeds < _ENOUGH_SEEDS:
        return None  # the average has no problems of its own
    return (paired_difference(ours, theirs), "seeds") if seeds else None


def _by_problem(runs: Sequence[RunResult], name: str) -> dict[object, float]:
    """Problem → share of correct responses, the mean over the runs; empty if a run has no outcomes of this set."""
    sets = [run.outcomes.get(name) for run in runs]
    if not sets or any(one is None for one in sets):
        return {}
    known = [one for one in sets if one is not None]
    common = set.intersection(*(set(one) for one in known))
    return {problem: float(np.mean([one[problem] for one in known])) for problem in sorted(common)}


def _by_key(runs: Sequence[RunResult], key: str) -> dict[str, list[RunResult]]:
    grouped: dict[str, list[RunResult]] = defaultdict(list)
    for run in runs:
        grouped[str(run.config.get(key, ""))].append(run)
    return dict(grouped)


def _estimate(values: Iterable[float]) -> Estimate | None:
    known = list(values)
    return mean_interval(known) if known else None


def _end(run: RunResult, metric: str) -> float | None:
    values = curve(run.metrics, metric)[1]
    return float(np.mean(values[-_LAST:])) if values else None


def _rounded(values: Sequence[float]) -> Cell:
    found = _estimate(values)
    if found is None:
        return None
    return f"{found.mean:.0f}" if found.half is None else f"{found.mean:.0f} ± {found.half:.0f}"


def _interval(difference: Difference) -> str | None:
    if difference.low is None or difference.high is None:
        return None
    return f"{difference.low:+.3f} to {difference.high:+.3f}"


def _p(value: float | None) -> str | None:
    return None if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _title(name: str) -> str:
    """`amc23` → `AMC23`, `unseen_sizes: 9 people` → `9 people`."""
    short = name.partition(": ")[2] or name
    return short.upper() if short.isalnum() and any(c.isdigit() for c in short) else short

"""Tables of several runs: accuracy over seeds, paired differences to a baseline, and the paper's tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from ..errors import InputError
from .figures import draw_comparison
from .run_results import (
    RunResult,
    accuracies,
    all_sets,
    by_label,
    cells,
    curve,
    different_start,
    evaluation_notes,
    level,
    method_label,
    progress_notes,
    read_runs,
)
from .statistics import Difference, Estimate, holm, mean_interval, paired_difference

Pairing = Literal["auto", "seed", "problem"]
Format = Literal["markdown", "csv", "latex"]
Cell = str | Estimate | None
NOTHING = "–"

_ENOUGH_SEEDS = 4  # fewer give intervals of a t-distribution with 2 degrees of freedom or less, which decide nothing
_FAMILIES = {"opsd_ectr": "opsd", "rlsd_ectr": "rlsd", "opd_ectr": "opd"}  # a method and its plug-in variant
_LAST = 5  # steps whose mean stands for the end of a curve


@dataclass(frozen=True)
class Comparison:
    """Several runs as tables. As text it is what `rlcsd compare` prints; a notebook shows it as Markdown."""

    runs: Sequence[RunResult]
    tables: Sequence[Table]

    @property
    def notes(self) -> list[str]:
        """What a reader of the tables has to know, such as runs that learned nothing or are behind others."""
        return list(dict.fromkeys(note for table in self.tables for note in table.notes))

    def written(self, form: Format = "markdown") -> str:
        """The tables as `markdown` or `latex`; as `csv`, which holds one table, the last: that of the differences if
        there is a baseline."""
        tables = self.tables[-1:] if form == "csv" else self.tables
        return "\n\n".join(written(table, form) for table in tables)

    def plot(self, path: str | Path | None = None) -> Any:
        """Curves and accuracies as a matplotlib figure, which a notebook shows; also saved to `path`, if given."""
        return draw_comparison(self.runs, None if path is None else Path(path))

    def __str__(self) -> str:
        return self.written()

    __repr__ = _repr_markdown_ = __str__


Chosen = TypeVar("Chosen")


def compare(
    runs: Any,
    by: Sequence[str] | None = None,
    baseline: str | None = None,
    pairing: Pairing = "auto",
    table: Literal["runs", "results", "hints"] = "runs",
) -> Comparison:
    """Several runs side by side, as of `rlcsd compare`.

    >>> import rlcsd
    >>> found = rlcsd.compare("runs")
    >>> print(found.written("csv").splitlines()[1].split(",")[:2])
    ['opsd', '1']

    Args:
        runs: a run, or a folder of runs (a path or a `Result`), or a list of them.
        by: config keys that label a run; by default the method, and what else differs but the seed.
        baseline: a label; adds the paired differences to its runs, with p-values.
        pairing: of the differences: by seed, by problem, or auto: by seed from four common seeds on.
        table: `runs`: before and after; `results`: models and methods by set; `hints`: methods by source of hints.

    Raises:
        InputError: a folder without runs, or runs that cannot be compared so.
    """
    several = [runs] if isinstance(runs, str | Path) or hasattr(runs, "folder") else list(runs)
    found = read_runs([Path(getattr(run, "folder", run)) for run in several], by)
    tables = [_one_of("table", {"runs": comparison, "results": results, "hints": hint_sources}, table)(found)]
    if baseline is not None:
        tables.append(differences(found, baseline, pairing))
    return Comparison(found, tables)


# ------------------------------------------------------------------ tables of runs


def comparison(runs: Sequence[RunResult]) -> Table:
    """One row per label: updates, accuracy before and after on each set, final entropy and length; mean ± 95 % over
    seeds."""
    names, grouped = all_sets(runs), by_label(runs)
    head = ["run", "seeds", "updates", *(f"{name}, {when}" for name in names for when in ("before", "after"))]
    rows: list[list[Cell]] = []
    for label, members in grouped.items():
        row: list[Cell] = [label, str(len(members)), _updates(members)]
        for name in names:
            row += [_estimate(accuracies(members, name, trained).values()) for trained in (False, True)]
        row += [_estimate(_ends(members, "actor/entropy")), _rounded(_ends(members, "rollout/length"))]
        rows.append(row)
    return Table([*head, "entropy, end", "length, end"], rows, notes=_notes(rows, grouped))


def differences(runs: Sequence[RunResult], baseline: str, pairing: Pairing = "auto") -> Table:
    """How much more accurate each other label is than `baseline` after training, on each set.

    Paired by seed (t-test over the seeds that both have) or by problem (outcomes averaged over each label's runs,
    sign-flip test); `auto` takes seeds from four common ones on. There is no difference of averages over different
    sets. The last column but one corrects for the number of tests (Holm).

    Raises:
        InputError: no run has the label `baseline`, or nothing can be paired as asked.
    """
    grouped = by_label(runs)
    if baseline not in grouped:
        raise InputError(f"--baseline {baseline}: no run is labelled so; the labels are {', '.join(grouped)}")
    base = grouped.pop(baseline)
    found: list[tuple[str, str, Difference, str]] = []
    for label, members in grouped.items():
        same = set(all_sets(level(members), average=False)) == set(all_sets(level(base), average=False))
        for name in all_sets(runs, average=same):
            paired = _paired(members, base, name, pairing)
            if paired is not None:
                found.append((label, name, *paired))
    if not found:
        raise InputError(
            f"--baseline {baseline}: nothing can be paired{'' if pairing == 'auto' else f' by {pairing}'}; runs need a "
            "common seed, or evaluations after training with the outcome of each problem"
        )
    corrected = holm([difference.p for _, _, difference, _ in found])
    rows = [
        [label, name, f"{d.mean:+.3f}", _interval(d), _p(d.p), _p(p), f"{d.count} {unit}"]
        for (label, name, d, unit), p in zip(found, corrected, strict=True)
    ]
    head = ["run", "set", f"minus {baseline}", "95 %", "p", "p (Holm)", "pairs"]
    grouped = {baseline: base, **grouped}
    notes = [*progress_notes(grouped), *evaluation_notes(grouped)]
    if any(unit == "problems" for *_, unit in found):
        notes.append("Pairs of problems show whether these very runs differ; they say nothing about other seeds.")
    reasons = dict.fromkeys(d.missing for _, _, d, _ in found if d.missing)
    notes += [f"No interval and no p-value where {reason}." for reason in reasons]
    return Table(head, rows, notes=notes)


def results(runs: Sequence[RunResult]) -> Table:
    """The paper's main table: a row for each model and method, base first; a column for each evaluation set, in %.

    Raises:
        InputError: runs of one model differ in what its accuracy before training depends on.
    """
    names, rows = all_sets(runs), []
    models = dict.fromkeys(str(run.config.get("model.path", "")) for run in runs)
    for model in models:
        of_model = [run for run in runs if str(run.config.get("model.path", "")) == model]
        if any(run.before is not None for run in of_model) and (key := different_start(of_model)):
            raise InputError(
                f"--table results: the runs of {model} differ in {key}, so they have no common accuracy before "
                "training for the row `base`; make a table of each"
            )
        rows.append([model, "base", *(_estimate(accuracies(of_model, n, trained=False).values()) for n in names)])
        for label, members in by_label(of_model).items():
            rows.append([model, label, *(_estimate(accuracies(members, n).values()) for n in names)])
    head = ["model", "method", *map(_title, names)]
    return Table(head, rows, scale=100, digits=1, notes=_notes(rows, by_label(runs)))


def hint_sources(runs: Sequence[RunResult]) -> Table:
    """The plug-in table: a row for each family of methods and a column for each source of hints, in %.

    Accuracy is averaged over the sets. A contrastive variant (`rlsd_ectr`) stands in the row of its method (`rlsd`),
    and so does a contrastive method that was run with the correct hint alone. Several models have rows of their own.

    Raises:
        InputError: no run has hints, or two runs of a cell differ in more than the seed.
    """
    hinted = [run for run in runs if _source(run) is not None]
    if not hinted:
        raise InputError("--table hints: none of these runs shows its teacher a hint")
    grouped = cells(hinted, lambda run: (*_row(run), _source(run)), "compare them in tables of their own")
    order = [source for source in (*_ONE_SIDED, *_CONTRASTED) if any(key[-1] == source for key in grouped)]
    several = len({model for model, *_ in grouped}) > 1
    rows: list[list[Cell]] = []
    for model, family in dict.fromkeys((model, family) for model, family, _ in grouped):
        found = [grouped.get((model, family, source), []) for source in order]
        rows.append([*([model] if several else []), family, *(_estimate(_averages(members)) for members in found)])
    head = [*(["model"] if several else []), "method", *(_SOURCES[source] for source in order)]
    return Table(head, rows, scale=100, digits=1, notes=_notes(rows, grouped))


_ONE_SIDED = ("answer_only", "gt_cot", "self_rollout")  # as `method.hint_source` has them
_CONTRASTED = ("gt_cot + contrast", "self_rollout + contrast")
_SOURCES = {
    "answer_only": "data set's answer",
    "gt_cot": "data set's solution",
    "self_rollout": "own correct rollout",
    "gt_cot + contrast": "data set's solution + contrast",
    "self_rollout + contrast": "own rollouts + contrast",
}


def _row(run: RunResult) -> tuple[str, str]:
    """Model and family of methods."""
    method = str(run.config["method.name"])
    if run.config.get("method.evidence") == "one_sided":  # rlcsd with the correct hint alone, a form of rlcsd_extended
        method = method.removesuffix("_extended")
    label = method_label(_FAMILIES.get(method, method), run.config.get("method.objective"))
    return str(run.config.get("model.path", "")), label


def _source(run: RunResult) -> str | None:
    """The column of the plug-in table that a run belongs to; None for hints that are none of these."""
    source = str(run.config.get("method.hint_source")).replace("own_rollout", "self_rollout")
    contrasted = "method.k_max" in run.config and run.config.get("method.evidence") != "one_sided"
    column = f"{source} + contrast" if contrasted else source
    return column if column in _SOURCES else None


def _averages(members: Sequence[RunResult]) -> list[float]:
    points = [run.after for run in level(members)]
    return [point.average for point in points if point is not None and point.average is not None]


def _paired(
    members: Sequence[RunResult], base: Sequence[RunResult], name: str, pairing: Pairing
) -> tuple[Difference, str] | None:
    ours, theirs = accuracies(members, name), accuracies(base, name)
    seeds, problems = len(ours.keys() & theirs.keys()), (_by_problem(members, name), _by_problem(base, name))
    common = len(problems[0].keys() & problems[1].keys())
    if pairing == "problem" or (pairing == "auto" and seeds < _ENOUGH_SEEDS and common > 1):
        return (paired_difference(*problems, by="problem"), "problems") if common > 1 else None
    if name == "average" and pairing == "auto" and seeds < _ENOUGH_SEEDS:
        return None  # the average has no problems of its own
    return (paired_difference(ours, theirs), "seeds") if seeds else None


def _by_problem(runs: Sequence[RunResult], name: str) -> dict[str, float]:
    """Problem → share of correct responses, the mean over the runs; empty if a run has no outcomes of this set."""
    shares = [run.after.outcomes.get(name) for run in level(runs) if run.after is not None]
    known = [one for one in shares if one is not None]
    if not known or len(known) < len(shares):
        return {}
    common = set.intersection(*(set(one) for one in known))
    return {problem: float(np.mean([one[problem] for one in known])) for problem in sorted(common)}


def _updates(members: Sequence[RunResult]) -> str | None:
    """Optimizer steps that changed weights, summed over the runs; None if no log has them."""
    made = sum(run.updates for run in members if run.updates is not None)
    if all(run.updates is None for run in members):
        return None
    return f"{made} (learned nothing)" if not made else str(made)


def _ends(members: Sequence[RunResult], metric: str) -> list[float]:
    """The mean of a metric over the last steps of each run of a group that has come as far as the others."""
    shown = level(members) or members
    curves = [curve(run.metrics, metric) for run in shown]
    last = max((steps[-1] for steps, _ in curves if steps), default=0)
    return [
        float(np.mean(values[-_LAST:]))
        for run, (steps, values) in zip(shown, curves, strict=True)
        if steps and (steps[-1] == last or run.stops_early)
    ]


def _notes(rows: Sequence[Sequence[Cell]], grouped: Mapping[Any, Sequence[RunResult]]) -> list[str]:
    notes = [*progress_notes(grouped), *evaluation_notes(grouped)]
    estimates = [cell for row in rows for cell in row if isinstance(cell, Estimate)]
    without = [cell for cell in estimates if cell.count > 1 and cell.half is None]
    if any(len(cell.values) == 2 and np.ptp(cell.values) > 0 for cell in without):
        notes.append("Two seeds: mean and both values; an interval of two values (one degree of freedom) says nothing.")
    if any(np.ptp(cell.values) == 0 for cell in without):
        notes.append("No ± where all seeds have the same value: their spread is unknown.")
    return notes


def _estimate(values: Iterable[float]) -> Estimate | None:
    known = list(values)
    return mean_interval(known) if known else None


def _rounded(values: Sequence[float]) -> Cell:
    found = _estimate(values)
    return None if found is None else _text(found, Table([], [], digits=0))


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


# ------------------------------------------------------------------ a table as text


@dataclass(frozen=True)
class Table:
    """Rows of cells under `head`. Estimates are multiplied by `scale` and written with `digits` decimals."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    scale: float = 1.0
    digits: int = 3
    notes: Sequence[str] = ()


def written(table: Table, form: Format) -> str:
    """The table as text. CSV gives the half-width of an interval a column of its own, and leaves the notes out."""
    return _one_of("form", {"markdown": _markdown, "csv": _csv, "latex": _latex}, form)(table)


def _one_of(name: str, choices: Mapping[str, Chosen], chosen: str) -> Chosen:
    if chosen not in choices:
        raise InputError(f"{name}={chosen!r}: it is one of {', '.join(choices)}")
    return choices[chosen]


def _number(value: float, table: Table) -> str:
    return f"{value * table.scale:.{table.digits}f}"


def _text(cell: Cell, table: Table) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, str):
        return cell
    mean = _number(cell.mean, table)
    if cell.half is not None:
        return f"{mean} ± {_number(cell.half, table)}"
    both = [_number(value, table) for value in cell.values]
    return f"{mean} ({both[0]}, {both[1]})" if len(both) == 2 and both[0] != both[1] else mean


def _markdown(table: Table) -> str:
    rows = [[_text(cell, table).replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(table.head) + "|")
    return "\n".join([*lines, *(line for note in table.notes for line in ("", note))])


def _csv(table: Table) -> str:
    columns = list(zip(table.head, *table.rows, strict=True))
    out = io.StringIO()
    lines: list[list[str]] = [[] for _ in (table.head, *table.rows)]
    for head, *column in columns:
        wide = any(isinstance(cell, Estimate) for cell in column)
        lines[0] += [str(head), f"{head} ±"] if wide else [str(head)]
        for line, cell in zip(lines[1:], column, strict=True):
            line += _fields(cell, table) if wide else [_fields(cell, table)[0]]
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue().rstrip("\n")


def _fields(cell: Cell, table: Table) -> list[str]:
    if not isinstance(cell, Estimate):
        return [cell or "", ""]
    return [_number(cell.mean, table), "" if cell.half is None else _number(cell.half, table)]


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "−": "$-$", "<": "$<$", ">": "$>$",
}  # fmt: skip


def _latex(table: Table) -> str:
    def line(cells: Sequence[Cell]) -> str:
        return " & ".join("".join(_SPECIAL.get(c, c) for c in _text(cell, table)) for cell in cells) + r" \\"

    numeric = [any(isinstance(cell, Estimate) for cell in column) for column in zip(*table.rows, strict=True)]
    columns = "".join("r" if one else "l" for one in numeric)
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.head), r"\midrule"]
    bottom = [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]
    return "\n".join([*top, *map(line, table.rows), *bottom])

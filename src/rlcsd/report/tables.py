"""A table of texts and estimates, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .statistics import Estimate

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

"""`rlcsd compare`: several runs as tables and a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError


def add_compare_command(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("runs", nargs="*", type=Path, metavar="PARENT|RUN", help="run folders, or folders of runs")
    compare.add_argument("--published", action="store_true", help="the authors' figures, with those of the runs below")
    compare.add_argument(
        "--by",
        nargs="+",
        metavar="KEY",
        help="config keys that label a run; runs of one label count as seeds (default: method.name, and model and task "
        "where they differ)",
    )
    compare.add_argument("--baseline", metavar="LABEL", help="also the paired differences to these runs, with p-values")
    compare.add_argument(
        "--pair",
        choices=("auto", "seed", "problem"),
        default="auto",
        help="how runs are paired; auto: by seed from four common seeds on, otherwise by problem",
    )
    compare.add_argument(
        "--table",
        choices=("runs", "results", "hints"),
        default="runs",
        help="runs: before and after; results: models and methods by evaluation set; hints: methods by source of hints",
    )
    compare.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    compare.add_argument("--figure", type=Path, metavar="FILE", help="a PNG, and an SVG beside it")
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from ..report.compare import comparison, differences, hint_sources, results
    from ..report.overlay import draw_comparison
    from ..report.runs import read_runs
    from ..report.tables import written

    if arguments.published:
        _published(arguments)
        return
    if not arguments.runs:
        raise InputError("compare: at least one run is needed, or --published alone")
    figure: Path | None = arguments.figure
    if figure is not None and (figure.suffix != ".png" or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: name a file that ends in .png, in a folder that is there")
    runs = read_runs(arguments.runs, arguments.by)
    make = {"runs": comparison, "results": results, "hints": hint_sources}[arguments.table]
    tables = [make(runs)]
    if arguments.baseline is not None:
        tables.append(differences(runs, arguments.baseline, arguments.pair))
    print("\n\n".join(written(table, arguments.format) for table in tables))
    if figure is not None:
        print(f"figure: {draw_comparison(runs, figure)}", file=sys.stderr)


def _published(arguments: argparse.Namespace) -> None:
    from ..report.published import published_tables
    from ..report.runs import find_runs

    if arguments.format != "markdown" or arguments.baseline or arguments.figure or arguments.table != "runs":
        raise InputError("--published: it writes Markdown tables of its own; leave --format, --baseline, … out")
    print(published_tables(find_runs(arguments.runs)))

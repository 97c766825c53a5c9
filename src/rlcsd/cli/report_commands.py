"""`rlcsd show`, `rlcsd compare` and `rlcsd inspect`: what run folders contain, and the token signal of hints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .train_commands import OVERRIDES


def add_show_command(commands: Any) -> None:
    """Add `rlcsd show`: a page of a run's recorded rollouts."""
    show = commands.add_parser("show", help="a page to look at a run's rollouts, token by token")
    show.add_argument("folder", type=Path, metavar="RUN", help="a run folder, finished or still going")
    show.add_argument("--out", type=Path, metavar="FILE", help="the page; by default rollouts.html in the run folder")
    show.add_argument("--steps", metavar="FIRST:LAST", help="only these steps, for example 1:20 or 100:")
    show.add_argument("--open", action="store_true", help="open the page in the browser")
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> None:
    from ..report.page import write_page

    target: Path = arguments.out or arguments.folder / "rollouts.html"
    steps = None if arguments.steps is None else _steps(arguments.steps)
    if arguments.out and (target.is_dir() or not target.parent.is_dir()):
        raise InputError(f"--out {target}: not a file in a folder that is there; name one, for example page.html")
    content = write_page(arguments.folder, target, steps)
    print(f"{target}: {content}")
    if arguments.open:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())


def _steps(text: str) -> tuple[int, int]:
    """First and last step of `FIRST:LAST`, either of which may be left out."""
    first, colon, last = text.partition(":")
    try:
        steps = (int(first or 1), int(last) if last else 2**62 if colon else int(first))
    except ValueError:
        raise InputError(f"--steps {text}: give a step or two with a colon between, for example 1:20") from None
    if steps[0] > steps[1]:
        raise InputError(f"--steps {text}: the first step is after the last")
    return steps


def add_compare_command(commands: Any) -> None:
    """Add `rlcsd compare`: several runs as tables and a figure."""
    compare = commands.add_parser("compare", help="several runs side by side: tables and a figure")
    compare.add_argument("runs", nargs="*", type=Path, metavar="PARENT|RUN", help="run folders, or folders of runs")
    compare.add_argument("--published", action="store_true", help="the authors' figures, with those of the runs below")
    compare.add_argument(
        "--by",
        nargs="+",
        metavar="KEY",
        help="config keys that label a run; runs of one label must differ in nothing but the seed (default: "
        "method.name, and what else differs)",
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
    compare.set_defaults(run=_compare, parser=compare)


def _compare(arguments: argparse.Namespace) -> None:
    from ..report.comparison import compare

    if arguments.published:
        _published(arguments)
        return
    if not arguments.runs:
        raise InputError("compare: at least one run is needed, or --published alone")
    figure = _figure(arguments)
    found = compare(arguments.runs, arguments.by, arguments.baseline, arguments.pair, arguments.table)
    print(found.written(arguments.format))
    if arguments.format == "csv":  # which has no place for notes
        for note in found.notes:
            print(note, file=sys.stderr)
    if figure is not None:
        found.plot(figure)
        print(f"figure: {figure}", file=sys.stderr)


def _published(arguments: argparse.Namespace) -> None:
    from ..report.published import published_tables
    from ..report.run_results import find_runs

    for name in ("by", "baseline", "pair", "table", "format", "figure"):
        if getattr(arguments, name) != arguments.parser.get_default(name):
            raise InputError(f"--published: it writes Markdown tables of its own; leave --{name} out")
    print(published_tables(find_runs(arguments.runs)))


def _figure(arguments: argparse.Namespace) -> Path | None:
    figure: Path | None = arguments.figure
    if figure is not None and (figure.suffix != ".png" or not figure.parent.is_dir()):
        raise InputError(f"--figure {figure}: name a file that ends in .png, in a folder that is there")
    return figure


def add_inspect_command(commands: Any) -> None:
    """Add `rlcsd inspect`: the token signal of hints, measured on a model or read from a run's rollouts."""
    inspect = commands.add_parser("inspect", help="the token signal of hints, by kind of token")
    inspect.add_argument(
        "overrides",
        nargs="*",
        metavar="RUN | key=value",
        help=f"a run folder, whose recorded rollouts are read (any method), or {OVERRIDES}",
    )
    inspect.add_argument("--problems", type=int, default=32, help="how many training problems to sample groups for")
    inspect.add_argument("--templates", action="store_true", help="also with each of the wordings around a hint")
    inspect.add_argument("--figure", type=Path, metavar="FILE", help="also draw it: a PNG, and an SVG beside it")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    figure = _figure(arguments)
    if arguments.problems < 1:
        raise InputError(f"--problems {arguments.problems}: must be at least 1")
    folders = [word for word in arguments.overrides if "=" not in word or Path(word).is_dir()]  # a sweep's have a =
    if len(folders) > 1 or (folders and len(arguments.overrides) > 1):
        raise InputError(f"{' '.join(arguments.overrides)}: give one run folder, or overrides of the form key=value")
    if folders and arguments.templates:
        raise InputError(f"--templates: needs a model to ask; use model.path={folders[0]} instead of the run folder")
    from ..run.inspect import inspect

    found = inspect(folders[0]) if folders else inspect(arguments.overrides, arguments.problems, arguments.templates)
    print(found)
    if figure is not None and len(found.table.kind):
        found.plot(figure)
        print(f"figure: {figure}")

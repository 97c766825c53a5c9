"""`rlcsd show`: the page of a run's recorded rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError


def add_show_command(show: argparse.ArgumentParser) -> None:
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
    first, colon, last = text.partition(":")
    try:
        steps = (int(first or 1), int(last) if last else 2**62 if colon else int(first))
    except ValueError:
        raise InputError(f"--steps {text}: give a step or two with a colon between, for example 1:20") from None
    if steps[0] > steps[1]:
        raise InputError(f"--steps {text}: the first step is after the last")
    return steps

"""How far a stand-alone evaluation is: a bar on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LONG = 15.0  # seconds between two lines


@contextmanager
def counting(what: str, total: int, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of problems that are done, until the end of the block."""
    shown = console or Console(stderr=True, highlight=False, force_jupyter=False)
    if shown.is_terminal and not shown.is_dumb_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=shown, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.update(task, advance=count)
        return
    done, last = 0, time.perf_counter()

    def line(count: int) -> None:
        nonlocal done, last
        done += count
        if time.perf_counter() - last > _LONG:
            last = time.perf_counter()
            shown.print(f"{what} {done}/{total}", soft_wrap=True)

    yield line

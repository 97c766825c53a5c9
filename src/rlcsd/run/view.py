"""The live view of a run: a bar with the time left, the phases of a step, what is learnt, one response."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..evaluation.summary import Summary
from .told import Told, clock

_BARS = "▁▂▃▄▅▆▇█"
_TREND = 24  # values of a trend
_PER_SECOND = 2.0


class LiveView:
    """Redrawn in place at the bottom of a terminal; what is printed meanwhile scrolls above it."""

    def __init__(self, console: Console, told: Told) -> None:
        self.told, self.console = told, console
        self.live = Live(console=console, get_renderable=self._panel, refresh_per_second=_PER_SECOND, transient=True)

    def start(self) -> None:
        self.live.start()

    def stop(self) -> None:
        self.live.stop()

    def refresh(self) -> None:
        """Nothing to do: the view redraws itself, so that seconds go on within a phase."""

    def _panel(self) -> RenderableType:
        return panel(self.told, plain=self.console.options.ascii_only)


class NotebookView:
    """One output of a notebook's cell, redrawn at each event; needs nothing but IPython."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.console = Console(file=sys.stdout, highlight=False, force_jupyter=False, force_terminal=False, width=120)
        self.handle: Any = None
        self._drawn = 0.0

    def start(self) -> None:
        from IPython.display import HTML, display

        self.handle = display(HTML(self._html()), display_id=True)

    def stop(self) -> None:
        self._draw()

    def refresh(self) -> None:
        if time.perf_counter() - self._drawn > 1 / _PER_SECOND:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML

        self._drawn = time.perf_counter()
        if self.handle is not None:
            self.handle.update(HTML(self._html()))

    def _html(self) -> str:
        paper = Console(file=io.StringIO(), record=True, width=100, force_jupyter=False, force_terminal=True)
        paper.print(panel(self.told))
        return paper.export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and "IPKernelApp" in instance.config


def panel(told: Told, plain: bool = False) -> RenderableType:
    """The view as it is now. `plain` leaves out characters beyond ASCII."""
    left = told.seconds_left()
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(f"step {told.step}/{told.steps or '?'}"),
        ProgressBar(total=max(told.steps, 1), completed=told.step, width=40),
        Text(f"{clock(told.elapsed())} gone" + (f", {clock(left)} left" if left is not None else "")),
    )
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("now", f"{told.phase} ({time.perf_counter() - told.phase_begun:.0f} s)")
    m = told.metrics
    if m:
        rows.add_row("step", f"{m['time/step']:.1f} s: {told.phases()}")
        rows.add_row("speed", f"{told.tokens_per_second():,.0f} tokens/s")
    names = (("reward", "rollout/reward", 3), ("entropy", "actor/entropy", 3), ("length", "rollout/length", 0))
    for label, name, digits in names:
        if told.history.get(name):
            values = told.history[name]
            rows.add_row(label, f"{values[-1]:.{digits}f}  {'' if plain else trend(values)}")
    if told.after:
        rows.add_row("held out", f"step {told.evaluated}: {told.rates()}")
    title = [Text(told.title, style="bold")] if told.title else []
    return Group(*title, head, rows)


def trend(values: Sequence[float]) -> str:
    """The last values as small bars between the lowest and the highest of them."""
    recent = [value for value in values[-_TREND:] if value == value]
    if len(recent) < 2:
        return ""
    low, high = min(recent), max(recent)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in recent)


def accuracy_table(before: Sequence[Summary], after: Sequence[Summary]) -> Table:
    """Held-out accuracy before and after, one line per set and kind."""
    table = Table(title="held-out accuracy (95 % bootstrap interval)")
    for column in ("set", "problems", "before", "after"):
        table.add_column(column, justify="left" if column == "set" else "right")
    earlier = {summary.name: summary for summary in before}

    def cell(summary: Summary | None) -> str:
        return f"{summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]" if summary else ""

    for summary in after:
        table.add_row(summary.label, str(summary.problems), cell(earlier.get(summary.name)), cell(summary))
    return table
